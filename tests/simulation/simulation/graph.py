"""Random graphs of services: kinds of composites above kinds of stores, drawn by dice, shown as TOML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from castore.contract.blobs import BlobService
from simulation.clock import VirtualClock
from simulation.shelf import Store, Watcher

if TYPE_CHECKING:
    from simulation.rules import Rules

_MOST_NODES: Final = 14
_SHARED: Final = 0.2

Settings: TypeAlias = Mapping[str, Any]


@attrs.frozen(eq=False)
class Node:
    """One instance of a graph, as its table in a composition."""

    name: str
    tag: str
    members: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """The fields of its children, or one for the list of them all."""
    settings: Settings = attrs.field(factory=dict)
    """Its other fields."""
    entries: tuple[Settings, ...] = ()
    """Of a list of children: the settings of each."""


@attrs.frozen(eq=False)
class Site:
    """What the service of a node is built from."""

    node: Node
    members: tuple[BlobService, ...]
    clock: VirtualClock
    dice: Random


@attrs.frozen(eq=False)
class Drawn:
    """The settings of a node that is being drawn."""

    settings: Settings = attrs.field(factory=dict)
    entries: tuple[Settings, ...] = ()


def _plain(dice: Random, members: Sequence[str]) -> Drawn:
    return Drawn()


@attrs.frozen(eq=False)
class Kind:
    """A type of composite.

    Arguments:
        tag: Its name.
        build: Makes its service. All waiting in it must go through the clock of the site.
        rules: What its documentation promises.
        roles: The fields of its children; `("services",)` is a list of as many as `children` says.
        draw: Draws the settings of a node, for children of these names.
        children: How many there may be in the list.
        weight: How often it is drawn, beside the others.
    """

    tag: str
    build: Callable[[Site], BlobService]
    rules: Rules
    roles: tuple[str, ...] = ("inner",)
    draw: Callable[[Random, Sequence[str]], Drawn] = _plain
    members: tuple[int, int] = (1, 1)
    weight: float = 1.0

    @property
    def many(self) -> bool:
        """Whether its children are a list."""
        return self.roles == ("services",)


@attrs.frozen(eq=False)
class StoreKind:
    """A type of store at the ends. *build* is given its settings and who watches it."""

    tag: str
    build: Callable[[Settings, Watcher], Store]
    draw: Callable[[Random], Settings] = lambda _: {}
    weight: float = 1.0
    below: str | None = None
    """The tag of the only kind that it may stand behind, and be shared with nobody; `None`: any."""


@attrs.frozen
class Kinds:
    """The types that graphs are drawn from."""

    composites: tuple[Kind, ...]
    stores: tuple[StoreKind, ...]

    def composite(self, tag: str) -> Kind | None:
        """Return the kind of composite of this name, `None` if there is none."""
        return next((kind for kind in self.composites if kind.tag == tag), None)

    def store(self, tag: str) -> StoreKind:
        """Return the kind of store of this name."""
        return next(kind for kind in self.stores if kind.tag == tag)

    def favouring(self, tag: str, times: float = 6.0) -> Kinds:
        """Return the same kinds, of which one is drawn so many times as often."""
        kinds = (
            attrs.evolve(kind, weight=kind.weight * times) if kind.tag == tag else kind
            for kind in self.composites
        )
        return attrs.evolve(self, composites=tuple(kinds))


@attrs.frozen(eq=False)
class Graph:
    """Nodes by their names, each after those that it needs; the last one is `root`."""

    nodes: Mapping[str, Node]

    def toml(self) -> str:
        """Return the graph as a composition."""
        return "\n".join(_table(node) for node in reversed(list(self.nodes.values())))


def draw_graph(dice: Random, kinds: Kinds, *, depth: int = 4) -> Graph:
    """Return a graph whose composites stand up to *depth* deep; some nodes have several above them."""
    while True:
        graph = _Drawing(dice, kinds).graph(dice.randint(1, depth))
        # What keeps nothing has no story.
        if any(kinds.composite(node.tag) is None for node in graph.nodes.values()):
            return graph


class _Drawing:
    def __init__(self, dice: Random, kinds: Kinds) -> None:
        self._dice = dice
        self._kinds = kinds
        self._nodes: dict[str, Node] = {}
        self._count = 0
        self._private: set[str] = set()

    def graph(self, depth: int) -> Graph:
        self._composite("root", depth)
        return Graph(self._nodes)

    def _composite(self, name: str, depth: int) -> None:
        dice = self._dice
        usable = [kind for kind in self._kinds.composites if kind.roles or name != "root"]
        kind = dice.choices(usable, [entry.weight for entry in usable])[0]
        count = dice.randint(*kind.members) if kind.many else len(kind.roles)
        members: list[str] = []
        for _ in range(count):
            members.append(self._child(kind, depth - 1, members))
        drawn = kind.draw(dice, members)
        self._nodes[name] = Node(
            name, kind.tag, tuple(members), kind.roles, drawn.settings, drawn.entries or ({},) * count
        )

    def _child(self, above: Kind, depth: int, siblings: Sequence[str]) -> str:
        dice = self._dice
        known = [name for name in self._nodes if name not in siblings and name not in self._private]
        full = self._count >= _MOST_NODES
        if known and (full or dice.random() < _SHARED):
            return dice.choice(known)
        self._count += 1
        if depth > 0 and not full and dice.random() < 0.6:
            name = f"c{self._count}"
            self._composite(name, depth)
            return name
        name = f"s{self._count}"
        usable = [kind for kind in self._kinds.stores if kind.below in (None, above.tag)]
        kind = dice.choices(usable, [entry.weight for entry in usable])[0]
        if kind.below is not None:
            self._private.add(name)
        self._nodes[name] = Node(name, kind.tag, settings=kind.draw(dice))
        return name


# -- as TOML --


def _table(node: Node) -> str:
    lines = [f"[blobservices.{node.name}]", f'type = "{node.tag}"']
    if node.roles == ("services",):
        listed = (_entry(name, entry) for name, entry in zip(node.members, node.entries, strict=True))
        lines.append(f"services = [{', '.join(listed)}]")
    else:
        lines += [f'{role} = "&{member}"' for role, member in zip(node.roles, node.members, strict=True)]
    lines += [f"{key} = {_value(value)}" for key, value in node.settings.items()]
    return "\n".join(lines) + "\n"


def _entry(name: str, settings: Settings) -> str:
    if not settings:
        return f'"&{name}"'
    fields = "".join(f", {key} = {_value(value)}" for key, value in settings.items())
    return f'{{ ref = "&{name}"{fields} }}'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
