"""Optional powers of a service, each a small class of its own.

Ask with `service.capability(Power)`, which gives the service typed as one that has the power, or `None`.
A backend has a power by naming its class among its bases; a wrapper derives its answer from its children.

======================  =====================================================
`BlobLister`            lists the digests of its blobs
`BlobDeleter`           deletes a blob
`ChunkSource`           reads single chunks
`ChunkStore`            also writes them, and the index of a blob
`BatchExistence`        tells for many digests at once which are missing
`EvictionEvents`        says when it drops a blob by itself
`Durable`               keeps what it acknowledged through a crash
======================  =====================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from castore.blobservice import ChunkMeta
    from castore.digest import B3Digest


class BlobLister(ABC):
    """Lists what it holds."""

    @abstractmethod
    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob, each once, in no particular order.

        What is written or deleted meanwhile may or may not be among them.
        """


class BlobDeleter(ABC):
    """Deletes what it holds."""

    @abstractmethod
    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob, so that `has` is false for it; return whether it was there.

        Chunks that other blobs may share are left for a collector of garbage.
        """


class ChunkSource(ABC):
    """Reads single chunks."""

    @abstractmethod
    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether a chunk of this digest is there."""

    @abstractmethod
    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return the bytes of a chunk, checked against *digest*; `None` if it is absent.

        *size* is what an index says of it: no more than that many bytes are unpacked, and another number
        raises `CorruptChunkError`.
        """

    def chunk_key(self, digest: B3Digest) -> str | None:  # noqa: ARG002 - for overriding
        """Return where a chunk is, or would be, kept, to name it in an error; `None` if that has no name."""
        return None


class ChunkStore(ChunkSource):
    """Reads and writes single chunks, and the lists of chunks that blobs are made of."""

    @abstractmethod
    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Keep *data*, whose digest the caller has computed, as a chunk. Replaces what was there.

        *data* may be a view of a buffer that is used again when this has returned.
        """

    @abstractmethod
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make the blob *digest* visible, made of *chunks*, all of which are there already.

        Fewer than two chunks mean a blob that is one chunk of its own digest, or empty. An index that is
        there already is left as it is.
        """


class BatchExistence(ABC):
    """Answers `BlobService.missing` for many digests in far fewer requests than one each."""

    @abstractmethod
    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that are absent."""


class EvictionEvents(ABC):
    """Says when it drops a blob of its own accord."""

    @abstractmethod
    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        """Call *callback* after each eviction; return a function that ends this."""


class Durable(ABC):
    """States what an acknowledged write survives."""

    @property
    @abstractmethod
    def durability(self) -> Literal["process", "full"]:
        """`process`: survives the process, even killed. `full`: survives the machine, even unplugged."""
