"""A composition as a Mermaid flowchart, which GitHub and many others draw inside Markdown."""

from __future__ import annotations

import json

from castore.drawing.picture import Arrow, Node, Picture
from castore.drawing.words import shown


def mermaid(picture: Picture) -> str:
    """Return *picture* as the text of a Mermaid flowchart, left to right."""
    ids = {node.id: f"n{number}" for number, node in enumerate(picture.nodes)}
    nodes = [f'{ids[node.id]}["{_label(picture, node)}"]' for node in picture.nodes]
    edges = [f"{ids[edge.source]} {_arrow(picture, edge)} {ids[edge.target]}" for edge in picture.edges]
    roots = [ids[root] for root in picture.roots]
    unreached = [ids[node.id] for node in picture.nodes if node.id in picture.unreachable]
    classes = [
        *_class("root", "stroke-width:3px", roots),
        *_class("unreached", "stroke-dasharray:4 4,opacity:0.6", unreached),
    ]
    body = [f"  {line}" for line in (*nodes, *edges, *classes)]
    return "\n".join([*_title(picture), "flowchart LR", *body]) + "\n"


def _title(picture: Picture) -> list[str]:
    if not picture.title:
        return []
    # A JSON string is a YAML string. A bare `#` could start what Mermaid takes for an entity.
    title = json.dumps(shown(picture.title)).replace("#", "\\u0023")
    return ["---", f"title: {title}", "---"]


def _label(picture: Picture, node: Node) -> str:
    name = f"<b>{_escaped(node.name)}</b>" if node.name else f"<i>{_escaped(node.type)}</i>"
    state = f"[{node.condition}]" if node.state else ""
    return "<br/>".join(
        [name, *(_escaped(line) for line in (picture.second_line(node), node.detail, state) if line)]
    )


def _arrow(picture: Picture, edge: Arrow) -> str:
    line = "-.->" if edge.source in picture.unreachable else "-->"
    return f'{line}|"{_escaped(edge.label)}"|' if edge.label else line


def _class(name: str, style: str, ids: list[str]) -> list[str]:
    return [f"classDef {name} {style}", f"class {','.join(ids)} {name}"] if ids else []


def _escaped(text: str) -> str:
    return "".join(map(_character, shown(text)))


def _character(char: str) -> str:
    # Labels are read as Markdown: a bare URL, a leading "1." or a pair of underscores would come out as
    # "Unsupported markdown" or as emphasis. Entities are resolved after that, so all punctuation is one.
    if not char.isascii() or char.isalnum() or char in " -/":
        return char
    # Then a backslash and an `n` would become a line break; a space without width keeps them apart.
    return "#92;#8203;" if char == "\\" else f"#{ord(char)};"
