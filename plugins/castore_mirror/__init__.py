"""The `mirror` service type: several services that hold the same blobs."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    from castore_mirror.config import MirrorConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "mirror", MirrorConfig)
