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

from collections.abc import Iterator
from typing import Literal

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, BuildContext, Plan, Problem, Traits, View, formerly


@attrs.frozen
class CacheConfig:
    """A near service in front of a far one: what is read from far is kept in near. It has no URL form."""

    near: Ref[BlobService] = attrs.field(metadata=formerly("local"))
    """Asked first, and filled with what far has to give."""
    far: Ref[BlobService] = attrs.field(metadata=formerly("remote"))
    """Asked for what near lacks."""
    write: Literal["near", "far", "both"] = "near"
    """Where new blobs go. With `both`, a blob is written when both have it."""

    def traits(self, view: View) -> Traits:
        """Say what near and far can do together."""
        from castore_cache import linting  # noqa: PLC0415 - only when the composition is read

        return linting.traits(self, view)

    def offers(self, power: type, view: View) -> bool | None:
        """Have the powers that near and far make possible."""
        from castore_cache import linting  # noqa: PLC0415 - as above

        return linting.offers(self, power, view)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of a near that is never filled, and of writes that end nowhere."""
        from castore_cache import linting  # noqa: PLC0415 - as above

        return linting.lints(self, view)

    def explain(self, asking: Asking) -> Plan:
        """Say which of near and far is asked, and what near keeps."""
        from castore_cache import explaining  # noqa: PLC0415 - once somebody asks

        return explaining.explain(self, asking)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_cache.service import CacheBlobService  # noqa: PLC0415 - once it is named

        return CacheBlobService(
            context.resolve(self.near), context.resolve(self.far), write=self.write, name=name
        )
