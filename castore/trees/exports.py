"""What an export of a tree is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from castore.errors import CastoreError
from castore.format.nodes import TreePath
from castore.trees.folding import Prober, probe
from castore.trees.known_files import KnownFiles
from castore.trees.placing import Placing
from castore.trees.preserving import Preserving
from castore.trees.selecting import ALL, Selection


@attrs.frozen
class LostFile:
    """Something of a tree that could not be had, or that something else is in the way of.

    Attributes:
        path: Where it is in the tree.
        error: Why: its blob is absent, or corrupt; or `TargetError`.
    """

    path: TreePath
    error: CastoreError


@attrs.frozen
class Exported:
    """What came of an export.

    Attributes:
        lost: What could not be had or written. Unless that was to be passed over, a new folder is not there.
        written: How many files were written.
        directories: How many folders were made.
        links: How many symbolic links were made.
        kept: How many files and links were right already.
        deleted: How many things were removed that the tree does not have.
        size: How many bytes were written.
        renamed: What the tree calls otherwise: the path in the tree, by that in the folder.
        notes: What else is not as somebody might expect, in words.
    """

    lost: tuple[LostFile, ...] = ()
    written: int = 0
    directories: int = 0
    links: int = 0
    kept: int = 0
    deleted: int = 0
    size: int = 0
    renamed: Mapping[bytes, bytes] = attrs.field(factory=dict)
    notes: tuple[str, ...] = ()


@attrs.frozen
class ExportOptions:
    """How a tree is brought to a folder.

    Attributes:
        update: Whether the folder may be there, and is brought up to date.
        delete: Whether what the tree does not have is removed from it; only with *update*.
        dry_run: Whether nothing is changed, and only told what would be.
        selection: What of the tree is taken; the rest is neither written nor removed.
        rename_collisions: Whether of several names that are one in the folder all but the first get a `~2`.
        skip_unreadable: Whether files whose blobs are absent or corrupt are left out.
        placing: How files are written.
        preserving: What entries are given that the tree does not have; not for several roots.
        protected: Folders that must not be in one from which something is removed, with the reason.
        known_files: What is known of files that were exported with the same blobs before: those that are as
            they were are not read to find out whether they are right.
        prober: What finds out which names are one in a folder.
    """

    update: bool = False
    delete: bool = False
    dry_run: bool = False
    selection: Selection = ALL
    rename_collisions: bool = False
    skip_unreadable: bool = False
    placing: Placing = attrs.field(factory=Placing)
    preserving: Preserving | None = None
    protected: Mapping[str, str] = attrs.field(factory=dict)
    known_files: KnownFiles | None = None
    prober: Prober = probe
