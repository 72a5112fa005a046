"""Files that are written but not yet flushed, under temporary names.

If a file got its name before its data is on the disk, a power cut could leave the name of an object with
nothing behind it. So files wait here, readable for this process, until one flush has covered the data of them
all; then they get their names together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Final

from castore.threads import forks
from castore.threads.pool import start_thread
from castore_objectstore.files import remove_quietly
from castore_objectstore.flushing import Flusher

_MANY_FILES: Final = 512
_MANY_BYTES: Final = 64 << 20
"""How much waits before a flush begins beside those who write."""

_MOST_FILES: Final = 2048
_MOST_BYTES: Final = 256 << 20
"""How much may wait: a blob of any size must not fill the memory with names, nor the cache of the disk."""


class Staging:
    """The files of one store that wait for a flush, by the paths that they are to have."""

    def __init__(self, flusher: Flusher, rename: Callable[[str, str], object] = os.replace) -> None:
        self._flusher = flusher
        self._rename = rename
        self._publishing = forks.new_lock()
        self._lock = forks.new_lock()
        self.published = 0
        """How often files have got their names. If it has changed, one that was not there then may be now."""
        self.begin_anew()
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Have nothing that waits, in a child of a fork: what the parent has written it names itself."""
        self._staged: dict[str, str] = {}
        self._leaving: dict[str, str] = {}
        """Those being published; what is added meanwhile waits for the next time, the same or not."""
        self._bytes = 0
        self._beside = False
        """Whether a thread has been started to publish."""
        self._lost: set[str] = set()

    def add(self, path: str, temporary: str, size: int) -> None:
        """Let *temporary* wait to become *path*. Much is published meanwhile, too much is published now."""
        with self._lock:
            self._lost.discard(path)
            known = self._staged.setdefault(path, temporary)
            self._bytes += size
            full = len(self._staged) >= _MOST_FILES or self._bytes >= _MOST_BYTES
            much = len(self._staged) >= _MANY_FILES or self._bytes >= _MANY_BYTES
            begins = much and not full and not self._beside
            self._beside |= begins
        if known != temporary:
            # Another thread was faster with the same object, or left it here long ago. One whose time cannot
            # be set is not old yet either, unless a writer has left it here for longer than any grace time.
            with contextlib.suppress(OSError):
                os.utime(known)
            remove_quietly(temporary)
        if full:
            self.publish()
        # Not by one of those who compress: it would only wait for the disk.
        elif begins and not start_thread(self._publish_beside, "castore-flush"):
            self._publish_beside()

    def _publish_beside(self) -> None:
        try:
            # Whoever needs what a failure has lost is told so, see `first_lost`.
            with contextlib.suppress(OSError):
                self.publish()
        finally:
            with self._lock:
                self._beside = False

    def find(self, path: str) -> str | None:
        """Return where the object that is to be at *path* waits, `None` if none does."""
        return self._staged.get(path) or self._leaving.get(path)

    def publish(self) -> None:
        """Flush what waits and give it its names. If that fails it is lost, and `OSError` is raised.

        After an interrupt what has no name yet waits on.
        """
        with self._publishing:
            with self._lock:
                # With what one has left who was interrupted. In this order, so that `find` misses none.
                batch = self._leaving = {**self._leaving, **self._staged}
                self._staged = {}
                self._bytes = 0
            if not batch:
                return
            try:
                self._flusher.flush()
                for path in list(batch):
                    self._give_name(batch, path)
            except OSError:
                self._forget(batch)
                raise
            self._forget(batch)

    def _give_name(self, batch: dict[str, str], path: str) -> None:
        try:
            self._rename(batch[path], path)
        except FileNotFoundError:
            # One that a writer has left here long ago may have been swept; who needs it will be told. Or it
            # has its name already: it was then that its publishing was interrupted.
            if not os.path.exists(path):
                return
        self.published += 1  # First: `find` misses it from the next line on.
        del batch[path]

    def _forget(self, lost: dict[str, str]) -> None:
        with self._lock:
            self.published += 1  # First, as above.
            self._leaving = {}
            # Writers that share them with the one whose flush has failed must not think that they are there.
            self._lost.update(path for path in lost if path not in self._staged)
            left = [temporary for path, temporary in lost.items() if self._staged.get(path) != temporary]
        for temporary in left:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def found(self, path: str) -> None:
        """Take note that the object at *path* is there as a whole, whatever was lost before."""
        if path in self._lost:
            with self._lock:
                self._lost.discard(path)

    def first_lost(self, paths: Iterable[str]) -> str | None:
        """Return the first of *paths* that waited here and was lost in a failure, `None` if none was."""
        return next((path for path in paths if path in self._lost), None) if self._lost else None
