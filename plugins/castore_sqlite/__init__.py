"""The `sqlite` service type: chunks and indexes as rows of one file, for very many small blobs."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(
        BlobService,
        "sqlite",
        "castore_sqlite.config:SqliteConfig",
        sought_as=("sqlite3", "sql", "database", "db"),
    )
