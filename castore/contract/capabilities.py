"""Optional capabilities of a service, each a small class of its own.

Ask with `service.capability(Capability)`, which gives an object of that class, or `None`. A backend has a
capability by naming its class among its bases; a wrapper derives its answer from the service within.

======================  =====================================================
`BlobLister`            lists the digests of its blobs, and completes what begins one
`BlobDeleter`           deletes a blob
`ChunkSource`           reads chunks
`ChunkStore`            also writes them, and the indexes of blobs
`FrameStore`            reads and writes chunks as they are stored, compressed
`EvictionEvents`        says when it drops a blob by itself
`SharedPlace`           lies where other processes use it, too, and keeps them apart
`Durable`               keeps what it acknowledged through a crash
======================  =====================================================

Those for who looks after a store are in `castore.contract.upkeep`.

A method takes many digests at once; where there is a form for a single one it is made of that, once and for
all. A batch has no more than `MOST_ITEMS` items and `MOST_BYTES` bytes (`castore.contract.batches`), and
repeating a call is harmless. `castore.contract.operations` says of each method what wrappers know of it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, final

from castore.errors import CastoreError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from castore.contract.blobs import ChunkMeta
    from castore.digest import B3Digest
    from castore.format.chunking import Chunker
    from castore.threads.pool import Pool

FoundChunks: TypeAlias = "dict[B3Digest, bytes | CastoreError]"
"""Checked bytes, or why a chunk could not be had; one that is absent is left out."""


class BlobLister(ABC):
    """Lists what it holds."""

    @abstractmethod
    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every blob, each once, in no particular order.

        What is written or deleted meanwhile may or may not be among them.
        """

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield the digests that begin with *digits*, each once: of blobs, and of chunks where that is cheap.

        *digits* are the first ones of a digest in hex, in lower case. Without a cheaper way the list of all
        blobs is gone through.
        """
        return (digest for digest in self.list_blobs() if digest.hex().startswith(digits))


class BlobDeleter(ABC):
    """Deletes what it holds."""

    @abstractmethod
    def delete(self, digest: B3Digest) -> bool:
        """Delete a blob, so that `has` is false for it; return whether it was there.

        Chunks that other blobs may share are left for a collector of garbage.
        """


class ChunkSource(ABC):
    """Reads chunks."""

    high_latency: bool = False
    """Whether its requests mostly wait, so that many more are worth making at once than there are cores."""

    @abstractmethod
    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* of which there is a chunk; the index of a blob does not count."""

    @abstractmethod
    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return the bytes of chunks, each checked against its digest.

        *sizes* has the digests, each with what an index says of its size in bytes: no more than that is
        unpacked, and another size is a `CorruptChunkError`. `None` stands for a size that is not known; then
        more than `MOST_UNKNOWN` bytes are an `OversizedFrameError`.

        A chunk that is absent is left out. One that is corrupt, or could not be had, has its error as value.
        Raises `UnavailableError` if nothing at all is known.
        """

    def chunk_key(self, digest: B3Digest) -> str | None:  # noqa: ARG002 - for overriding
        """Return where a chunk is, or would be, kept, to name it in an error; `None` if that has no name."""
        return None

    @final
    def has_chunk(self, digest: B3Digest) -> bool:
        """Tell whether there is a chunk of this digest."""
        return digest in self.find_chunks((digest,))

    @final
    def get_chunk(self, digest: B3Digest, size: int | None = None) -> bytes | None:
        """Return the checked bytes of one chunk, `None` if it is absent; raises what is wrong with it."""
        found = self.get_chunks({digest: size}).get(digest)
        if isinstance(found, CastoreError):
            raise found
        return found


class ChunkStore(ChunkSource):
    """Reads and writes chunks, and the lists of chunks that blobs are made of.

    A put or a claim that was done in part raises `BatchError`, which tells what was done; a plain
    `UnavailableError` means that nothing is known.
    """

    round: int = 1024
    """How many files it likes to make visible at once, 1,024 at most; with 1 each is stored by itself."""

    @property
    @abstractmethod
    def pool(self) -> Pool:
        """Where work for this store runs."""

    @abstractmethod
    def new_chunker(self) -> Chunker:
        """Return what cuts one blob as this store cuts."""

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return the chunks that are there for a blob that is being written, so that they need not be sent.

        Stricter than `find_chunks`: a chunk that can be seen to be torn is none, and one that is there is
        kept from a collector of garbage as if it had just been put.
        """
        return self.find_chunks(digests)

    @abstractmethod
    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return the blobs that are there with all of their chunks, all of them claimed.

        *blobs* has the digests, each with its chunks if they are known: then a blob that has another list is
        left out. What is claimed is lasting once the next `put_indexes`, even of none, has returned. That a
        blob is left out is no promise that it is absent, only that it has to be put to be sure.
        """

    @abstractmethod
    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Keep chunks, whose digests the caller has computed. Each replaces what was there.

        The values may be views of buffers that are used again when this has returned; who may give the call
        up before that gives copies.
        """

    @abstractmethod
    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Make blobs visible, after all of their chunks, with as few flushes as will do.

        Fewer than two chunks mean a blob that is one chunk of its own digest, or empty. The caller knows that
        the chunks make up the blob: an index with another list is replaced.
        """

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:  # noqa: ARG002 - for overriding
        """Enter with a store: what is put or claimed through that one stays until the context ends.

        Neither a collector of garbage nor an evictor takes it. With *brief* it is enough if that holds for
        as long as collectors spare what is young: for what ends soon.
        """
        return contextlib.nullcontext(self)

    @final
    def claim_chunk(self, digest: B3Digest) -> bool:
        """Claim one chunk; tell whether it is there."""
        return digest in self.claim((digest,))

    @final
    def claim_blob(self, digest: B3Digest, chunks: Sequence[ChunkMeta] | None = None) -> bool:
        """Claim one blob; tell whether all of it is there."""
        return digest in self.claim_blobs({digest: chunks})

    @final
    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Keep one chunk."""
        self.put_chunks({digest: data})

    @final
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make one blob visible."""
        self.put_indexes({digest: chunks})


class FrameStore(ABC):
    """Reads and writes chunks as they are stored, so that a copy need not compress them again."""

    @property
    @abstractmethod
    def frame_format(self) -> str:
        """What the stored bytes are; `zstd` for zstd frames. Only stores of one format can exchange them."""

    @abstractmethod
    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        """Return chunks as they are stored, unchecked; what is absent is left out, as with `get_chunks`.

        *digests* may be a mapping from them to the sizes in bytes that an index says, `None` for one that is
        not known: for no chunk is more read than its size can take. One of no known size that takes more
        than `MOST_UNKNOWN` bytes is an `OversizedFrameError`, unless it is the only one that is asked for.
        """

    @abstractmethod
    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Keep frames, which the caller has unpacked and checked, as chunks; raises as `put_chunks` does."""


class EvictionEvents(ABC):
    """Says when it drops a blob of its own accord."""

    @abstractmethod
    def on_evict(self, callback: Callable[[B3Digest], None]) -> Callable[[], None]:
        """Call *callback* after each eviction; return a function that ends this."""


class SharedPlace(ABC):
    """Lies where other processes use it, too, so that one can spare the others its work."""

    @abstractmethod
    def try_alone(
        self, digests: Collection[B3Digest]
    ) -> contextlib.AbstractContextManager[frozenset[B3Digest]]:
        """Enter as the only one, of all processes, who brings some of *digests* here; never waits.

        The value of the context has those of them that one is alone for; somebody else is at the others.
        What was put by then others find when the context has ended, if need be with `find_unflushed`. Who is
        alone ceases to be so when its process dies, however it does.
        """

    def find_unflushed(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:  # noqa: ARG002 - for overriding
        """Return the checked bytes of chunks that other processes have put, and not flushed yet.

        One that is not there, or not whole, is left out.
        """
        return {}


class Durable(ABC):
    """States what an acknowledged write survives."""

    @property
    @abstractmethod
    def durability(self) -> Literal["process", "full"]:
        """`process`: survives the process, even killed. `full`: survives the machine, even unplugged."""
