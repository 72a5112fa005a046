"""The graph of a composition as a picture to draw, with no secrets in it."""

from __future__ import annotations

from typing import Any

import attrs

from castore.composition.graph import Graph
from castore.composition.urls import masked
from castore.drawing import Edge, Node, Picture


def picture_of(graph: Graph, title: str) -> Picture:
    """Return what to draw of *graph*: its instances, their references, and which of them `root` reaches."""
    instances = graph.instances.values()
    roots = [entry for entry in instances if not entry.anonymous and entry.name == "root"]
    reached = {entry.id for root in roots for entry in graph.reachable(root)}
    nodes = [
        Node(
            id=entry.id,
            name="" if entry.anonymous else entry.name,
            kind=entry.kind.label,
            type=entry.type.tag,
            detail=_detail(entry.config),
        )
        for entry in instances
    ]
    edges = [Edge(entry.id, edge.target, edge.label) for entry in instances for edge in entry.edges]
    return Picture(
        title,
        tuple(nodes),
        tuple(edges),
        tuple(root.id for root in roots),
        frozenset(entry.id for entry in instances if entry.id not in reached),
    )


def _detail(config: Any) -> str:
    """Return the one line that tells instances of a type apart: where it keeps things."""
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if isinstance(value, str) and (field.name.endswith("url") or field.name == "path"):
            return masked(value)
    return ""
