"""Packs: many chunks, and the indexes of blobs, in one file that is valid zstd.

Pure: bytes in, bytes or offsets out. All integers are little-endian. A pack is three parts in a row:

========  ===========================================================================================
header    a skippable frame (magic 0x184D2A5C) of 16 bytes: `CASPACK` and a byte 1, u32 version, u32 flags
body      frames, one for each chunk, without gaps as castore writes them; of a pack with records then a
          skippable frame (magic 0x184D2A5E) of 16 bytes that nobody has had before
footer    a skippable frame (magic 0x184D2A5D): *n* entries, *m* records, and a trailer
========  ===========================================================================================

An entry of the footer has 44 bytes: the digest of a chunk, then u32 offset in the pack, u32 length of the
frame, and u32 size of the chunk, 0 if it is not known. Entries are sorted by digest. A record is the digest
of a blob, u32 length, and so many bytes of its index; none for a blob of fewer than two chunks. The trailer
has 40 bytes: *n*, *m*, the length of the footer with the 8 bytes that begin a frame, and flags, as u32; the
first 16 bytes of the BLAKE3 of the footer up to there; `CASPEND` and a byte 1.

A pack is named by the BLAKE3 of all of its bytes. What says that a record counts no more names the pack: one
that is put later, with the same records, must have another name.

Entries need not cover the body: what no entry names is waste.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
from blake3 import blake3

from castore.buffers import byte_view
from castore.digest import DIGEST_SIZE, B3Digest
from castore.errors import CorruptBlobError
from castore.format import blob_index, frames

if TYPE_CHECKING:
    from typing_extensions import Buffer

VERSION: Final = 1
"""What a reader knows; another version, or flags, it refuses."""

MOST_BYTES: Final = 1 << 30
"""How many bytes a pack has at most."""

MOST_ENTRIES: Final = 1_000_000
"""How many chunks a pack has at most, and how many blobs."""

ENTRY_SIZE: Final = 44
TRAILER_SIZE: Final = 40
HEADER_SIZE: Final = 24
"""The bytes of the header, with the 8 that begin a frame: where the first chunk is."""

LEAST_BYTES: Final = HEADER_SIZE + 8 + TRAILER_SIZE
"""How many bytes a pack has at least."""

_MAGIC: Final = struct.pack("<II8sII", 0x184D2A5C, 16, b"CASPACK\x01", VERSION, 0)
_FOOTER_MAGIC: Final = struct.pack("<I", 0x184D2A5D)
_NONCE: Final = struct.Struct("<II16s")
_NONCE_MAGIC: Final = 0x184D2A5E
_END: Final = b"CASPEND\x01"
_ENTRY: Final = struct.Struct("<32sIII")
_RECORD: Final = struct.Struct("<32sI")
_COUNTS: Final = struct.Struct("<IIII")
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

_DEAD_MAGIC: Final = b"CASDEAD\x01"
_DEAD_HEAD: Final = struct.Struct("<8sII16s")
_PAIR_SIZE: Final = 2 * DIGEST_SIZE
MOST_PAIRS: Final = 4096
"""How many records one object of the dead names at most."""


class PackDamageError(Exception):
    """Bytes are not the pack, or the part of one, that they should be; the message says in which way."""


class UnknownVersionError(PackDamageError):
    """Bytes are whole, and of a version of the format that this castore does not know."""


class ChunkEntry(NamedTuple):
    """Where a chunk is in a pack.

    Attributes:
        digest: That of the chunk.
        offset: Where its frame begins, from the start of the pack.
        length: How many bytes the frame has.
        size: How many bytes the chunk has, 0 if that is not known.
    """

    digest: bytes
    offset: int
    length: int
    size: int = 0


class BlobRecord(NamedTuple):
    """Where the index of a blob is in a pack.

    Attributes:
        digest: That of the blob.
        offset: Where its index begins, from the start of the pack.
        length: How many bytes that has; none for a blob of fewer than two chunks.
    """

    digest: bytes
    offset: int
    length: int


@attrs.frozen
class Footer:
    """What the end of a pack says of it.

    Attributes:
        entries: Its chunks, by their digests.
        records: Its blobs.
    """

    entries: Sequence[ChunkEntry]
    records: Sequence[BlobRecord]


class PackBuilder:
    """Puts a pack together in memory: frames in the order in which they are added."""

    def __init__(self) -> None:
        self._body = bytearray(_MAGIC)
        self._entries: dict[bytes, ChunkEntry] = {}

    @property
    def size(self) -> int:
        """How many bytes it has by now, without its footer."""
        return len(self._body)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[bytes]:
        """Go through the digests of its chunks."""
        return iter(self._entries)

    def add(self, digest: bytes, frame: bytes, size: int = 0) -> None:
        """Add a chunk as one frame; one that is there already is not added again."""
        if digest not in self._entries:
            start = len(self._body)
            # First: a fork in between leaves bytes that nobody names.
            self._body += frame
            self._entries[digest] = ChunkEntry(digest, start, len(frame), size)

    def add_all(self, other: PackBuilder) -> None:
        """Add all chunks of another one, in their order."""
        for entry in list(other._entries.values()):
            self.add(entry.digest, other._frame(entry), entry.size)

    def get(self, digest: bytes) -> bytes | None:
        """Return the frame of a chunk, `None` if it has not been added."""
        entry = self._entries.get(digest)
        return None if entry is None else self._frame(entry)

    def size_of(self, digest: bytes) -> int:
        """Return how many bytes a chunk has that has been added, 0 if that is not known."""
        return self._entries[digest].size

    def _frame(self, entry: ChunkEntry) -> bytes:
        return bytes(self._body[entry.offset : entry.offset + entry.length])

    def finish(self, blobs: Mapping[B3Digest, bytes], nonce: bytes = b"") -> FinishedPack:
        """Return the pack with the records of *blobs*, by their digests with their encoded indexes.

        *nonce* are 16 bytes that make its name one of its own, none if the same bytes may have the same name.
        """
        entries = sorted(self._entries.values())
        mark = _NONCE.pack(_NONCE_MAGIC, 16, nonce) if nonce else b""
        footer = encode_footer(entries, blobs)
        name = B3Digest(blake3(self._body).update(mark).update(footer).digest())
        start = len(self._body) + len(mark) + 8 + len(entries) * ENTRY_SIZE
        records = []
        for digest, index in blobs.items():
            start += _RECORD.size
            records.append(BlobRecord(bytes(digest), start, len(index)))
            start += len(index)
        pieces = (self._body, mark, footer) if mark else (self._body, footer)
        return FinishedPack(name, pieces, Footer(entries, records))


@attrs.frozen
class FinishedPack:
    """A pack that is to be stored.

    Attributes:
        digest: Its name.
        pieces: Its bytes.
        footer: What it has.
    """

    digest: B3Digest
    pieces: Sequence[Buffer]
    footer: Footer

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return sum(len(byte_view(piece)) for piece in self.pieces)


def encode_footer(entries: Iterable[ChunkEntry], blobs: Mapping[B3Digest, bytes]) -> bytes:
    """Return the footer of a pack; *entries* are sorted by digest, which the caller sees to."""
    parts = [_ENTRY.pack(*entry) for entry in entries]
    count = len(parts)
    for digest, index in blobs.items():
        parts += (_RECORD.pack(digest, len(index)), index)
    length = 8 + sum(map(len, parts)) + TRAILER_SIZE
    parts.insert(0, _FOOTER_MAGIC + struct.pack("<I", length - 8))
    parts.append(_COUNTS.pack(count, len(blobs), length, 0))
    footer = b"".join(parts)
    return footer + blake3(footer).digest()[:16] + _END


def _unknown(version: int, flags: int) -> UnknownVersionError:
    return UnknownVersionError(
        f"it is of version {version} with flags {flags}, and this castore reads version {VERSION}:"
        " use a newer castore"
    )


def footer_length(tail: bytes, pack_size: int) -> int:
    """Return how long the footer is of a pack of *pack_size* bytes that ends with *tail*.

    Raises `PackDamageError` if that is no end of a pack.
    """
    if len(tail) < TRAILER_SIZE or pack_size < LEAST_BYTES or tail[-8:] != _END:
        raise PackDamageError("it does not end as a pack does")
    entries, blobs, length, _ = _COUNTS.unpack_from(tail, len(tail) - TRAILER_SIZE)
    if max(entries, blobs) > MOST_ENTRIES:
        raise PackDamageError("its footer counts more chunks or blobs than a pack has")
    least = 8 + entries * ENTRY_SIZE + blobs * _RECORD.size + TRAILER_SIZE
    if not least <= length <= pack_size - HEADER_SIZE:
        raise PackDamageError("its footer cannot be as long as it says")
    return int(length)


def decode_footer(footer: bytes, pack_size: int) -> Footer:
    """Read the footer of a pack of *pack_size* bytes, and check all that it says.

    Raises `PackDamageError` if anything of it cannot be right.
    """
    length = footer_length(footer, pack_size)
    if length != len(footer) or footer[:4] != _FOOTER_MAGIC:
        raise PackDamageError("its footer does not begin where it says")
    if int.from_bytes(footer[4:8], "little") != length - 8:
        raise PackDamageError("its footer says two lengths")
    if blake3(footer[:-24]).digest()[:16] != footer[-24:-8]:
        raise PackDamageError("its footer is damaged")
    count, blobs, _, flags = _COUNTS.unpack_from(footer, length - TRAILER_SIZE)
    if flags:
        raise _unknown(VERSION, flags)
    body_end = pack_size - length
    end = 8 + count * ENTRY_SIZE
    entries = [ChunkEntry._make(fields) for fields in _ENTRY.iter_unpack(footer[8:end])]
    before = b""
    for entry in entries:
        if entry.digest <= before:
            raise PackDamageError("its chunks are not in order")
        before = entry.digest
        if not (entry.offset >= HEADER_SIZE and 0 < entry.length <= body_end - entry.offset):
            raise PackDamageError("a chunk is not within it")
    return Footer(entries, list(_records(footer, end, blobs, body_end)))


def _records(footer: bytes, start: int, count: int, before: int) -> Iterator[BlobRecord]:
    stop = len(footer) - TRAILER_SIZE
    for _ in range(count):
        if start + _RECORD.size > stop:
            raise PackDamageError("its records are cut short")
        digest, length = _RECORD.unpack_from(footer, start)
        start += _RECORD.size
        if length > min(stop - start, blob_index.MAX_ENCODED_SIZE):
            raise PackDamageError("the index of a blob is longer than it can be")
        yield BlobRecord(digest, before + start, length)
        start += length
    if start != stop:
        raise PackDamageError("its footer has more than it says")


def recover(read_at: Callable[[int, int], bytes], size: int) -> Iterator[ChunkEntry]:
    """Yield the chunks of a pack of *size* bytes by its frames alone, without a look at its footer.

    *read_at* returns some bytes from an offset, fewer only at the end. A frame that cannot be unpacked is
    passed over; the records of blobs cannot be had in this way.
    """
    position = HEADER_SIZE
    while position < size:
        head = read_at(position, 8)
        if head[:4] != _ZSTD_MAGIC:
            if len(head) == 8 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
                # A footer, or what others have put between the chunks.
                position += 8 + int.from_bytes(head[4:8], "little")
                continue
            position = _next_frame(read_at, position + 1, size)
            continue
        length = frames.outline(partial(_read_from, read_at, position), size - position)
        frame = b"" if length is None else read_at(position, length)
        data = _unpacked(frame) if len(frame) == length else None
        if data is None:
            position = _next_frame(read_at, position + 1, size)
            continue
        yield ChunkEntry(B3Digest.of(data), position, len(frame), len(data))
        position += len(frame)


def _read_from(read_at: Callable[[int, int], bytes], start: int, offset: int, count: int) -> bytes:
    return read_at(start + offset, count)


def _next_frame(read_at: Callable[[int, int], bytes], start: int, size: int) -> int:
    """Return where the next frame may begin, from *start* on; *size* if none does."""
    step = 1 << 16
    while start < size:
        piece = read_at(start, step + 3)
        found = piece.find(_ZSTD_MAGIC)
        if found >= 0:
            return start + found
        if len(piece) <= 3:
            break
        start += min(step, len(piece) - 3)
    return size


def _unpacked(frame: bytes) -> bytes | None:
    """Return what a frame unpacks to, `None` if it is damaged, or nothing that a chunk can be."""
    try:
        data = frames.unpack(frame)
    except CorruptBlobError:
        return None
    return data or None


# -- the dead --


def encode_dead(pairs: Iterable[tuple[bytes, bytes]], nonce: bytes) -> bytes:
    """Return the object that says which records count no more: pairs of a pack's name and a blob's digest.

    *nonce* are 16 bytes that make its name one of its own.
    """
    return _DEAD_HEAD.pack(_DEAD_MAGIC, VERSION, 0, nonce) + b"".join(
        pack + blob for pack, blob in sorted(pairs)
    )


def decode_dead(data: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Return the pairs of such an object; raises `PackDamageError` for what is none."""
    if len(data) < _DEAD_HEAD.size or (len(data) - _DEAD_HEAD.size) % _PAIR_SIZE:
        raise PackDamageError("it is cut short")
    magic, version, flags, _ = _DEAD_HEAD.unpack_from(data)
    if magic != _DEAD_MAGIC:
        raise PackDamageError("it does not begin as it should")
    if version != VERSION or flags:
        raise _unknown(version, flags)
    return [
        (data[start : start + DIGEST_SIZE], data[start + DIGEST_SIZE : start + _PAIR_SIZE])
        for start in range(_DEAD_HEAD.size, len(data), _PAIR_SIZE)
    ]


MOST_DEAD_BYTES: Final = _DEAD_HEAD.size + MOST_PAIRS * _PAIR_SIZE
"""How many bytes such an object has at most."""
