"""The index of a blob: the list of its chunks, as the bytes that the reference stores.

Pure: bytes in, values out. An index is a `StatBlobResponse` message whose `bao` is never set. A blob of
fewer than two chunks has an index of no bytes: its one chunk has the blob's own digest.

An index has bounds, and is decoded some kilobytes at a time: a forged one costs no more than its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from operator import eq
from typing import Final
from weakref import WeakValueDictionary

from blake3 import blake3

from castore.contract.blobs import ChunkMeta
from castore.contract.chunk_list import MAX_CHUNKS, ChunkList
from castore.digest import DIGEST_SIZE, B3Digest
from castore.errors import BadIndexError
from castore.format.chunking import MAX_CHUNK_SIZE

MAX_BLOB_SIZE: Final = (1 << 63) - 1
"""The largest size of a blob, in bytes: what a file offset can hold."""

MAX_ENCODED_SIZE: Final = 41 * MAX_CHUNKS
"""How many bytes an index has at most: a chunk takes 41 at most."""

_SLICE: Final = 64 << 10
"""About so many bytes are decoded at a time."""

_LONGEST_FIELD: Final = 1 << 20
"""A field of more bytes is nothing that an index has."""

_CHUNKS_TAG: Final = 0x12


def encode(chunks: Sequence[ChunkMeta]) -> bytes:
    """Return the index of a blob made of *chunks*: no bytes for fewer than two."""
    if len(chunks) < 2:
        return b""
    from castore.format.proto.castore_pb2 import StatBlobResponse  # noqa: PLC0415 - small blobs need no protobuf

    meta = StatBlobResponse.ChunkMeta
    remaining = iter(chunks)
    # Messages one after the other are one message: so no more than some chunks are objects at a time.
    parts = []
    while some := list(islice(remaining, 1024)):
        message = StatBlobResponse(chunks=[meta(digest=chunk.digest, size=chunk.size) for chunk in some])
        parts.append(message.SerializeToString(deterministic=True))
    return b"".join(parts)


def decode(data: bytes, blob: B3Digest, *, key: str | None = None) -> Sequence[ChunkMeta]:
    """Read the index of *blob* and check all that it says.

    Returns no chunks, or at least two. Raises `BadIndexError` for bytes that are no index, a digest that
    has not 32 bytes, a size outside 1 to `MAX_CHUNK_SIZE`, more than `MAX_CHUNKS` chunks, or a total beyond
    `MAX_BLOB_SIZE`.
    """
    if not data:
        return ()  # as of every small blob
    decoder = IndexDecoder(blob, key=key)
    decoder.feed(data)
    return decoder.end()


_LONG: Final = 1 << 16

_long_lists: Final[WeakValueDictionary[B3Digest, ChunkList]] = WeakValueDictionary()
"""Long lists that somebody has: several readers of a blob, and of a stack, have one together."""


class IndexDecoder:
    """Reads the index of *blob* in pieces, of which none is kept; its methods raise as `decode` does."""

    def __init__(self, blob: B3Digest, *, key: str | None = None) -> None:
        self._blob = blob
        self._key = key
        self._chunks = ChunkList()
        self._known = _long_lists.get(blob)
        self._alike = 0
        self._rest = b""
        self._is_empty = True

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        for start in range(0, len(piece), _LONGEST_FIELD) if len(piece) > _LONGEST_FIELD else ():
            self.feed(piece[start : start + _LONGEST_FIELD])
        if len(piece) > _LONGEST_FIELD:
            return
        rest = self._rest + piece if self._rest else piece
        position = 0
        while (end := _end_of_fields(rest, position)) > position:
            self._read(rest[position:end])
            position = end
        self._rest = rest[position:]
        if len(self._rest) > _LONGEST_FIELD:
            raise self._no_message()

    def end(self) -> Sequence[ChunkMeta]:
        """Return the chunks, when all has been fed."""
        if self._rest:
            # Cut short, with other fields, or something else altogether.
            self._read(self._rest)
        if self._known is not None:
            if self._alike == len(self._known):
                return self._known
            self._leave_known()
        found = () if self._is_empty else _checked(self._chunks, self._blob, self._key)
        if isinstance(found, ChunkList) and len(found) >= _LONG:
            _long_lists[self._blob] = found
        return found

    def _leave_known(self) -> None:
        """Go on with a list of its own."""
        assert self._known is not None
        self._chunks, self._known = self._known.up_to(self._alike), None

    def _read(self, data: bytes) -> None:
        from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

        from castore.format.proto.castore_pb2 import StatBlobResponse  # noqa: PLC0415 - as above

        self._is_empty = False
        try:
            message = StatBlobResponse.FromString(data)
        except DecodeError:
            raise self._no_message() from None
        entries = [(entry.digest, entry.size) for entry in message.chunks]
        if self._known is not None:
            if self._known.has_at(
                self._alike, [digest for digest, _ in entries], [size for _, size in entries]
            ):
                self._alike += len(entries)
                return
            self._leave_known()
        _add(self._chunks, entries, self._blob, self._key)

    def _no_message(self) -> BadIndexError:
        return BadIndexError(
            f"the index of blob {self._blob} is not a StatBlobResponse message",
            expected=self._blob,
            key=self._key,
        )


def _end_of_fields(data: bytes, start: int) -> int:
    """Return where the whole fields end that begin at *start*, `_SLICE` bytes on at the latest, or so.

    That is *start* itself if the first one does not end, or is none of those of chunks and of short ones.
    """
    position = start
    stop = min(len(data), start + _SLICE)
    while position + 1 < stop and data[position] == _CHUNKS_TAG and data[position + 1] < 0x80:
        end = position + 2 + data[position + 1]
        if end > len(data):
            break
        position = end
    return position


def same_list(one: Sequence[ChunkMeta], other: Sequence[ChunkMeta]) -> bool:
    """Tell whether two lists of chunks of one blob are the same; fewer than two are the blob itself."""
    if len(one) < 2 or len(other) < 2:
        return len(one) < 2 and len(other) < 2
    if isinstance(one, ChunkList):
        return one == other
    return len(one) == len(other) and all(map(eq, one, other))


def fingerprint(chunks: Sequence[ChunkMeta]) -> bytes:
    """Return 32 bytes that tell a list of chunks from any other one: its digests and sizes, hashed."""
    hasher = blake3()
    remaining = iter(chunks)
    while some := list(islice(remaining, _SLICE)):
        hasher.update(b"".join(meta.digest + meta.size.to_bytes(8, "little") for meta in some))
    return hasher.digest()


def size_of(chunks: Sequence[ChunkMeta]) -> int:
    """Return how many bytes some chunks have together."""
    return chunks.size if isinstance(chunks, ChunkList) else sum(meta.size for meta in chunks)


def validate(
    entries: Iterable[tuple[bytes, int]], blob: B3Digest, *, key: str | None = None
) -> Sequence[ChunkMeta]:
    """Check the digests and sizes of an index of *blob*, from wherever they came; as `decode` otherwise."""
    chunks = ChunkList()
    remaining = iter(entries)
    while some := list(islice(remaining, 1024)):
        _add(chunks, some, blob, key)
    return _checked(chunks, blob, key)


def _add(chunks: ChunkList, entries: Sequence[tuple[bytes, int]], blob: B3Digest, key: str | None) -> None:
    digests = [digest for digest, _ in entries]
    sizes = [size for _, size in entries]
    if entries and (set(map(len, digests)) != {DIGEST_SIZE} or min(sizes) < 1 or max(sizes) > MAX_CHUNK_SIZE):
        raise _wrong_entry(len(chunks), entries, blob, key)
    if len(chunks) + len(entries) > MAX_CHUNKS:
        raise BadIndexError(
            f"the index of blob {blob} lists more than {MAX_CHUNKS} chunks", expected=blob, key=key
        )
    chunks.add(digests, sizes)


def _wrong_entry(
    first: int, entries: Sequence[tuple[bytes, int]], blob: B3Digest, key: str | None
) -> BadIndexError:
    for number, (digest, size) in enumerate(entries, first):
        if len(digest) != DIGEST_SIZE:
            what = f"a digest of {len(digest)} bytes instead of 32"
        elif not 1 <= size <= MAX_CHUNK_SIZE:
            what = f"a size of {size} bytes; chunks have 1 to {MAX_CHUNK_SIZE}"
        else:
            continue
        return BadIndexError(f"the index of blob {blob} gives chunk #{number} {what}", expected=blob, key=key)
    raise AssertionError("all entries are right")


def _checked(chunks: ChunkList, blob: B3Digest, key: str | None) -> Sequence[ChunkMeta]:
    if chunks.size > MAX_BLOB_SIZE:
        raise BadIndexError(
            f"the index of blob {blob} adds up to {chunks.size} bytes", expected=blob, key=key
        )
    if not chunks:
        raise BadIndexError(f"the index of blob {blob} lists no chunks", expected=blob, key=key)
    if len(chunks) == 1:
        if chunks[0].digest != blob:
            raise BadIndexError(
                f"the index of blob {blob} lists a single chunk with another digest, {chunks[0].digest}",
                expected=blob,
                found=chunks[0].digest,
                key=key,
            )
        return ()
    return chunks
