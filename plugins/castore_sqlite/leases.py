"""Who has a lease, told to collectors of garbage in other processes.

A lease is a locked file beside the database. Its lock ends with the process, however it dies, and is seen by
other containers as well; a row with the number of a process would be neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from castore.threads.process_locks import oldest_lease

_MARK: Final = "-lease-"


@contextlib.contextmanager
def leased(database: Path) -> Iterator[None]:
    """Keep a lease until the context ends."""
    descriptor, path = _create(database)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _create(database: Path) -> tuple[int, str]:
    database.parent.mkdir(parents=True, exist_ok=True)
    while True:
        path = f"{database}{_MARK}{uuid.uuid4()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Before it was locked, somebody may have taken it for one whose holder has died.
        if os.path.exists(path):
            return descriptor, path
        os.close(descriptor)


def leased_since(database: Path) -> float | None:
    """Return the time of the oldest lease, `None` if there is none; remove those of the dead."""
    return oldest_lease(database.parent, f"{database.name}{_MARK}")
