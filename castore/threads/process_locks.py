"""One of all processes at a time, for each digest, by locked files in a folder.

A lock ends with the process that has it, however that dies. Its file is removed with the lock; what a killed
process leaves is an empty file, which the next one that locks the same digest removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from castore.digest import B3Digest

_MOST: Final = 256
"""So many files are open for one call: a process may often have no more than 1,024."""

_NO_LOCKS: Final = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def oldest_lease(folder: Path, prefix: str = "") -> float | None:
    """Return the time of the oldest file in *folder* that somebody has locked, `None` if there is none.

    Of the files whose names begin with *prefix*; those that nobody has locked any more are removed. Raises
    `OSError`.
    """
    times = []
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(prefix)]
    except FileNotFoundError:
        return None
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            taken = _time_if_locked(path)
            if taken is not None:
                times.append(taken)
    return min(times, default=None)


def _time_if_locked(path: Path) -> float | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(descriptor).st_mtime
    else:
        path.unlink()
        return None
    finally:
        os.close(descriptor)


class FolderOfLocks:
    """Files named by digests, in a folder that is made with the first one.

    Where a file system locks no files everybody is alone.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    @contextlib.contextmanager
    def try_alone(self, digest: B3Digest) -> Iterator[bool]:
        """Lock the file of *digest*, unless somebody has; the value is whether that succeeded.

        Raises `OSError` if there can be no file.
        """
        path = self._folder / digest.hex()
        descriptor = self._open(path)
        locked = False
        try:
            locked = _lock(descriptor, path)
            yield locked
        finally:
            if locked:
                # Before the lock ends: else somebody could lock the file just before it loses its name.
                with contextlib.suppress(OSError):
                    path.unlink()
                # Not only closed: a process that was forked meanwhile has it open, too.
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextlib.contextmanager
    def try_each(self, digests: Iterable[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        """Lock the files of *digests*, unless somebody has; the value has those of which that succeeded.

        Of very many the last are not locked, and count as if they were. Raises `OSError` as `try_alone`.
        """
        remaining = iter(digests)
        with contextlib.ExitStack() as stack:
            alone = {
                digest for digest in islice(remaining, _MOST) if stack.enter_context(self.try_alone(digest))
            }
            yield frozenset(alone.union(remaining))

    def _open(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags, 0o666)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return True
    # Since it was opened, who had the lock may have removed the file, and somebody else made another.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
