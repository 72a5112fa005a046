"""What is known of instances before they are built, for warnings about how they are put together.

A config class may say it, with any of these methods; each is optional, and what a class does not say is taken
for unknown, about which nothing is ever said::

    def traits(self, view: View) -> Traits:                   # what its service can do
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:  # as `capability` of the service will
        return view.offers(self.inner, kind)

    def lints(self, view: View) -> Iterator[Problem]:         # what looks wrong
        if view.of(self.inner).writable is False:
            yield view.warning("spool-not-writable", self.inner, "nothing can be written here", "...")

Like all of loading they open, make and contact nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from castore.composition.config.refs import Ref
from castore.composition.graph.graph import Graph, Instance
from castore.contract.capabilities import EvictionEvents
from castore.problems import Problem, dotted, escaped


@attrs.frozen
class Evicts:
    """Says that a blob which was acknowledged may go by itself, with no other copy of it.

    Attributes:
        by: The name of the instance that evicts.
        path: Where another instance has chosen that new blobs go there alone; empty if none has.
        hint: What to write there instead.
    """

    by: str
    path: tuple[str | int, ...] = ()
    hint: str = ""


@attrs.frozen
class Traits:
    """What is known of an instance before it is built; `None` stands for "not known".

    Attributes:
        writable: Whether a blob can ever be written to it.
        answers: Whether it can ever tell that a blob is absent. What always fails cannot.
        attempts: How often what is beneath it may be asked again for one operation; 1 if it is asked once.
        repeater: The name of the instance that asks again; empty if none does.
        place: The folder or the file of its own that it keeps what it has in, absolute.
        place_field: The field that says so.
        cuts: How it cuts new blobs into chunks, in words that are the same for all that cut alike; empty if
            it does not, or nobody knows.
        evicts: Who may drop a blob that was written to it, which is nowhere else then; `None` for nobody, as
            far as is known.
        waits: Whether a call of it may wait for another machine for as long as that does not answer.
    """

    writable: bool | None = None
    answers: bool | None = None
    attempts: int = 1
    repeater: str = ""
    place: Path | None = None
    place_field: str = ""
    cuts: str = ""
    evicts: Evicts | None = None
    waits: bool | None = None


UNKNOWN = Traits()


@attrs.frozen(eq=False)
class View:
    """What one instance sees of a composition that is not built yet."""

    base: Path
    """The folder that relative paths start from, as in `BuildContext`."""
    name: str
    """The name of the instance."""
    _instance: Instance
    _graph: Graph
    _traits: Mapping[str, Traits]

    def of(self, ref: Ref[Any]) -> Traits:
        """Return what is known of the instance that a field refers to; its place is its own affair."""
        target = self._target(ref)
        return UNKNOWN if target is None else attrs.evolve(self._traits.get(target.id, UNKNOWN), place=None)

    def all_of(self, *refs: Ref[Any]) -> Traits:
        """Return what is known of several that are all needed at each operation; the first one cuts."""
        traits = [self.of(ref) for ref in refs]
        repeater = max(traits, key=lambda entry: entry.attempts, default=UNKNOWN)
        return Traits(
            writable=_all(entry.writable for entry in traits),
            answers=_all(entry.answers for entry in traits),
            attempts=repeater.attempts,
            repeater=repeater.repeater,
            cuts=traits[0].cuts if traits else "",
            evicts=next((entry.evicts for entry in traits if entry.evicts is not None), None),
            waits=_any(entry.waits for entry in traits),
        )

    def kept_in(self, ref: Ref[Any], hint: str) -> Evicts | None:
        """Return who may drop blobs that are kept only where *ref* leads, as this config has chosen.

        *hint* says what to write instead.
        """
        found = self.of(ref).evicts
        if found is None and self.offers(ref, EvictionEvents):
            found = Evicts(self.called(ref))
        if found is None or found.path:
            return found
        return attrs.evolve(found, path=self._path_of(ref), hint=hint)

    def offers(self, ref: Ref[Any], kind: type) -> bool | None:
        """Tell whether the instance that a field refers to will have a capability; `None` if nobody knows."""
        target = self._target(ref)
        if target is None:
            return None
        ask = getattr(target.config, "offers", None)
        if ask is None:
            return None
        try:
            answer = ask(kind, View(self.base, label(target), target, self._graph, self._traits))
        except Exception:  # noqa: BLE001 - the fault of that type, which concerns the one that asks in no way
            return None
        return answer if isinstance(answer, bool) else None

    def all_offer(self, refs: Iterable[Ref[Any]], kind: type) -> bool | None:
        """Tell whether several instances will all have a capability; `None` if that is not known."""
        return _all(self.offers(ref, kind) for ref in refs)

    def stores(self, ref: Ref[Any]) -> frozenset[str]:
        """Return what an instance that a field refers to ends in: those that refer to no other, by name."""
        target = self._target(ref)
        found = () if target is None else self._graph.reachable(target)
        return frozenset(label(entry) for entry in found if not entry.edges)

    def waiting(self, at: Ref[Any], *, unless: object = None) -> Problem | None:
        """Return the warning that nobody ends a call to an instance that does not answer, if that is so.

        *unless* is the timeout that the caller has for it.
        """
        if unless is not None or not self.of(at).waits:
            return None
        name = self.called(at)
        return self.warning(
            "waits-without-end",
            at,
            f"if the machine of `{name}` accepts a connection and never answers, this waits without end:"
            " neither its driver nor anything in between has a time limit",
            'put a `type = "timeout"` before it',
        )

    def called(self, ref: Ref[Any]) -> str:
        """Return the name of the instance that a field refers to; of one that a URL made, its place."""
        target = self._target(ref)
        return "" if target is None else label(target)

    def warning(
        self, code: str, at: Ref[Any] | str | tuple[str | int, ...], message: str, hint: str | None = None
    ) -> Problem:
        """Return a warning about this instance.

        Arguments:
            code: A stable word for the sort of warning, by which it can be ignored.
            at: What it is about: a reference of this config, the name of a field, or keys and numbers.
            message: What looks wrong, and what comes of it.
            hint: The way out.
        """
        if isinstance(at, Ref):
            path = self._path_of(at)
        else:
            path = (*self._instance.path, *((at,) if isinstance(at, str) else at))
        return Problem(code, path, message, hint, severity="warning")

    def _path_of(self, ref: Ref[Any]) -> tuple[str | int, ...]:
        edge = next((edge for edge in self._instance.edges if edge.ref is ref), None)
        return self._instance.path if edge is None else edge.path

    def _target(self, ref: Ref[Any]) -> Instance | None:
        edges = self._instance.edges
        held = [edge for edge in edges if edge.ref is ref] or [edge for edge in edges if edge.ref == ref]
        return self._graph.instances.get(held[0].target) if held else None


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Return False if one of *answers* is, True if all are, and `None` where that is not known."""
    found = set(answers)
    if False in found:
        return False
    return None if None in found else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    """Return True if one of *answers* is, False if none is, and `None` where that is not known."""
    found = set(answers)
    if True in found:
        return True
    return None if None in found else False


def label(instance: Instance) -> str:
    """Return how an instance is called in a warning."""
    return dotted(instance.path) if instance.anonymous else escaped(instance.name)
