"""The `mirror` service types: several services that hold the same."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(
        BlobService,
        "mirror",
        "castore_mirror.config:MirrorConfig",
        sought_as=("replica", "replicas", "replicated", "raid"),
    )
    registry.register(DirectoryService, "mirror", "castore_mirror.config:MirrorDirectoriesConfig")
