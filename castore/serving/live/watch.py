"""How the instances of a composition are, and what they did lately; looked at only while somebody asks.

Numbers are those of `Composition.metrics`. Stores are asked, at most once a second, whether they have a blob
that nobody has; that passes by the counters, so that looking changes no number. What is made of others is as
they are.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import attrs

from castore.composition.composition import Composition
from castore.composition.graph.graph import Graph, Instance
from castore.composition.probing import Checkable
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import CastoreError, describe
from castore.metrics.model import InstanceMetrics, Metrics
from castore.metrics.shell import bare
from castore.secrets import scrub, secrets_in
from castore.text import count_text
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock, Deadlines, Pending

Condition: TypeAlias = Literal["well", "heed", "dead", "idle"]

EVERY: Final = 1.0
"""How many seconds there are between two looks, at least."""

SAMPLES: Final = 61
"""So many looks are kept: a minute of them."""

_LATELY: Final = 10.0
"""How long an error is told of, in seconds."""

_WAIT: Final = 0.4
"""How long a look waits for answers to come, in seconds."""

_PATIENCE: Final = (0.6, 5.0)
"""After how many seconds, at least and at most, a service that has not answered is taken for dead."""

_TROUBLED: Final = ("is_open", "is_half_open", "is_degraded")
_QUIET_ERRORS: Final = "unsupported"


@attrs.frozen
class Health:
    """How an instance is.

    Attributes:
        condition: `well`; `heed`, for what goes on with a fault; `dead`; `idle`, for what nobody uses.
        words: The same for people, without secrets.
    """

    condition: Condition
    words: str


@attrs.frozen
class Counters:
    """Counters of an instance, at one moment."""

    calls: int
    hits: int
    misses: int
    bytes_in: int
    bytes_out: int
    errors: int


@attrs.frozen
class InstanceView:
    """What is to be said of an instance.

    Attributes:
        metrics: All that was counted.
        health: How it is.
        rates: What it did in a second, lately; `None` before there are two looks.
        hit_share: How much of what was asked for was there, lately, 0 to 1; `None` if nothing was.
        recent_errors: How many calls failed in the last seconds.
        fill: How full it is, 0 to 1; `None` where there is no bound.
        traffic: How many bytes a second it moved, look by look.
    """

    metrics: InstanceMetrics
    health: Health
    rates: Mapping[str, float] | None
    hit_share: float | None
    recent_errors: int
    fill: float | None
    traffic: Sequence[float]


@attrs.frozen
class Look:
    """All instances at one moment, by their ids, in the order of the file."""

    graph: Graph
    at: float
    """By the clock of the system, in seconds."""
    readings: Mapping[str, InstanceView]
    undecided: bool
    """Whether a store has not answered yet, and it is too early to say that it is dead."""


@attrs.define
class _Probe:
    """What is known of a store that is asked again and again."""

    pending: Pending[tuple[float, str | None]] | None = None
    begun: float = 0.0
    usual: float | None = None
    """How many seconds an answer takes."""
    fault: str | None = None
    answered: bool = False

    @property
    def patience(self) -> float:
        least, most = _PATIENCE
        return most if self.usual is None else min(max(least, 5 * self.usual), most)


class Watch:
    """Looks at a composition, whoever and how many may ask for it.

    Arguments:
        stores: The composition; whoever has opened it closes it.
        clock: What time is measured with.
    """

    def __init__(self, stores: Composition, *, clock: Clock = CLOCK) -> None:
        self._stores = stores
        self._clock = clock
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Know nothing, in a child of a fork, or of a composition that was read anew."""
        self._lock = forks.new_lock()
        self._graph: Graph | None = None
        self._probes: dict[str, _Probe] = {}
        self._samples: deque[tuple[float, dict[str, Counters]]] = deque(maxlen=SAMPLES)
        self._secrets: list[str] = []
        self._last: Look | None = None
        self._deadlines: Deadlines | None = None

    def close(self) -> None:
        """End the threads that ask; one that waits for an answer ends when that comes."""
        with self._lock:
            if self._deadlines is not None:
                self._deadlines.close()
                self._deadlines = None
            self._graph = None

    def look(self) -> Look:
        """Return how things are; the last look, if that is not a second old and was decided.

        Waits half a second at most.
        """
        with self._lock:
            now = self._clock.now()
            while True:
                if self._graph is not self._stores.graph:
                    self._begin(self._stores.graph)
                # A little early is in time: who asks each second comes now sooner, now later.
                early = self._last is not None and now - self._samples[-1][0] < EVERY - 0.15
                if self._last is not None and early and not self._last.undecided:
                    return self._last
                self._ask(now, collect_only=early)
                measured = self._stores.metrics()
                if self._graph is self._stores.graph:  # Else it was read anew in between.
                    self._last = self._read(measured, early=early)
                    return self._last

    def scrubbed(self, text: str) -> str:
        """Return a text without the secrets of the composition."""
        return scrub(text, self._secrets)

    def _begin(self, graph: Graph) -> None:
        if self._deadlines is not None:
            self._deadlines.close()
        self._graph = graph
        self._probes = {id_: _Probe() for id_, entry in graph.instances.items() if not entry.edges}
        self._samples.clear()
        self._secrets = [each for entry in graph.instances.values() for each in secrets_in(entry.config)]
        self._last = None
        # One call for each at a time, whether it returns or not.
        self._deadlines = Deadlines("watch", threads=max(len(self._probes), 1), clock=self._clock)

    # -- asking --

    def _ask(self, now: float, *, collect_only: bool) -> None:
        """Ask each store that has answered the last question, and wait a little for what comes at once."""
        assert self._graph is not None
        assert self._deadlines is not None
        begun = []
        for id_, probe in self._probes.items():
            service = self._stores.running(self._graph.instances[id_])
            self._collect(probe)
            if service is None:
                probe.answered = False
            elif probe.pending is None and not collect_only:
                probe.pending = self._deadlines.start(
                    partial(_question, service, self._graph.instances[id_].name)
                )
                probe.begun = now
                begun.append(probe)
        ends = now + _WAIT
        for probe in begun:
            assert probe.pending is not None
            if probe.pending.wait(max(ends - self._clock.now(), 0.0)):
                self._collect(probe)

    def _collect(self, probe: _Probe) -> None:
        if probe.pending is None or not probe.pending.done:
            return
        seconds, fault = probe.pending.result(0)
        probe.pending = None
        probe.usual = seconds if probe.usual is None else (3 * probe.usual + seconds) / 4
        probe.fault = None if fault is None else self.scrubbed(fault)
        probe.answered = True

    # -- reading --

    def _read(self, metrics: Metrics, *, early: bool) -> Look:
        graph, now = self._graph, self._clock.now()
        assert graph is not None
        measured = dict(zip(graph.instances, metrics, strict=True))
        totals = {id_: _totals(entry) for id_, entry in measured.items()}
        if not early:
            self._samples.append((now, totals))
        health: dict[str, Health] = {}
        for instance in graph.all_in_order():
            health[instance.id] = self._health(instance, measured[instance.id], health, now)
        readings = {
            id_: self._reading(graph.instances[id_], entry, health[id_]) for id_, entry in measured.items()
        }
        undecided = any(
            each.pending is not None and now - each.begun <= each.patience for each in self._probes.values()
        )
        return Look(graph, time.time(), readings, undecided)

    def _reading(self, instance: Instance, metrics: InstanceMetrics, health: Health) -> InstanceView:
        samples = [(at, each[instance.id]) for at, each in self._samples]
        traffic = [
            max(new.bytes_in + new.bytes_out - old.bytes_in - old.bytes_out, 0) / max(after - before, 0.001)
            for (before, old), (after, new) in pairwise(samples)
        ]
        rates = share = None
        if len(samples) > 1:
            (before, old), (after, new) = samples[-2:]
            apart = max(after - before, 0.001)
            rates = {
                name: (getattr(new, name) - getattr(old, name)) / apart
                for name in ("calls", "bytes_in", "bytes_out")
            }
        # Of a single second there is often nothing to be said; of ten there is.
        begin = next(each for at, each in samples if at >= samples[-1][0] - _LATELY)
        new = samples[-1][1]
        hits, misses = new.hits - begin.hits, new.misses - begin.misses
        if hits + misses:
            share = hits / (hits + misses)
        elif new.hits + new.misses:
            share = new.hits / (new.hits + new.misses)
        fill = fill_of(instance, metrics.gauges)
        return InstanceView(metrics, health, rates, share, new.errors - begin.errors, fill, traffic)

    def _health(
        self, instance: Instance, metrics: InstanceMetrics, others: Mapping[str, Health], now: float
    ) -> Health:
        service = self._stores.running(instance)
        if service is None:
            return Health("idle", "not in use")
        if instance.id in self._probes:
            found = self._answer(self._probes[instance.id], now)
        else:
            found = self._of_others(instance, service, others)
        if found.condition != "well":
            return found
        states = [name for name in _TROUBLED if metrics.gauges.get(name)]
        if states:
            return Health("heed", states[0].removeprefix("is_").replace("_", "-"))
        samples = [each[instance.id].errors for at, each in self._samples if at >= now - _LATELY]
        if len(samples) > 1 and samples[-1] > samples[0]:
            return Health("heed", f"{count_text(samples[-1] - samples[0], 'error')} in {_LATELY:.0f} s")
        return found

    @staticmethod
    def _answer(probe: _Probe, now: float) -> Health:
        if probe.pending is not None and now - probe.begun > probe.patience:
            return Health("dead", f"no answer for {max(now - probe.begun, 1):.0f} s")
        if not probe.answered:
            return Health("idle", "asked")
        return Health("well", "healthy") if probe.fault is None else Health("dead", probe.fault)

    def _of_others(self, instance: Instance, service: object, others: Mapping[str, Health]) -> Health:
        itself = bare(service)
        if isinstance(itself, Checkable):
            try:
                itself.check_usable()
            except CastoreError as error:
                return Health("dead", self.scrubbed(_fault(error, instance.name)))
        assert self._graph is not None
        targets = {edge.target: self._graph.instances[edge.target] for edge in instance.edges}
        labels = {edge.target: edge.label for edge in instance.edges}
        needed = {id_: labels[id_] if each.anonymous else each.name for id_, each in targets.items()}
        dead = [label for id_, label in needed.items() if others[id_].condition == "dead"]
        if dead and len(dead) == len(needed):
            return Health("dead", f"{', '.join(dead)} {'is' if len(dead) == 1 else 'are'} unavailable")
        if dead:
            return Health("heed", f"{', '.join(dead)} {'is' if len(dead) == 1 else 'are'} unavailable")
        return Health("well", "healthy")


