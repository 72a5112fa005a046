"""Whole folders: in under one digest, and back; looked into without that a blob is read.

What programs use of it can be imported from here; it is loaded when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from castore.trees.comparing import diff
    from castore.trees.exporting import export_tree
    from castore.trees.importing import import_tree
    from castore.trees.naming import TreePlace, find_node, open_path
    from castore.trees.walking import walk

__all__ = ["TreePlace", "diff", "export_tree", "find_node", "import_tree", "open_path", "walk"]

_HOMES: Final = {
    "TreePlace": "naming",
    "diff": "comparing",
    "export_tree": "exporting",
    "find_node": "naming",
    "import_tree": "importing",
    "open_path": "naming",
    "walk": "walking",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"module `castore.trees` has no attribute `{name}`", name=name, obj=sys.modules[__name__]
        )
    value = getattr(import_module(f"castore.trees.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
