"""Configuration of Sphinx."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "castore"
author = "the castore authors"
version = release = importlib.metadata.version("castore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "castore"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
# `type` in an annotation is the builtin; Sphinx looks for an attribute of that name, and finds several.
suppress_warnings = ["ref.python"]


def setup(app: Sphinx) -> None:
    """Keep napoleon away from attributes: what stands before a colon there is no type, but a sentence."""
    docstrings: dict[str, list[str]] = {}

    def keep(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
        if what in {"attribute", "data", "property"}:
            docstrings[name] = list(lines)

    def restore(_: Sphinx, __: str, name: str, ___: object, ____: object, lines: list[str]) -> None:
        lines[:] = docstrings.pop(name, lines)

    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
