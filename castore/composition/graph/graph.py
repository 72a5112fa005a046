"""The static graph of a composition: what is declared and who refers to whom, before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.composition.config.refs import Ref
from castore.composition.types.service_type import Kind, RegisteredType
from castore.problems import dotted
from castore.urls import shown_of

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

_MOST_CYCLES: Final = 20

DEEPEST: Final = 64
"""How many services may stand in a row, each using the next: a call goes through all of them, and each takes
some of Python's stack."""


@attrs.frozen(eq=False)
class Edge:
    """A reference from one instance to another."""

    label: str
    """The field that holds it, such as `near` or `services[0]`."""
    path: Path
    """Where it is written."""
    ref: Ref[Any]
    target: str
    """The id of the instance it refers to."""


@attrs.frozen(eq=False)
class Instance:
    """One declared instance. An anonymous one, made by a URL, is named by the place of the URL."""

    kind: Kind
    name: str
    type: RegisteredType
    config: Any = attrs.field(repr=shown_of)
    path: Path
    edges: tuple[Edge, ...] = ()
    anonymous: bool = False

    @property
    def id(self) -> str:
        """What distinguishes it from all others: its path in the composition."""
        return dotted(self.path)


@attrs.frozen(eq=False)
class Graph:
    """All instances of a composition by id, in the order of the file."""

    instances: Mapping[str, Instance]

    def find(self, kind: Kind, name: str) -> Instance | None:
        """Return the named instance of a kind, `None` if it is not declared."""
        return self.instances.get(instance_id(kind, name))

    def named(self, kind: Kind) -> list[Instance]:
        """List the named instances of a kind."""
        return [entry for entry in self.instances.values() if entry.kind == kind and not entry.anonymous]

    def reachable(self, start: Instance) -> Iterator[Instance]:
        """Yield *start* and all that it needs, directly or not, each once."""
        seen = {start.id}
        waiting = [start]
        while waiting:
            instance = waiting.pop()
            yield instance
            for edge in instance.edges:
                if edge.target not in seen:
                    seen.add(edge.target)
                    waiting.append(self.instances[edge.target])

    def in_order(self, start: Instance) -> Iterator[Instance]:
        """Yield *start* and all that it needs, each once and after all that it needs itself.

        The graph must have no cycles.
        """
        return self._in_order([start])

    def all_in_order(self) -> Iterator[Instance]:
        """Yield all instances, each once and after all that it needs; as `in_order` otherwise."""
        return self._in_order(self.instances.values())

    def _in_order(self, starts: Iterable[Instance]) -> Iterator[Instance]:
        seen: set[str] = set()
        for start in starts:
            if start.id in seen:
                continue
            seen.add(start.id)
            # Kept by hand, for a chain of references may be longer than Python's stack.
            work = [(start, iter(start.edges))]
            while work:
                instance, edges = work[-1]
                edge = next(edges, None)
                if edge is None:
                    work.pop()
                    yield instance
                elif edge.target not in seen:
                    seen.add(edge.target)
                    target = self.instances[edge.target]
                    work.append((target, iter(target.edges)))

    def depths(self) -> dict[str, int]:
        """Return, by id, how many stand in the longest row that begins with an instance, itself among them.

        The graph must have no cycles.
        """
        found: dict[str, int] = {}
        for instance in self.all_in_order():
            found[instance.id] = 1 + max((found[edge.target] for edge in instance.edges), default=0)
        return found

    def cycles(self) -> list[list[Instance]]:
        """List cycles, each as the instances on it, from the one met first on.

        Without the references that close them there is none left; of very many only some are listed.
        """
        return _Cycles(self).find()


def instance_id(kind: Kind, name: str) -> str:
    """Return the id of a named instance."""
    return dotted((kind.table, name))


class _Cycles:
    """A depth-first walk that notes each path which comes back to itself."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._done: set[str] = set()
        self._found: dict[frozenset[str], list[Instance]] = {}

    def find(self) -> list[list[Instance]]:
        instances = self._graph.instances
        # From `root` first: that is how a reader follows the references.
        for start in sorted(instances.values(), key=lambda entry: entry.name != "root"):
            self._walk(start)
        return list(self._found.values())

    def _walk(self, start: Instance) -> None:
        # Kept by hand, as in `in_order`.
        path: list[Instance] = []
        on_path: dict[str, int] = {}
        work: list[tuple[Instance, Iterator[Edge]]] = []

        def enter(instance: Instance) -> None:
            on_path[instance.id] = len(path)
            path.append(instance)
            work.append((instance, iter(instance.edges)))

        if start.id in self._done:
            return
        enter(start)
        while work:
            instance, edges = work[-1]
            edge = next(edges, None)
            if edge is None:
                work.pop()
                path.pop()
                del on_path[instance.id]
                self._done.add(instance.id)
            elif edge.target in on_path:
                self._note(path[on_path[edge.target] :])
            elif edge.target not in self._done:
                enter(self._graph.instances[edge.target])

    def _note(self, cycle: Sequence[Instance]) -> None:
        if len(self._found) < _MOST_CYCLES:
            self._found.setdefault(frozenset(instance.id for instance in cycle), list(cycle))
