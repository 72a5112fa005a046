"""Writing to open descriptors: all of it, however little the system takes at a time."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

_USELESS: Final = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY))
"""How to open what stands in for stdin, stdout and stderr, such that nothing can be read or written there."""


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of *data*; raise `OSError` if that cannot be done.

    A system call may take less than it is given: when a signal comes, when a disk is nearly full, at a limit
    of the size of files. What is in non-blocking mode, as pipes and terminals are that another program has
    so set, is waited for.
    """
    view = memoryview(data).cast("B")
    while view:
        try:
            count = os.write(descriptor, view)
        except BlockingIOError:
            _wait(descriptor)
            continue
        if not count:
            raise OSError(errno.EIO, "nothing of it was taken")
        view = view[count:]


def _wait(descriptor: int) -> None:
    """Wait until something can be written, or nothing ever again: the next attempt finds out."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def see_off(descriptor: int) -> None:
    """Learn whether what was written has arrived; raise `OSError` if not.

    NFS and file systems in user space say so only when a descriptor is closed. Closing a copy of it tells as
    much.
    """
    try:
        copy = os.dup(descriptor)
    except OSError:
        return  # There are too many open: it is not known.
    os.close(copy)


def occupy_closed() -> None:
    """Open something useless in place of each of stdin, stdout and stderr that is closed.

    Else the next file to be opened, one of a store maybe, would be what they write to.
    """
    for number, flags in _USELESS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # It gets the lowest number that is free, and that is this one.


class PatientWriter(io.RawIOBase):
    """A stream on which writing never fails: what cannot be written is dropped.

    For stderr: a disk that is full, a terminal that is gone or a reader that has left must not end the work
    whose messages they were to take. That holds for every line, whoever writes it: a warning of Python's, a
    log line, a progress bar.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Buffer, /) -> int:
        """Write *data* if that can be done; return its size."""
        with contextlib.suppress(OSError):
            write_all(self._descriptor, data)
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return os.isatty(self._descriptor)
