"""What a program that uses castore sees of its types: run by mypy alone, and strictly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import castore
from castore import aio
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.upkeep import CopyCounts, copy


def synchronous(path: Path) -> None:
    with castore.open("composition.toml") as stores:
        assert_type(stores, castore.Composition)
        blobs = assert_type(stores.blobs(), castore.BlobService)
    digest = assert_type(blobs.put_file(path), castore.B3Digest)
    with blobs.open(digest) as reader:
        assert_type(reader, castore.BlobReader)
        assert_type(reader.read(5), bytes)
        assert_type(reader.size, int)
    assert_type(blobs.open_read(digest), castore.BlobReader | None)
    assert_type(blobs.read(digest), bytes)
    assert_type(blobs.has(digest), bool)
    assert_type(blobs.missing([digest]), set[castore.B3Digest])
    assert_type(blobs.chunks(digest), Sequence[castore.ChunkMeta] | None)
    assert_type(list(blobs.put_files([path])), list[castore.B3Digest | castore.SourceError])
    with blobs.open_write() as writer:
        assert_type(writer, castore.BlobWriter)
        assert_type(writer.close(), castore.B3Digest)
    assert_type(blobs.capability(BlobLister), BlobLister | None)
    assert_type(blobs.capability(ChunkStore), ChunkStore | None)
    assert_type(stores.build(castore.BlobService, "root"), castore.BlobService)
    assert_type(castore.from_url("memory:"), castore.BlobService)
    assert_type(castore.open(search=False), castore.Composition)
    assert_type(castore.B3Digest.parse("00"), castore.B3Digest)
    counts, _ = copy(blobs, blobs)
    assert_type(counts, CopyCounts)


async def asynchronous(other: aio.AsyncBlobService, digest: castore.B3Digest) -> None:
    async with aio.open("composition.toml", search=False) as stores:
        blobs = assert_type(await stores.blobs(), aio.AsyncBlobService)
    async with await blobs.open(digest) as reader:
        assert_type(reader, aio.AsyncBlobReader)
        assert_type(await reader.read(5), bytes)
    assert_type(await blobs.read(digest), bytes)

    # Nothing that is called on a thread forgets what it returns, or what it takes.
    assert_type(await blobs.call(lambda service: service.has(digest)), bool)
    assert_type(await blobs.call(lambda service: service.chunks(digest)), Sequence[castore.ChunkMeta] | None)
    assert_type(await blobs.call(named, "x"), str)
    assert_type(await blobs.call(named, name="x"), str)
    assert_type(await blobs.call(both, other), bool)
    assert_type(await blobs.call(both, other, strict=True), bool)
    counts, _ = await blobs.call(copy, other, [digest])
    assert_type(counts, CopyCounts)
    await blobs.call(named, 3)  # type: ignore[call-overload]
    await blobs.call(named)  # type: ignore[arg-type]
    await blobs.call(lambda service: service.no_such_method())  # type: ignore[attr-defined]


def named(service: castore.BlobService, name: str) -> str:
    return name


def both(one: castore.BlobService, two: castore.BlobService, *, strict: bool = False) -> bool:
    return strict


def many(blobs: castore.BlobService, digests: Iterator[castore.B3Digest]) -> None:
    for digest, answer in blobs.read_many(digests):
        assert_type(digest, castore.B3Digest)
        assert_type(answer, bytes | castore.BlobReader | castore.CastoreError | None)


class Config:
    """A plugin's: a reference is resolved to what it refers to."""

    inner: castore.Ref[castore.BlobService]

    def build(self, name: str, context: Any) -> castore.BlobService:
        return castore.from_url("memory:")
