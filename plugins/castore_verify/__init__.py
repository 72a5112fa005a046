"""The `verify` service type: nothing unchecked is handed out."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_verify.config import VerifyConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "verify", VerifyConfig)
