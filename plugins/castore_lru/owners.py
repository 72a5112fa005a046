"""Who takes part in the accounts of a store, and which of them have died.

An owner is a locked file. The lock ends with the process, however it dies, and that is seen from other
containers as well; the number of a process would be neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import uuid
from pathlib import Path
from typing import Final

from castore.threads.process_locks import FolderOfMarks, lock

_FOLDER: Final = "owners"


class Owner:
    """One service in one process. Without a *folder* there are no others."""

    def __init__(self, folder: Path | None) -> None:
        self._marks = None if folder is None else FolderOfMarks(folder / _FOLDER)
        self.name = str(uuid.uuid4())
        self._file: io.FileIO | None = None
        if self._marks is not None:
            self._file = self._marks.create(self.name)
            lock(self._file.fileno(), fcntl.LOCK_EX)

    def is_dead(self, name: str) -> bool:
        """Tell whether another owner's process has ended without a word. Its file goes, then.

        A name that no owner gives itself is nobody's, and that of no file.
        """
        if self._marks is None or name == self.name:
            return False
        return self._marks.bury(name)

    def end(self) -> None:
        """Take part no longer."""
        # A child of a fork has it closed, and the name is its parent's.
        if self._file is not None and not self._file.closed:
            with self._file, contextlib.suppress(FileNotFoundError):
                assert self._marks is not None
                os.unlink(f"{self._marks.folder}/{self.name}")


def boot_id() -> str:
    """Return what names the time since the machine was started; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
