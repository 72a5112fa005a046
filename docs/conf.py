"""Configuration of Sphinx."""

from __future__ import annotations

import importlib.metadata
import re
from importlib import import_module
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes

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
html_static_path = ["_static"]
html_css_files = ["castore.css"]
html_show_copyright = False

SEARCHED = {
    "how-to/delete-blobs": ("delete", "remove", "rm", "purge", "prune"),
    "how-to/collect-garbage": ("garbage", "gc"),
    "how-to/troubleshooting": ("error", "message", "problem", "help"),
    "how-to/share-a-store": ("permission", "group", "users", "umask"),
    "how-to/share-with-snix": ("snix", "tvix", "grpc", "serve"),
    "how-to/run-under-systemd": ("systemd", "service", "socket", "daemon", "unit"),
    "how-to/use-a-bucket": ("bucket", "s3", "azure", "sftp", "cloud"),
    "how-to/keep-secrets": ("password", "secret", "credentials", "token"),
    "how-to/coming-from": ("restic", "borg", "dvc", "fsspec", "nix", "sccache", "backup", "mount"),
    "how-to/recipes": ("example", "recipe"),
    "questions": (
        "encrypt",
        "encryption",
        "restore",
        "size",
        "upgrade",
        "tuning",
        "slow",
        "windows",
        "macos",
    ),
    "reference/places": ("files", "lock", "lease", "quarantine", "journal"),
    "tutorial/keep-a-folder": ("folder", "snapshot"),
    "how-to/look-into-a-tree": ("tree", "find", "diff"),
    "tutorial/first-stack": ("begin", "install", "start"),
}
"""Words that people search for, by the page that should come first: else the names of methods do."""

autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
# `type` in an annotation is the builtin; Sphinx looks for an attribute of that name, and finds several.
suppress_warnings = ["ref.python"]


def note_searched(app: Sphinx, doctree: nodes.document) -> None:
    """Let the search find a page by the words above, before all others."""
    entries = [("single", word, "", "main", None) for word in SEARCHED.get(app.env.docname, ())]
    if entries:
        doctree.insert(0, addnodes.index(entries=entries, inline=False))
        app.env.domains["index"].process_doc(app.env, app.env.docname, doctree)


def link_names(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link the names in the tables of the API page to their signatures below."""
    if page != "reference/api":
        return
    objects = app.env.domains["py"].objects  # type: ignore[attr-defined]
    for row in doctree.findall(nodes.row):
        for literal in list(row.children[0].findall(nodes.literal)):
            match = re.match(r"castore(\.\w+)+", literal.astext())
            target = objects.get(_home(match[0])) if match else None
            if target is not None and target.docname == page:
                literal.replace_self(nodes.reference("", "", literal.deepcopy(), refid=target.node_id))


def _home(name: str) -> str:
    """Return the name of the same thing in the module that defines it."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found = import_module(".".join(parts[:count]))
            for part in parts[count:]:
                found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    return name


def setup(app: Sphinx) -> None:
    """Keep napoleon away from attributes: what stands before a colon there is no type, but a sentence."""
    docstrings: dict[str, list[str]] = {}

    def keep(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
        if what in {"attribute", "data", "property"}:
            docstrings[name] = list(lines)

    def restore(_: Sphinx, __: str, name: str, ___: object, ____: object, lines: list[str]) -> None:
        lines[:] = docstrings.pop(name, lines)

    app.connect("doctree-read", note_searched)
    app.connect("doctree-resolved", link_names)
    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
