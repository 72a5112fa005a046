"""Locked files, by which processes tell each other what they are at, and which of them live.

A lock ends with the process that has it, however that dies, and is seen from other containers as well. The
file is removed with the lock; what a killed process leaves is an empty file.

Some file systems lock no files. There everybody is alone, and it cannot be known who has a lease.

A child of a fork has none of its parent's locks, and keeps none of them locked. Files are opened by
`open_to_lock` and entered by `with`, which no interrupt can come in between of: the lock goes with the block,
or with the object.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import attrs

from castore import owned
from castore.digest import B3Digest
from castore.places import LACKING
from castore.threads import forks

_MOST: Final = 256
"""So many files are open for one call: a process may often have no more than 1,024."""

NO_LOCKS: Final = LACKING | {errno.ENOLCK}
"""What `flock` fails with where a file system locks no files."""

_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.01
"""In seconds: how long until one looks again whether a file is free."""

WAIT_SECONDS: Final = 60.0
"""How long a lock is waited for: a process that was stopped must not stop all the others."""


class _LockedFile(io.FileIO):
    def __del__(self) -> None:
        self.close()  # Without the warning that this comes late: who was interrupted could not do it.


def open_to_lock(path: str, *, create: bool = True) -> io.FileIO:
    """Open a file that is to be locked, which is made if it is not there.

    A child of a fork does not keep it open. Raises `OSError`.
    """

    def open_it(name: str, _: int) -> int:
        return owned.open_lock(name, create=create)

    return forks.open_for_parent(lambda: _LockedFile(path, "r+", opener=open_it))


def lock(descriptor: int, mode: int, *, needed: bool = False, wait: float | None = None) -> None:
    """Lock an open file, shared (`fcntl.LOCK_SH`) or alone (`fcntl.LOCK_EX`).

    Arguments:
        descriptor: The file.
        mode: The kind of lock.
        needed: Raise where files cannot be locked, and not only where this one cannot.
        wait: For how many seconds to wait, `WAIT_SECONDS` by default.

    Raises `BlockingIOError` if it is not free within that time, and any other `OSError`; both name the call.
    """
    ends: float | None = None
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            seconds = WAIT_SECONDS if wait is None else wait
            now = time.monotonic()
            ends = now + seconds if ends is None else ends
            if now >= ends:
                reason = f"flock: another process has had this file locked for {seconds:g} s"
                raise BlockingIOError(errno.EWOULDBLOCK, reason) from None
            time.sleep(min(pause, ends - now))
            pause = min(2 * pause, _LONGEST_PAUSE)
        except OSError as error:
            if needed or error.errno not in NO_LOCKS:
                raise OSError(error.errno, f"flock: {error.strerror}") from error
            return
        else:
            return


def is_locked(descriptor: int) -> bool:
    """Tell whether somebody has an open file locked; raises `OSError` where files cannot be locked."""
    try:
        lock(descriptor, fcntl.LOCK_SH, needed=True, wait=0)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


@attrs.frozen
class Mark:
    """An empty file that a process has made, and that nobody has locked any more.

    Attributes:
        name: Its name in its folder.
        modified: When it was made, in seconds since 1970.
    """

    name: str
    modified: float


class FolderOfMarks:
    """Empty files in *folder*, locked by those who live. What has another name or form is somebody else's."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)

    def _require_own_folder(self) -> None:
        """Raise `OSError` if the folder, which castore makes, is a link."""
        owned.require_no_link(self.folder)

    def is_own(self, name: str) -> bool:
        """Tell whether a file is one of these by its name."""
        return owned.is_mark(name)

    def create(self, name: str) -> io.FileIO:
        """Open the file of a name, which is made if it is not there, and the folder with it."""
        self._require_own_folder()
        path = f"{self.folder}/{name}"
        try:
            return open_to_lock(path)
        except FileNotFoundError:
            owned.make_folders(self.folder)
            return open_to_lock(path)

    def dead(self) -> Iterator[Mark]:
        """Yield the files of those who have died. Nothing is changed. Raises `OSError`.

        Where files cannot be locked nobody is known to have died.
        """
        try:
            yield from (mark for mark, locked in self._look() if not locked)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def remove_dead(self, name: str, older_than: float) -> bool:
        """Remove the file of one who has died, if it is older; tell whether it is gone. Raises `OSError`."""
        if not self.is_own(name):
            return False
        self._require_own_folder()
        path = f"{self.folder}/{name}"
        with self._opened(path) as file:
            if file is None or os.fstat(file.fileno()).st_mtime >= older_than:
                return False
            try:
                lock(file.fileno(), fcntl.LOCK_EX, needed=True, wait=0)
            except BlockingIOError:
                return False
            os.unlink(path)
            return True

    def bury(self, name: str) -> bool:
        """Tell whether one has died, whose file goes then; one that has no file has, too. Raises `OSError`.

        Where files cannot be locked nobody is known to have died.
        """
        if not self.is_own(name):
            return True
        path = f"{self.folder}/{name}"
        with self._opened(path) as file:
            if file is None:
                return True
            try:
                lock(file.fileno(), fcntl.LOCK_EX, needed=True, wait=0)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                return False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return True

    def _look(self) -> Iterator[tuple[Mark, bool]]:
        """Yield each with whether it is locked."""
        self._require_own_folder()
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return
        for name in names:
            if self.is_own(name):
                with self._opened(f"{self.folder}/{name}") as file:
                    if file is not None:
                        number = file.fileno()
                        yield Mark(name, os.fstat(number).st_mtime), is_locked(number)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[io.FileIO | None]:
        """Open a file; `None` if it is gone, or has not the form of one of these."""
        file = None
        with contextlib.suppress(FileNotFoundError):
            if owned.is_empty_file(os.lstat(path)):
                file = open_to_lock(path, create=False)
        with file or contextlib.nullcontext():
            yield file


