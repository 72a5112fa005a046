"""The `grpc` service types: blobs, and directories, of a peer that speaks the reference's protocol."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl
from castore.contract.directories import DirectoryService


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types."""
    sought_as = ("remote", "snix", "tvix", "daemon", "server", "peer")
    registry.register(BlobService, "grpc", "castore_grpc.config:GrpcConfig", sought_as=sought_as)
    registry.register(DirectoryService, "grpc", "castore_grpc.config:GrpcDirectoriesConfig")
