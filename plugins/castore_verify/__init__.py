"""The `verify` service type: nothing unchecked is handed out."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(BlobService, "verify", "castore_verify.config:VerifyConfig")
