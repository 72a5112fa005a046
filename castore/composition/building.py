"""Building the instances of a composition, sharing them, and closing them in order."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from castore.composition.config.refs import Ref
from castore.composition.config.shown import place_of
from castore.composition.graph.graph import DEEPEST, Graph, Instance
from castore.composition.types.strangers import is_fault, printing_to_stderr
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import BuildError, ClosedError, CompositionError, PluginError
from castore.metrics.meters import Meters
from castore.metrics.model import InstanceMetrics, Metrics, gauges_of
from castore.metrics.shell import bare, guarded, measured, shut
from castore.problems import escaped
from castore.secrets import fields_of
from castore.threads import forks
from castore.threads.waiting import Baton, Holder
from castore.urls import hidden_in
from castore.wrapping.discreet import discreet, without_secrets

if TYPE_CHECKING:
    from castore.threads.pool import Pool

T = TypeVar("T")

_SHALLOW: Final = 30
"""How many services in a row do with half of the stack that Python has."""

_FRAMES: Final = 33
"""How many calls one of them takes at most, twice."""


@attrs.frozen(eq=False, repr=False)
class BuildContext:
    """What a config sees of the world while it builds its service."""

    base: Path
    """The folder that relative paths start from: that of the composition's file."""
    pool: Pool
    """The pool of threads that the services of the composition share."""
    _builder: Builder
    _instance: Instance

    def resolve(self, ref: Ref[T]) -> T:
        """Return the service that a field of this config refers to.

        Only references that the config holds can be resolved: so the graph was known, and free of
        cycles, before anything was built. Raises `BuildError` if the service could not be built.
        """
        edges = self._instance.edges
        # Two equal URLs are two references, each with an instance of its own: the very same one comes first.
        held = [edge for edge in edges if edge.ref is ref] or [edge for edge in edges if edge.ref == ref]
        if held:
            service: T = self._builder.service(held[0].target)
            return service
        entry = self._instance.type
        raise PluginError(
            f"the type `{entry.tag}` resolves {ref!r}, which no field of its config holds",
            plugin=entry.plugin.name if entry.plugin else None,
            distribution=entry.plugin.distribution if entry.plugin else None,
        )


