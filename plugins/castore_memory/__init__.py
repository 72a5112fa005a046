"""The `memory` service type: blobs in the memory of this process."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_memory.config import MemoryConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "memory", MemoryConfig)
