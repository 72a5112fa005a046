"""Configuration of `packed`.

Defaults: packs of 16 MiB; chunks as `objectstore` makes them; what is stored survives a power cut.

Example::

    [blobservices.root]
    type = "packed"
    object_store_url = "file:./stores/packs"   # or s3://bucket/prefix, gs://..., any URL that fsspec opens
    object_store_options = {}                  # passed to the driver of the URL's scheme
    driver = "auto"                            # or "fsspec", "obstore": what makes the requests to a bucket
    pack_size = "16 MiB"                       # 64 KiB to 512 MiB
    avg_chunk_size = "256 KiB"                 # 512 B to 2097153 B
    chunker = "fastcdc-2020"
    compression_level = 3
    durability = "full"                        # or "process": no flushes
    create = "parent"                          # or "path": the folders above it, too; false: nothing is made
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Final

import attrs

from castore import BlobService
from castore.composition import Between, BuildContext, ByteSize, Traits, View
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_AVG_SIZE, MIN_AVG_SIZE, Chunker, FastCdc2020
from castore.places import locate
from castore_objectstore.config import StoreFields
from castore_objectstore.locations import is_read_only, local_path, scheme_of, waits
from castore_objectstore.looks import PACKS

# Written out: importing zstandard for two numbers would cost every program that has the plugin.
_DEFAULT_AVG_SIZE: Final = ByteSize(DEFAULT_AVG_SIZE)
_DEFAULT_PACK_SIZE: Final = ByteSize(16 << 20)
_DEFAULT_LEVEL: Final = 3
_LEVELS: Final = Between(-7, 22)


@attrs.frozen
class PackedConfig(StoreFields):
    """Blobs in packs of many chunks, in an object store. URL form: `packed+<url>?<fields and options>`."""

    pack_size: Annotated[ByteSize, Between(64 << 10, 512 << 20)] = _DEFAULT_PACK_SIZE
    """How many bytes of chunks a pack has when it is closed; so much waits in memory, for each writer."""
    avg_chunk_size: Annotated[ByteSize, Between(MIN_AVG_SIZE, MAX_AVG_SIZE)] = _DEFAULT_AVG_SIZE
    """The average size of new chunks; they are between half and twice as large."""
    chunker: type[Chunker] = FastCdc2020
    """How new blobs are cut; chunks are only shared between blobs that were cut alike."""
    compression_level: Annotated[int, _LEVELS] = _DEFAULT_LEVEL
    """The zstd level of new chunks, from -7 (fastest) to 22 (smallest)."""

    def traits(self, view: View) -> Traits:
        """Say in which folder it keeps packs, if it is one, and whether it can be written."""
        return Traits(
            writable=not is_read_only(self.object_store_url),
            answers=True,
            place=self._folder(view.base),
            place_field="object_store_url",
            cuts=f"{self.chunker.__name__} {self.avg_chunk_size}",
            waits=waits(self.object_store_url),
        )

    def _folder(self, base: Path) -> Path | None:
        if scheme_of(self.object_store_url) == "file":
            # Nobody knows the home that it names: that is told who builds it.
            with contextlib.suppress(OSError):
                return locate(base, local_path(self.object_store_url), self.create).path
        return None

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service."""
        from castore_objectstore.packed.service import PackedBlobService  # noqa: PLC0415 - once somebody asks

        return issubclass(PackedBlobService, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service. A folder is made when the first pack is written, not before."""
        from castore_objectstore.packed.service import PackedBlobService  # noqa: PLC0415 - once it is named

        return PackedBlobService(
            self.open(name, context, PACKS),
            instance=name,
            pack_size=self.pack_size,
            chunker=self.chunker,
            avg_chunk_size=self.avg_chunk_size,
            compression_level=self.compression_level,
            pool=context.pool,
        )
