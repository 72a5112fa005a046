"""What a mount says of a node: its status, as stat(2) has it, and its extended attributes.

A tree knows no times and no owners: everything is of the second after the beginning of 1970, as in the
reference's mounts, and belongs to whoever has mounted it. Metadata, if some are given, say otherwise.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Final

from castore.access.mount.trees import FolderOfNames, as_bytes, as_text
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath
from castore.trees.metadata import EntryMetadata

ROOT_INODE: Final = 1
_TIME: Final = 1_000_000_000
"""In nanoseconds."""
_BLOCK: Final = 512
_FOLDER_SIZE: Final = 4096

DIGEST: Final = "user.castore.digest"
BLOB_DIGEST: Final = "user.snix.castore.blob.digest"
DIRECTORY_DIGEST: Final = "user.snix.castore.directory.digest"
"""The last two are those of the reference's mounts, which write a digest as `blake3-...`."""

Shown = Node | FolderOfNames


class Attributes:
    """Says what nodes are like.

    Arguments:
        metadata: What is known of entries beside the tree.
        aspects: What of that counts: some of `castore.trees.preserving.ASPECTS`.
        below: Of which part of the tree the mount is.
    """

    def __init__(
        self,
        metadata: Iterable[EntryMetadata] = (),
        aspects: frozenset[str] = frozenset(),
        below: TreePath | None = None,
    ) -> None:
        self._aspects = aspects
        depth = len(below or ())
        self._known = {
            as_text(bytes(TreePath(each.path[depth:]))): each
            for each in metadata
            if each.path[:depth] == (below or ())
        }
        self._common = {
            "st_nlink": 1,
            "st_uid": os.getuid(),
            "st_gid": os.getgid(),
            "st_atime": _TIME,
            "st_mtime": _TIME,
            "st_ctime": _TIME,
            "st_blksize": 1 << 17,
        }

    def status(self, node: Shown, path: str) -> dict[str, int]:
        """Return the status of a node; times are in nanoseconds."""
        found = {**self._common, "st_ino": inode(node, path) if path else ROOT_INODE, "st_mode": mode(node)}
        if type(node) is FileNode:
            # Kept as a signed number.
            found["st_size"] = size = min(node.size, (1 << 63) - 1)
            found["st_blocks"] = -(-size // _BLOCK)
        elif type(node) is SymlinkNode:
            found["st_size"] = len(node.target)
        else:
            found["st_nlink"] = 2
            found["st_size"] = _FOLDER_SIZE
        if self._known and (entry := self._known.get(path)) is not None:
            self._apply(entry, found)
        return found

    def _apply(self, entry: EntryMetadata, found: dict[str, int]) -> None:
        if "mode" in self._aspects and entry.mode is not None and entry.type != "link":
            found["st_mode"] = stat.S_IFMT(found["st_mode"]) | entry.mode
        if "times" in self._aspects and entry.time is not None:
            found["st_mtime"] = found["st_ctime"] = found["st_atime"] = entry.time
        if "owner" in self._aspects:
            if entry.uid is not None:
                found["st_uid"] = entry.uid
            if entry.gid is not None:
                found["st_gid"] = entry.gid

    def xattrs(self, node: Shown, path: str) -> Mapping[str, bytes]:
        """Return the extended attributes of a node."""
        found: dict[str, bytes] = {}
        if self._known and "xattrs" in self._aspects and (entry := self._known.get(path)) is not None:
            found = {as_text(name): value for name, value in entry.xattrs.items()}
        if isinstance(node, FileNode | DirectoryNode):
            found[DIGEST] = str(node.digest).encode()
            other = BLOB_DIGEST if isinstance(node, FileNode) else DIRECTORY_DIGEST
            found[other] = node.digest.sri.encode()
        return found


def mode(node: Shown) -> int:
    """Return the type of a node, and who may do what with it."""
    if type(node) is FileNode:
        return stat.S_IFREG | (0o555 if node.executable else 0o444)
    return stat.S_IFLNK | 0o777 if type(node) is SymlinkNode else stat.S_IFDIR | 0o555


def inode(node: Shown, path: str) -> int:
    """Return a number for a node at a path, which is the same in every mount of every machine.

    Equal files have one in common, unless only one of them may be executed. Folders have one for each path:
    `cp` refuses to copy a folder whose number it has met before.
    """
    if type(node) is FileNode:
        number = int.from_bytes(node.digest[:8], "little") ^ (node.executable << 63)
    elif type(node) is SymlinkNode:
        number = _folded(b"link", node.target)
    else:
        own = node.digest if isinstance(node, DirectoryNode) else b""
        number = _folded(b"folder", bytes(own) + as_bytes(path))
    # 0 is no number of a file, and 1 the root's.
    return number if number > ROOT_INODE else number + 2


def _folded(kind: bytes, data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=kind).digest(), "little")
