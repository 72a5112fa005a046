"""The `read_only` service type: a service that nothing can be written to."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "read_only", "castore_readonly.config:ReadOnlyConfig")
