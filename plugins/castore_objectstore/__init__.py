"""The types that keep things in a folder or a bucket: `objectstore` (blobs, trees, refs), `packed`."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService

_SOUGHT = (
    "s3", "gs", "gcs", "azure", "abfs", "minio", "bucket", "sftp", "ssh", "http", "https", "webdav", "file",
    "folder", "directory", "disk", "filesystem", "fs", "local",
)  # fmt: skip
"""What else somebody may write as the type of a store whose URL says where it is."""


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    registry.register(
        BlobService, "objectstore", "castore_objectstore.config:ObjectStoreConfig", sought_as=_SOUGHT
    )
    registry.register(
        BlobService,
        "packed",
        "castore_objectstore.packed.config:PackedConfig",
        sought_as=("pack", "packs", "packfile", "small"),
    )
    registry.register(
        DirectoryService, "objectstore", "castore_objectstore.config:ObjectStoreDirectoriesConfig"
    )
    registry.register(RefService, "objectstore", "castore_objectstore.config:ObjectStoreRefsConfig")
