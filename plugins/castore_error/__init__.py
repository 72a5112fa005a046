"""The `error` service type: every operation has one fixed outcome."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "error", "castore_error.config:ErrorConfig")
