"""The `memory` service type: blobs in the memory of this process."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "memory", "castore_memory.config:MemoryConfig")
