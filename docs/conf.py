"""Configuration of Sphinx."""

from __future__ import annotations

from importlib.metadata import version

project = "castore"
author = "the castore authors"
release = version("castore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "castore"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
