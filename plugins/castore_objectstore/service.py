"""Blobs over an object store, in the reference's layout.

==================================================  ====================================================
`blobs/b3/<first 4 hex digits>/<64 hex digits>`     the index of a blob; no bytes for one of 0 or 1 chunks
`chunks/b3/<first 4 hex digits>/<64 hex digits>`    a chunk as a zstd frame, under the digest of its bytes
`refs/<name>.json`                                  what a name stands for (`castore_objectstore.refs`)
==================================================  ====================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast

from castore import B3Digest, BlobReader, ChunkMeta
from castore.contract.capabilities import (
    ChunkStore,
    FoundChunks,
    SharedPlace,
)
from castore.contract.refs import RefService
from castore.contract.upkeep import DigestRange, Evictable, ItemKind, StoredItem, Sweepable
from castore.digest import EMPTY
from castore.errors import BadFrameError, BadIndexError
from castore.format import blob_index, frames
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_CHUNK_SIZE, Chunker, FastCdc2020
from castore.streams.readers import BytesReader
from castore.threads.pool import Pool
from castore_objectstore.chunked import ChunkedStore
from castore_objectstore.keys import digest_in, key_of, place_in
from castore_objectstore.object_store import (
    LARGEST,
    LastObject,
    NoObjectError,
    ObjectStore,
    StoredObject,
    TooLargeError,
)
from castore_objectstore.refs import ObjectRefService
from castore_objectstore.sharing import SharedStore

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

_BLOBS: Final = "blobs/b3/"
_CHUNKS: Final = "chunks/b3/"

_LONGEST: Final = frames.longest(MAX_CHUNK_SIZE)
"""Bytes that the object of a chunk has at most."""


class AddOnlyBlobService(ChunkedStore):
    """Keeps blobs as chunks in an `ObjectStore` in which nothing can be removed.

    An index comes after all its chunks are durable. A writer replaces an existing chunk only if it is torn,
    and an existing index if it has another list.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        chunker: type[Chunker] = FastCdc2020,
        avg_chunk_size: int = DEFAULT_AVG_SIZE,
        compression_level: int = frames.DEFAULT_LEVEL,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(
            store,
            chunker=chunker,
            avg_chunk_size=avg_chunk_size,
            compression_level=compression_level,
            pool=pool,
        )
        self._shared = SharedStore(store, self.chunk_key) if store.shared else None

    def chunk_key(self, digest: B3Digest) -> str:
        """Return the key of a chunk."""
        return key_of(_CHUNKS, digest)

    def index_key(self, digest: B3Digest) -> str:
        """Return the key of the index of a blob."""
        return key_of(_BLOBS, digest)

    # -- blobs --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of which there is neither an index nor a chunk."""
        wanted = set(digests)
        with self._store.batch() as store:

            def exists(digest: B3Digest) -> bool:
                return store.exists(key_of(_BLOBS, digest)) or store.exists(key_of(_CHUNKS, digest))

            return wanted - self._find_each(exists, wanted)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob or chunk. The empty blob is always there, without asking."""
        return BytesReader(b"", EMPTY) if digest == EMPTY else super().open_read(digest)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Read and check the index of a blob; a chunk, too, is a blob with no finer chunks."""
        index = self._index(digest)
        if index is not None:
            return index
        return () if self._store.exists(key_of(_CHUNKS, digest)) else None

    def _index(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        key = key_of(_BLOBS, digest)
        decoder = blob_index.IndexDecoder(digest, key=key)
        try:
            there = self._store.read_into(key, decoder.feed, blob_index.MAX_ENCODED_SIZE)
        except NoObjectError as error:
            raise BadIndexError(
                f"there is {error} where the index of blob {digest} belongs", expected=digest, key=key
            ) from None
        except TooLargeError as error:
            raise BadIndexError(
                f"the index of blob {digest} has more than the {error.most} bytes of any index",
                expected=digest,
                key=key,
            ) from None
        return decoder.end() if there else None

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; whether processes can tell each other anything depends on the store."""
        if kind is RefService:
            return cast("P", ObjectRefService(self._store, pool=self._pool))
        return cast("P | None", self._shared) if kind is SharedPlace else super().capability(kind)

    def list_blobs(self) -> Iterator[B3Digest]:
        """Yield the digest of every index. What is no digest in the folder of indexes is passed over."""
        for entry in self._store.list(_BLOBS):
            digest = digest_in(_BLOBS, entry)
            if digest is not None:
                yield digest

    def complete(self, digits: str) -> Iterator[B3Digest]:
        """Yield the indexes and chunks that begin with *digits*: of four or more, two folders are listed."""
        folder = f"{digits[:4]}/" if len(digits) >= 4 else ""
        seen: set[B3Digest] = set()
        for prefix in (_BLOBS, _CHUNKS):
            for entry in self._store.list(prefix + folder):
                digest = digest_in(prefix, entry)
                if digest is not None and digest.hex().startswith(digits) and digest not in seen:
                    seen.add(digest)
                    yield digest

    # -- chunks --

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of which there is an object."""
        with self._store.batch() as store:
            return self._find_each(lambda digest: store.exists(key_of(_CHUNKS, digest)), digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        """Return chunks, unpacked within bounds and checked."""

        def get(digest: B3Digest) -> bytes | None:
            key, size = key_of(_CHUNKS, digest), sizes[digest]
            frame = self._frame(store, digest, size)
            return None if frame is None else frames.decode_chunk(frame, digest, size=size, key=key)

        with self._store.batch() as store:
            return self._get_each(get, sizes)

    def _frame(self, store: ObjectStore, digest: B3Digest, size: int | None) -> bytes | None:
        key = key_of(_CHUNKS, digest)
        try:
            return store.get(key, frames.longest(size))
        except NoObjectError as error:
            raise BadFrameError(
                f"there is {error} where chunk {digest} belongs", expected=digest, key=key
            ) from None
        except TooLargeError:
            raise frames.too_long(digest, size, key=key) from None

    def claim(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of which there is a whole frame."""
        with self._store.batch() as store:
            if not store.claims_together:
                return self._find_each(
                    lambda digest: store.claim(key_of(_CHUNKS, digest), frames.is_whole, _LONGEST), digests
                )
            keys = {key_of(_CHUNKS, digest): digest for digest in digests}
            return {keys[key] for key in store.claim_many(keys, frames.is_whole, _LONGEST)}

    def put_chunks(self, chunks: Mapping[B3Digest, Buffer]) -> None:
        """Compress and store chunks; small ones are compressed together."""
        packed = None if self.high_latency else iter(frames.compress_each(list(chunks.values()), self._level))

        def put(digest: B3Digest) -> None:
            frame = frames.compress(chunks[digest], self._level) if packed is None else next(packed)
            store.put(key_of(_CHUNKS, digest), frame)

        with self._store.batch() as store:
            self._put_each(put, chunks)

    def lease(self, *, brief: bool = False) -> contextlib.AbstractContextManager[ChunkStore]:
        """Keep a lease in the store, unless what is young is spared anyway."""
        return contextlib.nullcontext(self) if brief else self._leased()

    @contextlib.contextmanager
    def _leased(self) -> Iterator[ChunkStore]:
        with self._store.lease():
            yield self

    # -- indexes --

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        """Return those of which the index and all chunks are there."""
        with self._store.batch() as store:
            needs, rest = self._claim_empty(store, blobs)
            lists = self._each(lambda digest: self._claim_list(store, digest, blobs[digest]), rest)
        found = zip(rest, lists, strict=True)
        needs |= {digest: needed for digest, needed in found if needed is not None}
        there = self.claim(set().union(*needs.values()))
        return {digest for digest, needed in needs.items() if needed <= there}

    def _claim_empty(
        self, store: ObjectStore, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]
    ) -> tuple[dict[B3Digest, set[B3Digest]], list[B3Digest]]:
        """Claim the indexes of blobs of one chunk together; return what these need, and the other blobs."""
        keys = {
            key_of(_BLOBS, digest): digest
            for digest, known in blobs.items()
            if known is not None and not known
        }
        if not store.claims_together or not keys:
            return {}, list(blobs)
        there = store.claim_many(keys, lambda _, size: not size, 0)
        alone = {keys[key] for key in there}
        rest = [digest for digest, known in blobs.items() if known is None or known]
        return {digest: {digest} - {EMPTY} for digest in alone}, rest

    def _claim_list(
        self, store: ObjectStore, digest: B3Digest, chunks: Sequence[ChunkMeta] | None
    ) -> set[B3Digest] | None:
        """Return the chunks that a blob needs, if its index is there, and says what is known of it."""
        if chunks is None:
            if not store.claim(key_of(_BLOBS, digest), _anything):
                return None
            try:
                chunks = self.chunks(digest)
            except BadIndexError:
                return None
        elif not self._claim_index(store, digest, chunks):
            return None
        return None if chunks is None else {meta.digest for meta in chunks} or {digest} - {EMPTY}

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        """Store indexes, durably and after all chunks, unless they are there."""
        with self._store.batch() as store:
            there = self._find_each(lambda digest: self._claim_index(store, digest, blobs[digest]), blobs)
        last = {
            digest: LastObject(
                key_of(_BLOBS, digest),
                blob_index.encode(chunks),
                [key_of(_CHUNKS, meta.digest) for meta in chunks] or [key_of(_CHUNKS, digest)],
            )
            for digest, chunks in blobs.items()
            if digest not in there
        }
        if not self.high_latency:
            self._store.flush(list(last.values()))
            return
        self._store.flush()
        self._put_each(lambda digest: self._store.put(last[digest].key, last[digest].data), last)

    def _claim_index(self, store: ObjectStore, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether this index is there; any other one is to be replaced by it."""
        key = key_of(_BLOBS, digest)
        same = False

        def compare(read_at: Callable[[int, int], bytes], size: int) -> bool:
            nonlocal same
            expected = blob_index.encode(chunks)
            same = size == len(expected) and read_at(0, size) == expected
            return same

        # Of a blob of one chunk the index has no bytes: where that shows, it is not opened.
        most = LARGEST if chunks else 0
        # A store in which nothing is ever torn need not have let it be compared.
        return store.claim(key, compare, most) and (same or self._has_list(digest, chunks))

    def _has_list(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Read the index that is there, and tell the same of it."""
        try:
            found = self._index(digest)
        except BadIndexError:
            return False
        return found is not None and blob_index.same_list(found, chunks)

    # -- frames --

    def get_frames(self, digests: Iterable[B3Digest]) -> FoundChunks:
        """Return frames, unchecked."""
        sizes = digests if isinstance(digests, Mapping) else {}
        wanted = list(digests)
        # One alone may be as large as any.
        default = MAX_CHUNK_SIZE if len(wanted) == 1 else None

        def get(digest: B3Digest) -> bytes | None:
            size = sizes.get(digest)
            return self._frame(store, digest, size if isinstance(size, int) else default)

        with self._store.batch() as store:
            return self._get_each(get, wanted)

    def put_frames(self, frames: Mapping[B3Digest, bytes]) -> None:
        """Store frames."""
        with self._store.batch() as store:
            self._put_each(lambda digest: store.put(key_of(_CHUNKS, digest), frames[digest]), frames)


class ObjectStoreBlobService(AddOnlyBlobService, Sweepable, Evictable):
    """Keeps blobs as chunks in an `ObjectStore`, and lets it be looked after."""

    def list_items(self) -> Iterator[StoredItem]:
        """Yield what is stored in the folders of indexes and of chunks; then the marks of the dead."""
        yield from self.stored_items()
        yield from self._marks()

    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        """Yield what is stored in the folders that a range has; the marks of the dead come with the first."""
        yield from (_item("index", _BLOBS, entry) for entry in self._list_in(_BLOBS, part))
        yield from (_item("chunk", _CHUNKS, entry) for entry in self._list_in(_CHUNKS, part))
        if part.first is None:
            yield from self._marks()

    def _list_in(self, prefix: str, part: DigestRange) -> Iterator[StoredObject]:
        # By their keys everything is in one range, also what castore has not put there.
        first = "" if part.first is None else key_of(prefix, part.first)
        return self._store.list_between(
            prefix, first, None if part.before is None else key_of(prefix, part.before)
        )

    def _marks(self) -> Iterator[StoredItem]:
        for entry in self._store.list_marks():
            yield StoredItem("residue", entry.key, None, entry.size, entry.modified)

    def set_aside(self, item: StoredItem) -> str:
        """Move an object under `quarantine/`."""
        return self._store.set_aside(item.key)

    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove objects that are old; one flush serves for all of them."""
        for item in items:
            entry = StoredObject(item.key, item.size, item.modified)
            for _ in self._store.sweep((entry,), older_than):
                yield item
        self._store.flush()

    @property
    def renewal_seconds(self) -> float:
        """How old the time of an object may be before a claim renews it."""
        return self._store.renewal_seconds

    def leased_since(self) -> float | None:
        """Return the time of the oldest lease in the store."""
        return self._store.leased_since()

    # -- for who keeps it within bounds --

    def stored_items(self) -> Iterator[StoredItem]:
        """Yield what is stored in the folders of indexes and of chunks."""
        yield from (_item("index", _BLOBS, entry) for entry in self._store.list(_BLOBS))
        yield from (_item("chunk", _CHUNKS, entry) for entry in self._store.list(_CHUNKS))

    @property
    def defers(self) -> bool:
        """Whether chunks wait for a flush before others see them."""
        return self._store.defers

    @property
    def state_folder(self) -> Path | None:
        """The folder `lru` beside those of the objects, if these are in a folder of this machine."""
        folder = self._store.folder
        return None if folder is None else folder / "lru"

    def make_state_folder(self) -> None:
        """Make that folder, and the one of the store."""
        self._store.make_state_folder()

    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        """Return what a listing would say of indexes or chunks."""
        prefix = _BLOBS if kind == "index" else _CHUNKS
        wanted = list(dict.fromkeys(digests))
        with self._store.batch() as store:
            found = self._each(lambda digest: store.describe(key_of(prefix, digest)), wanted)
        return {
            digest: _item(kind, prefix, entry)
            for digest, entry in zip(wanted, found, strict=True)
            if entry is not None
        }

    def residue_of(self, kind: ItemKind, digests: Iterable[B3Digest]) -> list[StoredItem]:
        """Return the temporary files beside the places of indexes or chunks."""
        prefix = _BLOBS if kind == "index" else _CHUNKS
        wanted = set(digests)
        found = []
        for folder in {f"{key_of(prefix, digest).rpartition('/')[0]}/" for digest in wanted}:
            for entry in self._store.list(folder):
                place = place_in(prefix, entry)
                if place is not None and place.left_over and place.digest in wanted:
                    found.append(_item(kind, prefix, entry))
        return found

    def chunk_bound(self, size: int) -> int:
        """Return the size of a frame of that many bytes that cannot be compressed."""
        return frames.bound(size)

    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove objects, by their keys."""
        self._store.remove(item.key for item in items)

    def flush(self) -> None:
        """Flush what waits for that, and give it its names."""
        self._store.flush()

    def free_bytes(self) -> int | None:
        """Return what the file system of a folder has left."""
        return self._store.free_bytes()


def _item(kind: Literal["index", "chunk"], prefix: str, entry: StoredObject) -> StoredItem:
    place = place_in(prefix, entry)
    if place is None or place.left_over:
        foreign = place is None
        return StoredItem("residue", entry.key, None, entry.size, entry.modified, foreign=foreign)
    return StoredItem(kind, entry.key, place.digest, entry.size, entry.modified)


def _anything(read_at: object, size: int) -> bool:  # noqa: ARG001 - any index may be right, also an empty one
    return True
