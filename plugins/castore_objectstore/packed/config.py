"""Configuration of `packed`.

Defaults: packs of 16 MiB; chunks as `objectstore` makes them; what is stored survives a power cut.

Example::

    [blobservices.root]
    type = "packed"
    object_store_url = "file:./stores/packs"   # or s3://bucket/prefix, gs://..., any URL that fsspec opens
    object_store_options = {}                  # passed to the driver of the URL's scheme
    driver = "auto"                            # or "fsspec", "obstore": what makes the requests to a bucket
    pack_size = "16 MiB"                       # 64 KiB to 512 MiB
    max_waste = 0.25                           # 0 to 1: of what part waste a collection writes a pack anew
    avg_chunk_size = "256 KiB"                 # 512 B to 2097153 B
    chunker = "fastcdc-2020"
    compression_level = 3
    durability = "full"                        # or "process": no flushes
    create = "parent"                          # or "path": the folders above it, too; false: nothing is made
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs

from castore import BlobService
from castore.composition import Between, BuildContext, ByteSize, View
from castore.contract.upkeep import Inventory, Sweepable
from castore_objectstore.config import ChunkedStoreFields
from castore_objectstore.drivers import lists_at_once
from castore_objectstore.locations import is_read_only, scheme_of
from castore_objectstore.looks import PACKS

_DEFAULT_PACK_SIZE: Final = ByteSize(16 << 20)
_DEFAULT_MAX_WASTE: Final = 0.25


@attrs.frozen
class PackedConfig(ChunkedStoreFields):
    """Blobs in packs of many chunks, in an object store. URL form: `packed+<url>?<fields and options>`."""

    pack_size: Annotated[ByteSize, Between(64 << 10, 512 << 20)] = _DEFAULT_PACK_SIZE
    """How many bytes of chunks a pack has when it is closed; so much waits in memory, for each writer."""
    max_waste: Annotated[float, Between(0, 1)] = _DEFAULT_MAX_WASTE
    """A collection of garbage writes a pack anew of which a larger part is waste."""

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service; garbage is collected where listings tell all."""
        from castore_objectstore.packed.service import SweepablePacks  # noqa: PLC0415 - once somebody asks

        if kind is Sweepable:
            url = self.object_store_url
            return scheme_of(url) == "file" or lists_at_once(url)
        if kind is Inventory:
            return not is_read_only(self.object_store_url)
        return issubclass(SweepablePacks, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service. A folder is made when the first pack is written, not before."""
        from castore_objectstore.packed.service import packs_in  # noqa: PLC0415 - once it is named

        return packs_in(
            self.open(name, context, PACKS),
            instance=name,
            pack_size=self.pack_size,
            max_waste=self.max_waste,
            chunker=self.chunker,
            avg_chunk_size=self.avg_chunk_size,
            compression_level=self.compression_level,
            pool=context.pool,
        )
