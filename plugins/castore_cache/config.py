"""Configuration of `cache`.

Defaults: new blobs are written to near, as the reference does.

Example::

    [blobservices.root]
    type = "cache"
    near = "&local"
    far = "&remote"
    write = "near"     # or "far", or "both"

    [blobservices.local]
    type = "memory"

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from typing import Literal

import attrs

from castore import BlobService, Ref
from castore.composition import BuildContext, formerly


@attrs.frozen
class CacheConfig:
    """A near service in front of a far one: what is read from far is kept in near. It has no URL form."""

    near: Ref[BlobService] = attrs.field(metadata=formerly("local"))
    """Asked first, and filled with what far has to give."""
    far: Ref[BlobService] = attrs.field(metadata=formerly("remote"))
    """Asked for what near lacks."""
    write: Literal["near", "far", "both"] = "near"
    """Where new blobs go. With `both`, a blob is written when both have it."""

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_cache.service import CacheBlobService  # noqa: PLC0415 - once it is named

        return CacheBlobService(
            context.resolve(self.near), context.resolve(self.far), write=self.write, name=name
        )
