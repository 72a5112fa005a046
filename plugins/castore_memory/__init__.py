"""The `memory` service types: blobs, directories and refs in the memory of this process."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(BlobService, "memory", "castore_memory.config:MemoryConfig", sought_as=("ram", "tmpfs"))
    registry.register(DirectoryService, "memory", "castore_memory.config:MemoryDirectoriesConfig")
    registry.register(RefService, "memory", "castore_memory.config:MemoryRefsConfig")