class FolderOfLeases(FolderOfMarks):
    """Leases in *folder*, each a locked file named by *prefix* and a random UUID."""

    def __init__(self, folder: str | os.PathLike[str], prefix: str = "") -> None:
        super().__init__(folder)
        self._prefix = prefix

    def _require_own_folder(self) -> None:
        if not self._prefix:  # Else it is the folder of what they are of, and may be what its owner likes.
            super()._require_own_folder()

    def is_own(self, name: str) -> bool:
        """Tell whether a file is a lease by its name."""
        return name.startswith(self._prefix) and owned.is_mark(name[len(self._prefix) :])

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """Keep a lease until the context ends; raises `OSError` if there can be no file."""
        file, path = self._take()
        with file:
            try:
                yield
            finally:
                # A child of a fork has it closed by now, and the lease is its parent's.
                if not file.closed:
                    with contextlib.suppress(OSError):
                        os.unlink(path)

    def _take(self) -> tuple[io.FileIO, str]:
        while True:
            name = f"{self._prefix}{uuid.uuid4()}"
            file = self.create(name)
            path = f"{self.folder}/{name}"
            try:
                lock(file.fileno(), fcntl.LOCK_EX)
                # A sweep may have come between the two, and taken it for one whose holder has died.
                if os.path.exists(path):
                    return file, path
            except BaseException:
                file.close()
                raise
            file.close()

    def oldest(self) -> float | None:
        """Return the time of the oldest lease, in seconds since 1970, `None` if there is none.

        Nothing is changed. Raises `OSError`.
        """
        return min((mark.modified for mark, locked in self._look() if locked), default=None)


class FolderOfLocks(FolderOfMarks):
    """Files named by digests, in a folder that is made with the first one.

    The next process that locks the same digest removes what a killed one has left. Where a file system locks
    no files everybody is alone.
    """

    def is_own(self, name: str) -> bool:
        """Tell whether a file is a lock by its name."""
        return owned.digest_named(name) is not None

    @contextlib.contextmanager
    def try_alone(self, digest: B3Digest) -> Iterator[bool]:
        """Lock the file of *digest*, unless somebody has; the value is whether that succeeded.

        Raises `OSError` if there can be no file.
        """
        path = Path(self.folder, digest.hex())
        with self.create(digest.hex()) as file:
            locked = False
            try:
                locked = _try_lock(file.fileno(), path)
                yield locked
            finally:
                # A child of a fork has it closed by now, and the file is its parent's.
                if locked and not file.closed:
                    # Before the lock ends: else somebody could lock the file just before it loses its name.
                    with contextlib.suppress(OSError):
                        if owned.is_empty_file(os.fstat(file.fileno())):
                            path.unlink()

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


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        lock(descriptor, fcntl.LOCK_EX, wait=0)
    except BlockingIOError:
        return False
    # Since it was opened, who had the lock may have removed the file, and somebody else made another.
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
