"""Looks at the folder of a store, which tell what is absent from what was not found for want of a folder."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final, Protocol

import attrs

from castore.places import KeptFolder, PlaceError, dangling


@attrs.frozen
class StoreLayout:
    """How a store lays its objects out, told by the folders at its top.

    Attributes:
        name: The type of such a store.
        folders: One of them is there once anything is.
        others: A folder of another layout, and the type of store that has it.
    """

    name: str
    folders: tuple[str, ...]
    others: tuple[str, str]


OBJECTS: Final = StoreLayout("objectstore", ("blobs", "chunks"), ("packs", "packed"))
PACKS: Final = StoreLayout("packed", ("packs",), ("chunks", "objectstore"))


class Looks(Protocol):
    """Tells the absence of a folder from that of what would be in it."""

    def require(self, key: str) -> None:
        """Raise `OSError` if an object was not found for want of the folder in which it would be."""

    def make(self) -> None:
        """Make the folder of the store, if it is yet to be made; raise `OSError` if it is not what it was."""


class LooksEachTime:
    """Looks when it is asked.

    A folder at the top of the store may be a link, to a disk that is not mounted.
    """

    def __init__(self, place: KeptFolder, layout: StoreLayout = OBJECTS) -> None:
        self._place = place
        self._layout: StoreLayout | None = layout
        """What is yet to be looked for: that it is no store of another layout."""
        self._is_folder: set[str] = set()
        """Those at the top that are known to be there, and no links."""

    def require(self, key: str) -> None:
        """Look at the folder of the store, and at the one at its top."""
        kind = key.partition("/")[0]
        if not self._place.require():
            return
        self._require_layout()
        if kind in self._is_folder:
            return
        folder = f"{self._place.folder}/{kind}"
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            self._is_folder.add(kind)
        elif not os.access(folder, os.F_OK):
            raise dangling(folder)

    def make(self) -> None:
        """Look at the folder, and make it if need be."""
        self._place.make()
        self._require_layout()

    def _require_layout(self) -> None:
        """Raise `OSError` if the folder has a store of another layout; that is looked for once."""
        layout = self._layout
        if layout is None:
            return
        folder, tag = layout.others
        if Path(self._place.folder, folder).is_dir():
            reason = f"A store of type `{tag}` is in this folder; open it as one, or take another folder"
            raise PlaceError(errno.EEXIST, reason, self._place.folder)
        self._layout = None


class LooksOfBatch:
    """Looks once for many objects: before the first is written, and when all have been asked for."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._not_found: set[str] = set()
        self._writes = False

    def require(self, key: str) -> None:
        """Note where something was not found."""
        self._not_found.add(key.partition("/")[0])

    def make(self) -> None:
        """Make the folder for the first object."""
        if not self._writes:
            self._looks.make()
            self._writes = True

    def finish(self) -> None:
        """Raise `OSError` if the folder was not there, or was another one in the end."""
        for kind in self._not_found:
            self._looks.require(kind)
        if self._writes:
            self._looks.make()
