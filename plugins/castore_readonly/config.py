"""Configuration of `read_only`. Nothing can be written through it, whatever is within.

Example::

    [blobservices.root]
    type = "cache"          # writes to near
    near = "memory:"
    far = "&archive"

    [blobservices.archive]
    type = "read_only"
    inner = "objectstore+file:./archive"
"""

from __future__ import annotations

import attrs

from castore import BlobService, Ref
from castore.composition import BuildContext


@attrs.frozen
class ReadOnlyConfig:
    """A service that can be read, and nothing else. It has no URL form."""

    inner: Ref[BlobService]
    """What is read. No write ever reaches it."""

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_readonly.service import ReadOnlyService  # noqa: PLC0415 - once it is named

        return ReadOnlyService(context.resolve(self.inner), name=name)
