"""What the bundled backends do alike: which list of chunks stays, and which blob is claimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, ChunkMeta, from_url
from castore.contract.capabilities import ChunkStore
from castore.metrics.shell import bare
from castore.testing import CHUNKS

URLS = [
    "memory:",
    "objectstore+memory:",
    "objectstore+file:{}/folder",
    "packed+file:{}/packs",
    "packed+file:{}/packs?durability=process",
    "sqlite:{}/blobs.sqlite",
    "sqlite:{}/blobs.sqlite?durability=process",
]

PARTS = {chunk.digest: chunk.data for chunk in CHUNKS}
A, B, C = (chunk.meta for chunk in CHUNKS[:3])
AB, BA = [A, B], [B, A]
BLOB = B3Digest.of(CHUNKS[0].data + CHUNKS[1].data)


@pytest.fixture(params=URLS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with from_url(request.param.format(tmp_path)) as service:
        store = service.capability(ChunkStore)
        assert store is not None
        yield bare(service)


def fill(store: Any, chunks: list[ChunkMeta], listed: list[ChunkMeta] | None) -> None:
    """Put some chunks, and perhaps a list."""
    store.put_chunks({meta.digest: PARTS[meta.digest] for meta in chunks})
    if listed is not None:
        store.put_index(BLOB, listed)


# What is listed, which chunks are there, and the list that is put.
LISTS = {
    "the same": (AB, AB, AB),
    "another that may be right, too": (BA, AB, AB),
    "another of which a chunk is missing": (BA, [A], AB),
    "another of another size": ([A, B, C], [A, B, C], AB),
    "a single chunk that is missing": ([], AB, AB),
    "several of which one is missing, where a single one is put": (AB, [A], []),
    "several where a single one is put": (AB, AB, []),
}


@pytest.mark.parametrize("case", LISTS)
def test_the_last_list_counts(store: Any, case: str) -> None:
    """Who puts it knows that its chunks make up the blob; of the one that is there nobody knows that."""
    there, kept, put = LISTS[case]
    fill(store, kept, there)
    store.put_index(BLOB, put)
    assert list(store.chunks(BLOB)) == put


# What is listed, which chunks are there, the list that the claim is made with, and whether it succeeds.
CLAIMS: dict[str, tuple[list[ChunkMeta] | None, list[ChunkMeta], list[ChunkMeta] | None, bool]] = {
    "all of it": (AB, AB, AB, True),
    "all of it, the list not being known": (AB, AB, None, True),
    "another list": (BA, AB, AB, False),
    "a chunk is missing": (AB, [A], AB, False),
    "a chunk is missing, the list not being known": (AB, [A], None, False),
    "its list is missing": (None, AB, AB, False),
    "its list is missing, and not known": (None, AB, None, False),
    "a single chunk that is missing": ([], AB, [], False),
    "a single chunk that is missing, which is not known": ([], AB, None, False),
    "nothing": (None, [], None, False),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_blob_is_claimed_if_all_of_it_is_there(store: Any, case: str) -> None:
    """One of those that are asked for together; the others do not matter."""
    there, kept, known, whole = CLAIMS[case]
    fill(store, kept, there)
    small = store.write(b"small")
    absent = B3Digest.of(b"absent")
    claimed = store.claim_blobs({absent: (), BLOB: known, small: ()})
    assert claimed == ({BLOB, small} if whole else {small})
    store.put_indexes({})


def test_a_chunk_alone_is_no_blob(store: Any) -> None:
    """Its index has to be put."""
    store.put_chunks({A.digest: PARTS[A.digest]})
    assert store.claim_blobs({A.digest: ()}) == store.claim_blobs({A.digest: None}) == set()
    store.put_index(A.digest, ())
    assert store.claim_blobs({A.digest: ()}) == store.claim_blobs({A.digest: None}) == {A.digest}
