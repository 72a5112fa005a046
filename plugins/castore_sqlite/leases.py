"""Who has a lease, told to collectors of garbage in other processes.

A lease is a locked file beside the database. Its lock ends with the process, however it dies, and is seen by
other containers as well; a row with the number of a process would be neither.
"""

from __future__ import annotations

from pathlib import Path

from castore.threads.process_locks import FolderOfLeases


def leases_of(database: Path) -> FolderOfLeases:
    """Return the leases of a database: the files beside it whose names go on with `-lease-`."""
    return FolderOfLeases(database.parent, f"{database.name}-lease-")
