"""The `sqlite` service types: blobs, directories and refs as rows of one file."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(
        BlobService,
        "sqlite",
        "castore_sqlite.config:SqliteConfig",
        sought_as=("sqlite3", "sql", "database", "db"),
    )
    registry.register(
        DirectoryService,
        "sqlite",
        "castore_sqlite.config:SqliteDirectoriesConfig",
        sought_as=("sqlite3", "sql", "database", "db"),
    )
    registry.register(
        RefService,
        "sqlite",
        "castore_sqlite.config:SqliteRefsConfig",
        sought_as=("sqlite3", "sql", "database", "db"),
    )
