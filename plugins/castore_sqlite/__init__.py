"""The `sqlite` service type: chunks and indexes as rows of one file, for very many small blobs."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_sqlite.config import SqliteConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "sqlite", SqliteConfig)
