"""The `fallback` service types: several services, of which the first that has a thing gives it."""

from __future__ import annotations

from castore import BlobService, RefService, Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(BlobService, "fallback", "castore_fallback.config:FallbackConfig")
    registry.register(DirectoryService, "fallback", "castore_fallback.config:FallbackDirectoriesConfig")
    registry.register(RefService, "fallback", "castore_fallback.config:FallbackRefsConfig")
    registry.register(DirectoryService, "priority", "castore_fallback.config:PriorityConfig")
