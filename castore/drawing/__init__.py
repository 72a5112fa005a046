"""Drawings of a composition, for people and for programs. Knows nothing of services: only nodes and edges.

Every drawing is text that ends with a newline, depends on its `Picture` alone, and is safe whatever the
names in it are: nothing in a name can leave its place in the format or reach a terminal as a control code.
"""

from __future__ import annotations

from collections.abc import Callable

from castore.drawing.document import document
from castore.drawing.dot import dot
from castore.drawing.mermaid import mermaid
from castore.drawing.picture import Arrow, Node, Picture
from castore.drawing.svg import svg
from castore.drawing.tree import tree

FORMATS: dict[str, Callable[[Picture], str]] = {
    "tree": tree,
    "mermaid": mermaid,
    "dot": dot,
    "svg": svg,
    "json": document,
}

__all__ = ["FORMATS", "Arrow", "Node", "Picture"]