def _question(service: object, name: str) -> tuple[float, str | None]:
    """Ask the service of this *name*, past its counters; return how long that took, and what is wrong."""
    itself = bare(service)
    begun = time.perf_counter()
    fault = None
    try:
        if isinstance(itself, Checkable):
            itself.check_usable()
        if isinstance(itself, (BlobService, DirectoryService)) and itself.has(B3Digest(os.urandom(32))):
            fault = "it claims to have a blob that nobody can have"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        fault = _fault(error, name)
    return time.perf_counter() - begun, fault


def _fault(error: BaseException, name: str) -> str:
    """Return an error on one line; whose it is goes without saying."""
    words = " ".join(describe(error).split()) or type(error).__name__
    return words.removeprefix(f"`{name}` is ")


def _totals(entry: InstanceMetrics) -> Counters:
    errors = sum(count for kind, count in entry.errors.items() if kind != _QUIET_ERRORS)
    return Counters(entry.calls, entry.hits, entry.misses, entry.bytes_in, entry.bytes_out, errors)


def fill_of(instance: Instance, gauges: Mapping[str, float]) -> float | None:
    """Return how full an instance is, 0 to 1: a gauge such as `bytes`, by `max_bytes` of the config."""
    shares = []
    for name, value in gauges.items():
        most = getattr(instance.config, f"max_{name}", None)
        if isinstance(most, (int, float)) and not isinstance(most, bool) and most > 0:
            shares.append(min(value / most, 1.0))
    return max(shares, default=None)
