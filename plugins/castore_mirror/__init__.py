"""The `mirror` service type: several services that hold the same blobs."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type."""
    registry.register(
        BlobService,
        "mirror",
        "castore_mirror.config:MirrorConfig",
        sought_as=("replica", "replicas", "replicated", "raid"),
    )
