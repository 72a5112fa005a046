"""Configuration of `blobs`. A composition without a table of directory services has one, over its root.

Example::

    [directoryservices.root]
    type = "blobs"
    blobs = "&root"

    [blobservices.root]
    type = "memory"
"""

from __future__ import annotations

import attrs

from castore import BlobService, Ref
from castore.composition import BuildContext
from castore.contract.directories import DirectoryService


@attrs.frozen
class BlobsConfig:
    """Directories as blobs. It has no URL form."""

    blobs: Ref[BlobService]
    """The service of blobs that keeps them."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # noqa: ARG002 - all configs have it
        """Return the service."""
        from castore.directories.in_blobs import BlobsDirectoryService  # noqa: PLC0415 - once it is named

        return BlobsDirectoryService(context.resolve(self.blobs))
