"""Keeping the collector of garbage and the writers of a folder apart, across processes.

Three things could lose a chunk to a sweep. A writer finds an old chunk there and does not write it again,
just as the sweep removes it; or it replaces an old one, and the sweep removes the new one: a lock lets one of
them come first. And a writer takes longer than what the sweep calls old: it keeps a *lease*, a locked file,
and no sweep touches what is younger than that. The lock of a dead process is gone, and so is its lease.

Some file systems lock no files. There nothing can be swept, and so nothing needs to be kept from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from castore.threads.process_locks import oldest_lease

_LOCK: Final = "castore.lock"
_LEASES: Final = "leases"

_NO_LOCKS: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Leases:
    """The lock and the leases of the folder *root*."""

    def __init__(self, root: str) -> None:
        self._root = root

    def against_sweeps(self) -> AbstractContextManager[None]:
        """Let no sweep decide about a file meanwhile."""
        return self._locked(fcntl.LOCK_SH, needed=False)

    def for_sweeping(self) -> AbstractContextManager[None]:
        """Let nobody claim or replace a file meanwhile; raises `OSError` where files cannot be locked."""
        return self._locked(fcntl.LOCK_EX, needed=True)

    def for_moving(self) -> AbstractContextManager[None]:
        """Let nobody claim or replace a file meanwhile, where files can be locked."""
        return self._locked(fcntl.LOCK_EX, needed=False)

    @contextlib.contextmanager
    def _locked(self, mode: int, *, needed: bool) -> Iterator[None]:
        # Opened anew each time: threads that share an open file would share the lock, too.
        descriptor = os.open(f"{self._root}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, mode, needed=needed)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def lease(self, reporting: Callable[[str], AbstractContextManager[None]]) -> Iterator[None]:
        """Keep a lease; *reporting* is the context for what goes wrong with the file of the given path."""
        with reporting(f"{self._root}/{_LEASES}"):
            descriptor, path = self._new_lease()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(descriptor)

    def _new_lease(self) -> tuple[int, str]:
        while True:
            path = f"{self._root}/{_LEASES}/{uuid.uuid4()}"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                continue
            _lock(descriptor, fcntl.LOCK_EX, needed=False)
            # A sweep may have come between the two, and taken it for one whose holder has died.
            if os.path.exists(path):
                return descriptor, path
            os.close(descriptor)

    def leased_since(self) -> float | None:
        """Return the time of the oldest lease, `None` if there is none; remove those of the dead."""
        return oldest_lease(Path(self._root, _LEASES))


def _lock(descriptor: int, mode: int, *, needed: bool) -> None:
    try:
        fcntl.flock(descriptor, mode)
    except OSError as error:
        if needed or error.errno not in _NO_LOCKS:
            raise
