"""The graph of a composition as a picture to draw, with no secrets in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from castore.composition.graph.graph import Graph
from castore.composition.probing import Probe
from castore.drawing import Arrow, Node, Picture
from castore.metrics.model import gauge_words
from castore.urls import masked


def picture_of(graph: Graph, title: str, probes: Iterable[Probe] = ()) -> Picture:
    """Return what to draw of *graph*: its instances, their references, and which of them `root` reaches.

    Those that were probed are drawn with what came of it.
    """
    found = {probe.instance.id: probe for probe in probes}
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
            **_state(found.get(entry.id)),
        )
        for entry in instances
    ]
    edges = [Arrow(entry.id, edge.target, edge.label) for entry in instances for edge in entry.edges]
    return Picture(
        title,
        tuple(nodes),
        tuple(edges),
        tuple(root.id for root in roots),
        frozenset(entry.id for entry in instances if entry.id not in reached),
    )


def _state(probe: Probe | None) -> dict[str, Any]:
    if probe is None:
        return {}
    words = gauge_words(probe.gauges)
    if not probe.ok:
        # The drawing says already whose error it is.
        words.append(" ".join(probe.result.removeprefix(f"`{probe.instance.name}` is unavailable: ").split()))
    return {"state": probe.state, "note": ", ".join(words), "gauges": probe.gauges}


def _detail(config: Any) -> str:
    """Return the one line that tells instances of a type apart: where it keeps things."""
    for field in attrs.fields(type(config)):
        value = getattr(config, field.name)
        if isinstance(value, str) and (field.name.endswith("url") or field.name == "path"):
            return masked(value)
    return ""
