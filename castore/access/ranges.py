"""Many ranges of one blob, of which each chunk is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from castore.contract.batches import MOST_BYTES, MOST_ITEMS
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.contract.chunk_list import ChunkList
from castore.digest import B3Digest


def read_ranges(blobs: BlobService, digest: B3Digest, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes of each range, from its begin up to its end, or the end of the blob.

    Chunks are asked for many at a time. Where one cannot be had so, the blob's reader is asked, which knows
    more ways. Raises what that raises.
    """
    source = blobs.capability(ChunkSource)
    chunks = None if source is None else blobs.chunks(digest)
    if source is not None and chunks:
        found = _by_chunks(source, ChunkList.of(chunks), ranges)
        if found is not None:
            return found
    return _by_reader(blobs, digest, ranges)


def _by_chunks(
    source: ChunkSource, chunks: ChunkList, ranges: Sequence[tuple[int, int]]
) -> list[bytes] | None:
    clipped = [(begin, min(end, chunks.size)) for begin, end in ranges]
    users: dict[int, list[int]] = {}
    for number, (begin, end) in enumerate(clipped):
        first, last = chunks.index_at(begin), chunks.index_at(end - 1)
        if begin < end and first is not None and last is not None:
            for index in range(first, last + 1):
                users.setdefault(index, []).append(number)
    parts: list[list[bytes]] = [[] for _ in ranges]
    for batch in _batches(chunks, sorted(users)):
        found = source.get_chunks({meta.digest: meta.size for _, meta in batch})
        for index, meta in batch:
            data = found.get(meta.digest)
            if not isinstance(data, bytes) or len(data) != meta.size:
                return None
            start = chunks.offsets[index]
            for number in users[index]:
                begin, end = clipped[number]
                parts[number].append(data[max(begin - start, 0) : end - start])
    return [b"".join(each) for each in parts]


def _batches(chunks: ChunkList, indexes: Sequence[int]) -> Iterator[list[tuple[int, ChunkMeta]]]:
    batch: list[tuple[int, ChunkMeta]] = []
    size = 0
    for index in indexes:
        meta = chunks[index]
        if batch and (len(batch) == MOST_ITEMS or size + meta.size > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((index, meta))
        size += meta.size
    if batch:
        yield batch


def _by_reader(blobs: BlobService, digest: B3Digest, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    found = [b""] * len(ranges)
    with blobs.open(digest) as reader:
        for number in sorted(range(len(ranges)), key=lambda number: ranges[number]):
            begin, end = ranges[number]
            if begin < min(end, reader.size):
                reader.seek(begin)
                found[number] = reader.read(end - begin)
    return found
