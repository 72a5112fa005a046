"""Who takes part in the accounts of a store, and which of them have died.

An owner is a locked file. The lock ends with the process, however it dies, and that is seen from other
containers as well; the number of a process would be neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path
from typing import Final

_FOLDER: Final = "owners"


class Owner:
    """One service in one process. Without a *folder* there are no others."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / _FOLDER
        self.name = str(uuid.uuid4())
        self._descriptor: int | None = None
        if self._folder is not None:
            os.makedirs(self._folder, exist_ok=True)
            path = f"{self._folder}/{self.name}"
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def is_dead(self, name: str) -> bool:
        """Tell whether another owner's process has ended without a word. Its file goes, then."""
        if self._folder is None or name == self.name:
            return False
        path = f"{self._folder}/{name}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return True

    def end(self) -> None:
        """Take part no longer."""
        if self._descriptor is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._folder}/{self.name}")
            os.close(self._descriptor)
            self._descriptor = None

    def forget(self) -> None:
        """Let go of what is another process's: after a fork."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def boot_id() -> str:
    """Return what names the time since the machine was started; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
