"""Asking the instances of a composition whether they answer: bounded in time, and without writing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from castore.composition.graph.graph import Instance
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import BuildError, CorruptBlobError, UnavailableError, describe
from castore.metrics.shell import bare
from castore.secrets import scrub
from castore.threads.deadlines import Deadlines

if TYPE_CHECKING:
    from castore.composition.building import Builder

PROBE_SECONDS: Final = 10.0
"""How long an instance is waited for."""


State: TypeAlias = Literal["healthy", "unavailable", "corrupt", "failing"]


@attrs.frozen
class Probe:
    """How an instance answered.

    Attributes:
        instance: Which one.
        state: `healthy`, `unavailable`, `corrupt`, or `failing` for any other error.
        result: `ok`, or `built` where a kind of service has nothing to be asked, or the error.
        seconds: How long the answer took; `None` if there was none.
        gauges: What it tells of itself; nothing if it was not built.
        route: By what it reaches what it keeps, if there is a choice; empty if there is none.
    """

    instance: Instance
    state: State
    result: str
    seconds: float | None = None
    gauges: Mapping[str, float] = attrs.field(factory=dict)
    route: str = ""

    @property
    def ok(self) -> bool:
        """Whether it answered as it should."""
        return self.state == "healthy"


@runtime_checkable
class Checkable(Protocol):
    """A service that knows of itself what no question would show; any with this method is one."""

    def check_usable(self) -> None:
        """Raise `UnavailableError` if it can be seen, without a write, that nothing could be stored."""
        ...


@runtime_checkable
class Routed(Protocol):
    """A service that has a choice of ways to what it keeps; any with this member is one."""

    @property
    def route(self) -> str:
        """The name of the way, such as that of a driver; empty if there was no choice."""
        ...


def route_of(service: object) -> str:
    """Return the name of the way by which a service reaches what it keeps, empty if it tells none."""
    itself = bare(service)
    return itself.route if isinstance(itself, Routed) else ""


def probe_all(
    builder: Builder, instances: Sequence[Instance], timeout: float, secrets: Sequence[str]
) -> list[Probe]:
    """Probe *instances*, all at once; none is waited for longer than *timeout* seconds."""
    deadlines = Deadlines("probe")
    ends = time.monotonic() + timeout
    started = [deadlines.start(partial(_ask, builder, instance, secrets)) for instance in instances]
    probes = []
    for instance, pending in zip(instances, started, strict=True):
        try:
            probes.append(pending.result(max(ends - time.monotonic(), 0.0)))
        except UnavailableError:
            probes.append(Probe(instance, "unavailable", f"no answer within {timeout:g} s"))
    deadlines.close()
    gauges = builder.gauges()
    return [attrs.evolve(probe, gauges=gauges.get(probe.instance.id, {})) for probe in probes]


def _ask(builder: Builder, instance: Instance, secrets: Sequence[str]) -> Probe:
    try:
        service = builder.build(instance)
        if not isinstance(service, (BlobService, DirectoryService)):
            return Probe(instance, "healthy", "built")
        itself = bare(service)
        if isinstance(itself, Checkable):
            itself.check_usable()
        started = time.perf_counter()
        # Nobody has a thing of this digest: the answer must be no, but it must come.
        found = service.has(B3Digest(os.urandom(32)))
        seconds = time.perf_counter() - started
    except Exception as error:  # noqa: BLE001 - one instance that fails must not hide the others
        return Probe(instance, _state_of(error), scrub(describe(error), secrets))
    if found:
        return Probe(instance, "failing", "claims to have a blob that nobody can have", seconds)
    return Probe(instance, "healthy", "ok", seconds, route=route_of(service))


def _state_of(error: BaseException) -> State:
    if isinstance(error, BuildError):
        error = error.cause
    if isinstance(error, (UnavailableError, OSError)):
        return "unavailable"
    return "corrupt" if isinstance(error, CorruptBlobError) else "failing"
