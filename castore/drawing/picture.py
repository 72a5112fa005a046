"""What is drawn: the instances of a composition and the references between them, free of secrets."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter

import attrs


@attrs.frozen
class Node:
    """One instance.

    Attributes:
        id: Unique in its picture, such as `blobservices.root`, or `blobservices.root.far` if it is anonymous.
        name: What is shown, such as `root`; empty for an anonymous instance, made by a URL.
        kind: The kind of service in words, such as `blob service`.
        type: The type tag, such as `cache`.
        detail: One short line, such as `s3://bucket/prefix`, free of secrets; or empty.
        state: The live state, such as `healthy` or `unavailable`; usually empty.
        note: One line about the state, such as `to_heal 3, degraded` or an error, free of secrets; or empty.
        gauges: The numbers that the instance tells of itself, by name; usually none.
    """

    id: str
    name: str
    kind: str
    type: str
    detail: str = ""
    state: str = ""
    note: str = ""
    gauges: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def headline(self) -> str:
        """What the node is called: its name, or its type if it is anonymous."""
        return self.name or self.type

    @property
    def condition(self) -> str:
        """The state with what is to be said about it; empty if that is not known."""
        return f"{self.state}: {self.note}" if self.state and self.note else self.state


@attrs.frozen
class Arrow:
    """A reference: the instance `source` uses `target` as its `label`, a field name such as `services[0]`."""

    source: str
    target: str
    label: str


@attrs.frozen
class Picture:
    """A composition to be drawn: a graph without cycles, in which instances may share others.

    Attributes:
        title: Such as the name of the file; may be empty.
        nodes: In the order of the file.
        edges: In the order of the fields.
        roots: The ids of the entry points.
        unreachable: The ids that no root reaches.

    Raises:
        ValueError: An id is given twice or is unknown, or the graph has a cycle (`graphlib.CycleError`).
    """

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Arrow, ...]
    roots: tuple[str, ...]
    unreachable: frozenset[str]

    def __attrs_post_init__(self) -> None:
        known = self.by_id()
        if len(known) < len(self.nodes):
            raise ValueError("two nodes of a picture have one id")
        ends = [end for edge in self.edges for end in (edge.source, edge.target)]
        for id_ in [*ends, *self.roots, *sorted(self.unreachable)]:
            if id_ not in known:
                raise ValueError(f"a picture has no node {id_!r}")
        self.from_far_to_near()

    def by_id(self) -> dict[str, Node]:
        """Return the nodes by their ids, in the order of the file."""
        return {node.id: node for node in self.nodes}

    def edges_from(self) -> dict[str, list[Arrow]]:
        """Return for each id the edges that leave it, in the order of the fields."""
        edges: dict[str, list[Arrow]] = {node.id: [] for node in self.nodes}
        for edge in self.edges:
            edges[edge.source].append(edge)
        return edges

    def from_far_to_near(self) -> list[str]:
        """Return all ids, each after all that it uses."""
        uses = {source: [edge.target for edge in edges] for source, edges in self.edges_from().items()}
        return list(TopologicalSorter(uses).static_order())

    def entries(self) -> list[str]:
        """Return the ids at which reading starts: the roots, then all others that nobody uses."""
        known = {*self.roots, *(edge.target for edge in self.edges)}
        return [*self.roots, *(node.id for node in self.nodes if node.id not in known)]

    def second_line(self, node: Node) -> str:
        """Return what to show under the headline: the type, if that is not it, and the kind if it matters."""
        words = (node.type if node.name else "", node.kind if self.has_several_kinds() else "")
        return " · ".join(word for word in words if word)

    def has_several_kinds(self) -> bool:
        """Tell whether instances must be told apart by their kind, too."""
        return len({node.kind for node in self.nodes}) > 1
