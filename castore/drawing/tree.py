"""A composition as a tree of text, for a terminal."""

from __future__ import annotations

from castore.drawing.picture import Arrow, Node, Picture
from castore.drawing.words import UNREACHED, shown


def tree(picture: Picture) -> str:
    """Return *picture* as lines of text: an instance in full once, later only as `(see above)`.

    A line says `field → name  type  detail  [state: note]`, without the name if the instance is anonymous.
    The kind follows the type, in parentheses, where it differs from the line above and the picture has
    several.
    """
    writer = _Writer(picture)
    for root in picture.roots:
        writer.write(root)
    loose = picture.entries()[len(picture.roots) :]
    if loose:
        if writer.lines:
            writer.lines.append("")
        writer.lines.append(f"{UNREACHED}:")
        for id_ in loose:
            writer.write(id_)
    return "\n".join(writer.lines or ["no instances"]) + "\n"


class _Writer:
    """The lines so far, and what they have shown already."""

    def __init__(self, picture: Picture) -> None:
        self.lines: list[str] = []
        self._nodes = picture.by_id()
        self._edges = picture.edges_from()
        self._several_kinds = picture.has_several_kinds()
        self._done: set[str] = set()

    def write(self, id_: str) -> None:
        """Add the lines of one instance and all below it."""
        # A list of what is still to come, not recursion: a chain may be longer than Python's stack.
        rest = [("", "", Arrow(source="", target=id_, label=""))]
        while rest:
            lead, branch, edge = rest.pop()
            field = f"{shown(edge.label)} → " if edge.label else ""
            self.lines.append(lead + branch + field + self._words(edge))
            if edge.target in self._done:
                continue
            self._done.add(edge.target)
            below = lead + {"": "", "├── ": "│   ", "└── ": "    "}[branch]
            edges = self._edges[edge.target]
            branches = ["├── "] * (len(edges) - 1) + ["└── "] * bool(edges)
            rest += reversed([(below, branch, edge) for branch, edge in zip(branches, edges, strict=True)])

    def _words(self, edge: Arrow) -> str:
        node = self._nodes[edge.target]
        if node.id in self._done:
            return f"{shown(node.headline)}  (see above)"
        type_ = node.type + (f" ({node.kind})" if self._names_kind(edge, node) else "")
        state = f"[{node.condition}]" if node.state else ""
        return "  ".join(shown(word) for word in (node.name, type_, node.detail, state) if word)

    def _names_kind(self, edge: Arrow, node: Node) -> bool:
        if not edge.source:
            return self._several_kinds
        return self._nodes[edge.source].kind != node.kind
