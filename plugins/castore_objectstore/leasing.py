"""Keeping the collector of garbage and the writers of a folder apart, across processes.

Three things could lose a chunk to a sweep. A writer finds an old chunk there and does not write it again,
just as the sweep removes it; or it replaces an old one, and the sweep removes the new one: a lock lets one of
them come first. And a writer takes longer than what the sweep calls old: it keeps a *lease*, a locked file,
and no sweep touches what is younger than that. The lock of a dead process is gone, and so is its lease.

Some file systems lock no files. There nothing can be swept, and so nothing needs to be kept from it.
"""

from __future__ import annotations

import fcntl
from contextlib import AbstractContextManager
from typing import Final

from castore.threads.process_locks import FolderOfLeases, lock, open_to_lock

_LOCK: Final = "castore.lock"

LEASES: Final = "leases"
"""The folder of leases."""


class Leases(FolderOfLeases):
    """The lock and the leases of the folder *root*."""

    def __init__(self, root: str) -> None:
        super().__init__(f"{root}/{LEASES}")
        self._root = root

    def against_sweeps(self, *, create: bool = True) -> AbstractContextManager[object]:
        """Let no sweep decide about a file meanwhile.

        Without *create* nothing is written; raises `FileNotFoundError` if nobody ever swept, or claimed.
        """
        return self._locked(fcntl.LOCK_SH, needed=False, create=create)

    def for_sweeping(self) -> AbstractContextManager[object]:
        """Let nobody claim or replace a file meanwhile; raises `OSError` where files cannot be locked."""
        return self._locked(fcntl.LOCK_EX, needed=True)

    def for_moving(self) -> AbstractContextManager[object]:
        """Let nobody claim or replace a file meanwhile, where files can be locked."""
        return self._locked(fcntl.LOCK_EX, needed=False)

    def _locked(self, mode: int, *, needed: bool, create: bool = True) -> AbstractContextManager[object]:
        """Return the locked file itself, whose end as a context no interrupt can come in between of."""
        path = f"{self._root}/{_LOCK}"
        # Opened anew each time: threads that share an open file would share the lock, too.
        file = open_to_lock(path, create=create)
        try:
            lock(file.fileno(), mode, needed=needed)
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                error.filename = path
            raise
        return file
