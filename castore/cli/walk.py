"""From the paths on a command line to the files that they mean."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from castore.cli.own_places import OwnPlaces

STDIN: Final = "-"

_SPECIAL: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@attrs.frozen
class Walked:
    """Something on the way: a file to store, or what is none and why."""

    path: str
    regular: bool = True
    """Whether it is a regular file, or may be one, so that it has a size before it is read."""
    skipped: str | None = None
    """What it is instead of a file."""
    error: OSError | None = None
    """Why a folder cannot be listed."""

    @property
    def is_file(self) -> bool:
        """Whether it is something to store."""
        return self.skipped is None and self.error is None

    def size(self) -> int | None:
        """Look how many bytes it has; `None` if that is not known beforehand."""
        if not self.regular:
            return None
        try:
            return os.stat(self.path).st_size  # noqa: PTH116 - a Path would change how the user wrote it
        except (OSError, ValueError):
            return 0  # Whoever opens it will say what is wrong.


def find_files(paths: Iterable[str], own: OwnPlaces | None = None) -> Iterator[Walked]:
    """Yield what *paths* mean: folders with all that is in them, sorted; others as they are.

    A link that is named itself is followed, links inside of folders are not. Of *own* places nothing is
    yielded but that they are left out.
    """
    for path in paths:
        if path == STDIN:
            yield Walked(path, regular=False)
            continue
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - a Path would change it
        except (OSError, ValueError):
            yield Walked(path)
            continue
        if own is not None and (reason := _reason_against(own, path, mode)):
            yield Walked(path, skipped=reason)
        elif stat.S_ISDIR(mode):
            yield from _walk(path, own)
        else:
            yield Walked(path, regular=stat.S_ISREG(mode))


def _reason_against(own: OwnPlaces, path: str, mode: int) -> str | None:
    return own.reason_against_all_in(path) if stat.S_ISDIR(mode) else own.reason_against(path)


def _walk(folder: str, own: OwnPlaces | None) -> Iterator[Walked]:
    # A stack, not recursion: folders may be nested deeper than calls.
    stack: list[Iterator[os.DirEntry[str] | Walked]] = [_entries(folder)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Walked):
            yield entry
        elif own is not None and (reason := own.reason_against(entry.path)):
            yield Walked(entry.path, skipped=reason)
        elif entry.is_dir(follow_symlinks=False):
            stack.append(_entries(entry.path))
        else:
            yield _found(entry)


def _entries(folder: str) -> Iterator[os.DirEntry[str] | Walked]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=_sort_key)
    except OSError as error:
        return iter([Walked(folder, error=error)])
    return iter(found)


def _sort_key(entry: os.DirEntry[str]) -> bytes:
    # With the slash, all paths below a folder come in the order of their bytes.
    return os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")


def _found(entry: os.DirEntry[str]) -> Walked:
    try:
        if entry.is_file(follow_symlinks=False):
            return Walked(entry.path)  # The folder has said so: nothing else needs to be looked at.
        kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return Walked(entry.path)
    return Walked(entry.path, skipped=_SPECIAL.get(kind))
