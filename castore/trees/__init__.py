"""Whole folders: in under one digest, and back; looked into without that a blob is read.

What programs use of it can be imported from here; it is loaded when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from castore.trees.comparing import diff, with_renames
    from castore.trees.exporting import export_tree
    from castore.trees.exports import ExportOptions
    from castore.trees.hashing import hash_tree
    from castore.trees.importing import import_tree
    from castore.trees.measuring import measure
    from castore.trees.merging import filter_tree, merge
    from castore.trees.naming import TreePlace, find_node, open_path
    from castore.trees.packing import pack_tree
    from castore.trees.unpacking import UnpackOptions, unpack_tree
    from castore.trees.walking import resolve, walk

__all__ = [
    "ExportOptions",
    "TreePlace",
    "UnpackOptions",
    "diff",
    "export_tree",
    "filter_tree",
    "find_node",
    "hash_tree",
    "import_tree",
    "measure",
    "merge",
    "open_path",
    "pack_tree",
    "resolve",
    "unpack_tree",
    "walk",
    "with_renames",
]

_HOMES: Final = {
    "ExportOptions": "exports",
    "TreePlace": "naming",
    "UnpackOptions": "unpacking",
    "diff": "comparing",
    "export_tree": "exporting",
    "filter_tree": "merging",
    "find_node": "naming",
    "hash_tree": "hashing",
    "import_tree": "importing",
    "measure": "measuring",
    "merge": "merging",
    "open_path": "naming",
    "pack_tree": "packing",
    "resolve": "walking",
    "unpack_tree": "unpacking",
    "walk": "walking",
    "with_renames": "comparing",
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
