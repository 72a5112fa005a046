"""A composition in the language of Graphviz."""

from __future__ import annotations

from html import escape

from castore.drawing.picture import Arrow, Node, Picture
from castore.drawing.words import shown


def dot(picture: Picture) -> str:
    """Return *picture* as a directed graph for Graphviz, left to right."""
    ids = {node.id: f"n{number}" for number, node in enumerate(picture.nodes)}
    head = [
        *([f"label=<{_escaped(picture.title)}>;", "labelloc=t;"] if picture.title else []),
        "rankdir=LR;",
        'graph [fontname="Helvetica,Arial,sans-serif"];',
        'node [shape=box, style=rounded, fontname="Helvetica,Arial,sans-serif"];',
        'edge [fontname="Helvetica,Arial,sans-serif", fontsize=10];',
    ]
    nodes = [f"{ids[node.id]} [{_label(picture, node)}{_look(picture, node)}];" for node in picture.nodes]
    edges = [f"{ids[edge.source]} -> {ids[edge.target]}{_line(picture, edge)};" for edge in picture.edges]
    body = [f"  {line}" for line in (*head, *nodes, *edges)]
    return "\n".join(["digraph {", *body, "}"]) + "\n"


def _label(picture: Picture, node: Node) -> str:
    name = f"<b>{_escaped(node.name)}</b>" if node.name else f"<i>{_escaped(node.type)}</i>"
    state = f"[{node.condition}]" if node.state else ""
    lines = (picture.second_line(node), node.detail, state)
    rows = [name, *(f'<font point-size="10">{_escaped(line)}</font>' for line in lines if line)]
    return f"label=<{'<br/>'.join(rows)}>"


def _look(picture: Picture, node: Node) -> str:
    if node.id in picture.roots:
        return ", penwidth=2"
    if node.id in picture.unreachable:
        return ', style="rounded,dashed", color=gray50, fontcolor=gray50'
    return ""


def _line(picture: Picture, edge: Arrow) -> str:
    # Graphviz refuses an empty label in angle brackets.
    words = [f"label=<{_escaped(edge.label)}>"] if edge.label else []
    words += ["style=dashed, color=gray50, fontcolor=gray50"] if edge.source in picture.unreachable else []
    return f" [{', '.join(words)}]" if words else ""


def _escaped(text: str) -> str:
    return escape(shown(text), quote=False)
