"""Optional capabilities of a service, each a small class of its own.

Ask with `service.capability(Power)`, which gives the service typed as one that has the capability, or `None`.
A backend has a capability by naming its class among its bases; a wrapper derives its answer from its children.

======================  =====================================================
`BlobLister`            lists the digests of its blobs
`BlobDeleter`           deletes a blob
`ChunkSource`           reads single chunks
`ChunkStore`            also writes them, and the index of a blob
`FrameStore`            reads and writes chunks as they are stored, compressed
`Inventory`             lists every single thing it stores, and can set one aside
`Sweepable`             also removes what is old and not wanted any more
`Evictable`             lets another service keep it within bounds
`Pinning`               keeps a blob from being evicted
`BatchExistence`        tells for many digests at once which are missing
`EvictionEvents`        says when it drops a blob by itself
`SharedPlace`           lies where other processes use it, too, and keeps them apart
`Durable`               keeps what it acknowledged through a crash
======================  =====================================================
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from castore.contract.blobs import BlobWriter, ChunkMeta
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

    high_latency: bool = False
    """Whether its requests mostly wait, so that many more are worth making at once than there are cores."""

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

    def claim_chunk(self, digest: B3Digest) -> bool:
        """Tell whether a chunk is there for a blob that is being written, so that it need not be sent.

        Stricter than `has_chunk`: a chunk that can be seen to be torn is none, and one that is there is
        kept from a collector of garbage as if it had just been put.
        """
        return self.has_chunk(digest)

    def claim_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that `claim_chunk` would be true of; a store may find many at once."""
        return {digest for digest in digests if self.claim_chunk(digest)}

    def claim_blob(self, digest: B3Digest) -> bool:  # noqa: ARG002 - for overriding
        """Tell whether a whole blob is there, as `claim_chunk` does, and as lasting as if just written.

        False is no promise that it is absent, only that it has to be written to be sure.
        """
        return False

    def claim_indexes(
        self,
        blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]],  # noqa: ARG002 - for overriding
    ) -> set[B3Digest]:
        """Return those of *blobs* that `put_indexes` would leave as they are, claimed as chunks are.

        They last when a later `put_indexes` has returned, be it one of none. A store that does not tell
        returns none of them, and is given all to put.
        """
        return set()

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Keep what is put or claimed from now on from collectors of garbage, until the context ends.

        For a blob that takes long to write: its chunks are not part of any blob until its index is there.
        """
        return contextlib.nullcontext()

    @abstractmethod
    def put_chunk(self, digest: B3Digest, data: Buffer) -> None:
        """Keep *data*, whose digest the caller has computed, as a chunk. Replaces what was there.

        *data* may be a view of a buffer that is used again when this has returned.
        """

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Keep several chunks; a store may do that for less than one by one."""
        for digest, data in chunks.items():
            self.put_chunk(digest, data)

    @abstractmethod
    def put_index(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make the blob *digest* visible, made of *chunks*, all of which are there already.

        Fewer than two chunks mean a blob that is one chunk of its own digest, or empty. An index that is
        there already is left as it is, unless it cannot be right.
        """

    def put_indexes(self, blobs: Sequence[tuple[B3Digest, Sequence[ChunkMeta]]]) -> None:
        """Make several blobs visible; a store that flushes to a disk does so once for all of them."""
        for digest, chunks in blobs:
            self.put_index(digest, chunks)


class FrameStore(ABC):
    """Reads and writes chunks as they are stored, so that a copy need not compress them again."""

    @property
    @abstractmethod
    def frame_format(self) -> str:
        """What the stored bytes are; `zstd` for zstd frames. Only stores of one format can exchange them."""

    @abstractmethod
    def get_frame(self, digest: B3Digest) -> bytes | None:
        """Return a chunk as it is stored, unchecked; `None` if it is absent."""

    @abstractmethod
    def put_frame(self, digest: B3Digest, frame: bytes) -> None:
        """Keep *frame*, which the caller has unpacked and checked, as the chunk *digest*."""


@attrs.frozen
class StoredItem:
    """One thing that a store keeps.

    Attributes:
        kind: `index` of a blob, `chunk`, or `residue`: what a write that was killed has left behind, and
            anything else that stands where only indexes and chunks belong (*foreign*).
        key: Its name in the store.
        digest: That of the blob or chunk; `None` for residue.
        size: How many bytes are stored, `None` if the store does not tell.
        modified: When it was put or last claimed, in seconds since 1970; `None` if the store does not tell.
        foreign: Whether it is residue that no write to the store has left, and so nobody's to remove.
    """

    kind: Literal["index", "chunk", "residue"]
    key: str
    digest: B3Digest | None = None
    size: int | None = None
    modified: float | None = None
    foreign: bool = False


class Inventory(ABC):
    """Lists every single thing it stores, for those who look after it."""

    @abstractmethod
    def list_items(self) -> Iterator[StoredItem]:
        """Yield all indexes, then all chunks, and residue where it is met, each once.

        What is written or removed meanwhile may or may not be among them.
        """

    @abstractmethod
    def set_aside(self, item: StoredItem) -> str:
        """Move an item out of the way, into quarantine; return where it is now.

        For readers and writers it is absent then. Nothing is deleted, nor is anything in quarantine replaced.
        """


class Sweepable(Inventory):
    """Removes what is old and not wanted any more, safely beside writers."""

    @abstractmethod
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove those of *items* that were last put or claimed before *older_than*; yield each that is gone.

        The age is looked at again in the moment of removal, so that what a writer has claimed since it was
        listed stays. *older_than* is in seconds since 1970. At the end of the iteration what is gone is gone
        as durably as what is put is there.
        """

    @property
    def renewal_seconds(self) -> float:
        """How old the time of an item may be before a claim renews it.

        So an item may have been claimed this much later than its time says, and `sweep` takes it for younger.
        """
        return 0.0

    @abstractmethod
    def held_since(self) -> float | None:
        """Return since when a writer holds what it puts or claims; `None` if none does (`ChunkStore.hold`).

        In seconds since 1970. Nothing that was put or claimed after that may be swept.
        """


class Evictable(ABC):
    """Lets another service, which all writes to it go through, keep it within bounds.

    It tells what it keeps item by item, removes any of it, and writes blobs by way of the one that counts.
    A service with this capability is a `ChunkStore`, too.
    """

    @property
    def defers(self) -> bool:
        """Whether processes that share it find what was put no sooner than `settle`, or a put of an index."""
        return False

    @property
    def state_folder(self) -> Path | None:
        """A folder for what is to be known about it by all processes that share it, locks among that.

        `None`: it is not shared, or in no place that could have one. Only its owner looks into the folder,
        and makes it.
        """
        return None

    @abstractmethod
    def stored_items(self) -> Iterator[StoredItem]:
        """Yield every index, then every chunk, and residue where it is met, with their sizes."""

    @abstractmethod
    def find_item(self, kind: Literal["index", "chunk"], digest: B3Digest) -> StoredItem | None:
        """Return an index or chunk as it is now, with the bytes that it takes; `None` if there is none."""

    def residue_of(
        self,
        kind: Literal["index", "chunk"],  # noqa: ARG002 - for overriding
        digest: B3Digest,  # noqa: ARG002 - as above
    ) -> list[StoredItem]:
        """Return what writes of an item that were killed have left behind, or writers are about to finish."""
        return []

    def chunk_bound(self, size: int) -> int:
        """Return how many bytes a chunk of *size* bytes takes at most."""
        return size

    @abstractmethod
    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove *items*, in any order; one that is not there is no error.

        They are gone for readers at once, for good with the next flush. After an error some of them may be.
        """

    def settle(self) -> None:  # noqa: B027 - few have anything to do
        """Let other processes find all that was put."""

    def free_bytes(self) -> int | None:
        """Return how many bytes its file system has left; `None` where removing items frees none there."""
        return None

    @abstractmethod
    def open_write_to(self, store: ChunkStore) -> BlobWriter:
        """Start a blob that is cut as this service cuts its own, and whose parts all go to *store*."""


class Pinning(ABC):
    """Keeps what it is told to from being evicted, for a while."""

    @abstractmethod
    def pin(self, digest: B3Digest) -> contextlib.AbstractContextManager[None]:
        """Keep a blob and its chunks, or a chunk, from being evicted until the context ends.

        It may come later than the pin. A pin ends with the process, however that dies.
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


class SharedPlace(ABC):
    """Lies where other processes use it, too, so that one can spare the others its work."""

    @abstractmethod
    def try_alone(self, digest: B3Digest) -> contextlib.AbstractContextManager[bool]:
        """Enter as the only one, of all processes, who brings *digest* here; never waits.

        The value of the context is whether one is alone; if it is False somebody else is at it. What was put
        by then others find when the context has ended, if need be with `find_unsettled`. Who is alone ceases
        to be so when its process dies, however it does.
        """

    def find_unsettled(self, digest: B3Digest, size: int | None = None) -> bytes | None:  # noqa: ARG002
        """Return the checked bytes of a chunk that another process has put, and not settled yet.

        `None` if there is none, or none that is whole.
        """
        return None


class Durable(ABC):
    """States what an acknowledged write survives."""

    @property
    @abstractmethod
    def durability(self) -> Literal["process", "full"]:
        """`process`: survives the process, even killed. `full`: survives the machine, even unplugged."""