class Builder:
    """Builds each instance at most once, also when several threads ask for it at the same time.

    With *metrics* each service of blobs or directories is measured, by whomever it is asked.

    A builder may take the place of another (`succeed`). Of an instance that is kept there is one slot, in
    both; its owner, who closes the service, is the last of those that kept it.
    """

    def __init__(
        self, graph: Graph, base: Path, pool: Pool, secrets: Sequence[str], *, metrics: bool = True
    ) -> None:
        self.graph = graph
        self._base = base
        self._pool = pool
        self._secrets = secrets
        self._depths = graph.depths()
        self._meters = {key: Meters() for key in graph.instances} if metrics else {}
        self._last_gauges: dict[str, dict[str, float]] = {}
        self._lock = forks.new_lock()
        self._slots: dict[str, _Slot] = {}
        self._built: list[tuple[str, Any]] = []
        """What was built, each after all that it needs, by the ids of their instances."""
        self._closed = False
        self._closing = Baton()
        self._is_closing_one = False

    def build(self, instance: Instance) -> Any:
        """Return the service of *instance*.

        Raises `BuildError`, with the same cause each time, or `ClosedError`.

        What it needs is built before it, from the far ends on. A service that it refers to and does not
        resolve is built as well; one that cannot be built is its own concern.
        """
        depth = self._depths.get(instance.id, 0)
        if depth > DEEPEST:
            raise CompositionError(
                f"cannot build `{instance.name}`: {depth} services stand in a row, each using the next;"
                f" at most {DEEPEST} work: `castore check` shows where"
            )
        if depth > _SHALLOW:
            # Up to there what Python has leaves as much again to the program; the limit is never lowered.
            sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES * (depth + _SHALLOW)))
        for needed in self.graph.in_order(instance):
            self._fill(needed)
        return self.service(instance.id)

    def service(self, key: str) -> Any:
        """Return the service of an instance that was built, by its id; raises what `build` raises."""
        with self._lock:
            slot = self._slots.get(key)
        if slot is None or slot.owner.is_closed:
            raise ClosedError("the composition is closed")
        if slot.failure is not None:
            chain, cause = slot.failure
            # A new error each time: its traceback is of this call, that of the cause is of the first.
            raise BuildError(chain, cause) from cause
        return slot.service

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or is about to be."""
        return self._closed

    def running(self, key: str) -> Any:
        """Return the service of an instance if it was built, by its id; else `None`."""
        with self._lock:
            slot = self._slots.get(key)
        return None if slot is None or slot.owner.is_closed else slot.service

    # -- one in the place of another --

    def stand_beside(self, other: Builder, kept: Iterable[str]) -> None:
        """Share the instances *kept* with the other builder, which goes on; not what could not be built."""
        with other._lock:
            for key in kept:
                slot = other._slots.setdefault(key, _Slot(other))
                if slot.failure is None:
                    self._slots[key] = slot
        self._meters = {key: other._meters.get(key, new) for key, new in self._meters.items()}

    def succeed(self, other: Builder) -> None:
        """Take over what is shared, with the duty to close it, from the one beside which this one stands."""
        with other._lock, self._lock:
            shared = {key for key, slot in self._slots.items() if other._slots.get(key) is slot}
            for key in shared:
                self._slots[key].owner = self
            self._built = [each for each in other._built if each[0] in shared] + self._built
            other._built = [each for each in other._built if each[0] not in shared]

    def _fill(self, instance: Instance) -> None:
        """Build an instance that has not been built, or has not been found impossible to build."""
        with self._lock:
            if self._closed:
                raise ClosedError("the composition is closed")
            slot = self._slots.setdefault(instance.id, _Slot(self))
        # All that the instance needs is there, so whoever holds this lock waits for no other.
        with slot.lock:
            if not slot.filled:
                self._build(slot, instance)

    def _build(self, slot: _Slot, instance: Instance) -> None:
        context = BuildContext(self._base, self._pool, self, instance)
        try:
            with printing_to_stderr():
                service = instance.config.build(instance.name, context)
            if not isinstance(service, instance.kind.contract):
                raise PluginError(
                    f"the type `{instance.type.tag}` built {service!r}, which is no {instance.kind.label}"
                )
        except BaseException as error:
            if not is_fault(error) or (self._closed and isinstance(error, ClosedError)):
                raise
            if isinstance(error, BuildError):
                slot.failure = ((instance.name, *error.chain), error.cause)
            else:
                hidden = [*self._secrets, *self._hidden(instance)]
                slot.failure = ((instance.name,), without_secrets(error, hidden))
        else:
            hidden = self._hidden(instance)
            if hidden and isinstance(service, (BlobService, DirectoryService)):
                service = discreet(service, hidden)
                self._keep(slot, instance.id, service)
            else:
                self._keep(slot, instance.id, bare(service))
            _name(bare(service), instance)
            meters = self._meters.get(instance.id)
            if isinstance(service, (BlobService, DirectoryService)):
                service = guarded(service) if meters is None else measured(service, meters)
            slot.service = service
        slot.filled = True

    def _hidden(self, instance: Instance) -> list[str]:
        """Return the secrets of an instance, and of all beneath it, whose folders it may work in."""
        beneath = self.graph.reachable(instance)
        return list(dict.fromkeys(hidden for each in beneath for hidden in _hidden_in(each.config)))

    def _keep(self, slot: _Slot, key: str, service: Any) -> None:
        while True:
            owner = slot.owner
            with owner._lock:  # noqa: SLF001 - its own
                if slot.owner is not owner:
                    continue  # Another builder has taken over.
                if owner._closed:  # noqa: SLF001 - its own
                    break
                # A type may hand on what another built; it is closed once, after all that use it.
                if not any(bare(service) is bare(other) for _, other in owner._built):  # noqa: SLF001
                    owner._built.append((key, service))  # noqa: SLF001 - its own
                return
        # The composition was closed in the meantime, and will not come back for it.
        service.close()
        raise ClosedError("the composition was closed while it was building")

    def release(self, service: Any) -> list[Any]:
        """Forget what was built, as the caller will close *service*; return the others in order to close."""
        with self._lock:
            built, self._built = self._built, []
        return [other for _, other in reversed(built) if bare(other) is not bare(service)]

    @property
    def has_to_close(self) -> bool:
        """Whether there is anything that `close` would close."""
        return bool(self._built)

    def gauges(self) -> dict[str, dict[str, float]]:
        """Return what the services that were built tell of themselves, by the ids of their instances."""
        with self._lock:
            slots = {} if self._closed else dict(self._slots)
        return _gauges(slots) or self._last_gauges

    def metrics(self) -> Metrics:
        """Return what was measured up to now. How things stood when it was closed is how they stand then."""
        gauges = self.gauges()
        return Metrics(
            tuple(
                InstanceMetrics(
                    name=instance.name,
                    type=instance.type.tag,
                    kind=instance.kind.label,
                    operations=self._meters[key].snapshot() if key in self._meters else {},
                    gauges=gauges.get(key, {}),
                )
                for key, instance in self.graph.instances.items()
            )
        )

    def close(self, *, last: bool = True) -> None:
        """Close what was built, dependants before what they depend on, even if some fail.

        And the pool, if it is the *last* of the builders that use it. Closing again does nothing, but for
        what an interrupt has left open. Raises what a service raised while closing: a single error as it is,
        several as an `ExceptionGroup`.
        """
        if self._is_closing_one and self._closing.is_mine:
            return  # A service that is being closed closes what it came from.
        mine = Holder()
        if not self._closing.take(mine, 0.0):
            return  # Another thread is at it.
        try:
            with self._lock:
                if self._closed and not self._built:
                    return
                first, self._closed = not self._closed, True
            if first:
                self._last_gauges = _gauges(self._slots)
            try:
                # An instance is listed when it is complete, so after all that it needs.
                self._close_built()
            finally:
                if last:
                    self._pool.close()
        finally:
            self._closing.give_back(mine)

    def _close_built(self) -> None:
        errors: list[Exception] = []
        while self._built:
            # It is listed until it is closed: an interrupt leaves it to who closes again.
            _, service = self._built[-1]
            self._is_closing_one = True
            try:
                service.close()
            except Exception as error:  # noqa: BLE001 - the others must still be closed
                errors.append(error)
            finally:
                self._is_closing_one = False
            for slot in list(self._slots.values()):
                if bare(slot.service) is bare(service):
                    shut(slot.service)
            self._built.pop()
        raise_all(errors)


def _name(service: Any, instance: Instance) -> None:
    """Let a service say in its repr what it is: its type, its name, and where it keeps things."""
    if isinstance(service, (BlobService, DirectoryService)) and not service._named:  # noqa: SLF001 - written here, shown there
        named = f"{instance.type.tag} `{escaped(instance.name)}`"
        place = place_of(instance.config)
        with contextlib.suppress(AttributeError, TypeError):  # Some stranger's takes no attributes.
            object.__setattr__(service, "_named", f"{named} at {place}" if place else named)


def close_all(services: Iterable[Any]) -> None:
    """Close *services* in order, even if some fail; raise a single error as it is, several as a group."""
    errors: list[Exception] = []
    for service in services:
        try:
            service.close()
        except Exception as error:  # noqa: BLE001 - the others must still be closed
            errors.append(error)
    raise_all(errors)


def raise_all(errors: list[Exception]) -> None:
    """Raise what several have raised while closing: a single error as it is, several as a group."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("services failed to close", errors)


def _hidden_in(config: Any) -> list[str]:
    """Return the secrets of a config, those among them that stand there as they are."""
    own = [value for value in fields_of(config).values() if not isinstance(value, Ref)]
    return [hidden for value in own for hidden in hidden_in(value)]


def _gauges(slots: Mapping[str, _Slot]) -> dict[str, dict[str, float]]:
    return {key: gauges_of(bare(slot.service)) for key, slot in slots.items() if slot.filled}


class _Slot:
    """The place of one instance: empty, built, or failed."""

    __slots__ = ("failure", "filled", "lock", "owner", "service")

    def __init__(self, owner: Builder) -> None:
        self.owner = owner
        self.lock = forks.new_lock()
        self.filled = False
        self.service: Any = None
        self.failure: tuple[tuple[str, ...], BaseException] | None = None
