"""A cache of a cache of a cache: the end of the chain is asked a few times, whatever is wrong there."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, CastoreError, Composition
from castore.contract.capabilities import ChunkSource
from castore.metrics.shell import bare

BIG: Final = random.Random(1).randbytes(1_500_000)
SMALL: Final = b"small"
ABSENT: Final = B3Digest.of(b"absent")
MEMORY: Final = {"type": "memory"}


def caches(depth: int, **options: Any) -> dict[str, Any]:
    names = ["root", *(f"cache{number}" for number in range(1, depth)), "far"]
    tables: dict[str, Any] = {"far": MEMORY}
    for number in range(depth):
        tables[f"near{number}"] = MEMORY
        near, far = f"&near{number}", f"&{names[number + 1]}"
        tables[names[number]] = {"type": "cache", "near": near, "far": far, **options}
    return tables


def wrappers(depth: int) -> dict[str, Any]:
    names = ["root", *(f"layer{number}" for number in range(1, depth)), "far"]
    return {"far": MEMORY} | {
        names[number]: {"type": "verify", "inner": f"&{names[number + 1]}"} for number in range(depth)
    }


CHAINS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "caches of chunks": caches,
    "caches of blobs": lambda depth: caches(depth, fill="blob"),
    "caches that keep nothing": lambda depth: caches(depth, fill="none"),
    "verify": wrappers,
}


def read_part(service: BlobService, digest: B3Digest) -> None:
    with service.open(digest) as reader:
        reader.seek(500_000)
        reader.read(500_000)


def get_chunks(service: BlobService, digest: B3Digest) -> None:
    source = service.capability(ChunkSource)
    assert source is not None
    source.get_chunks({meta.digest: meta.size for meta in service.chunks(digest) or ()})


WORKS: Final[dict[str, Callable[[BlobService, B3Digest], object]]] = {
    "has": lambda service, _: service.has(ABSENT),
    "open what is absent": lambda service, _: service.open_read(ABSENT),
    "read a small one": lambda service, _: service.read(B3Digest.of(SMALL)),
    "read": lambda service, digest: service.read(digest),
    "read a part": read_part,
    "get chunks": get_chunks,
}


def right(stores: list[Any], digest: B3Digest) -> None:
    pass


def lose_a_chunk(stores: list[Any], digest: B3Digest) -> None:
    far = stores[-1]
    del far._chunks[far.chunks(digest)[2].digest]


def spoil_a_list(stores: list[Any], digest: B3Digest) -> None:
    far = stores[-1]
    far._indexes[digest] = tuple(reversed(far.chunks(digest)))


def lose_it_with_all_lists(stores: list[Any], digest: B3Digest) -> None:
    """Each near has the list, and nobody a chunk of it."""
    far = stores[-1]
    for near in stores[:-1]:
        near._indexes[digest] = far.chunks(digest)
    lose_a_chunk(stores, digest)


HARMS: Final = {
    "right": right,
    "a chunk is lost": lose_a_chunk,
    "the list is wrong": spoil_a_list,
    "a chunk is lost, and all have the list": lose_it_with_all_lists,
}


def calls_of(chain: str, work: str, harm: str, depth: int) -> int:
    """Return how many calls come to the end of a chain."""
    with Composition.from_mapping({"blobservices": CHAINS[chain](depth)}) as composition:
        far, root = composition.blobs("far"), composition.blobs()
        far.write(SMALL)
        digest = far.write(BIG)
        names = ["far"] if chain == "verify" else [*(f"near{number}" for number in range(depth)), "far"]
        HARMS[harm]([bare(composition.blobs(name)) for name in names], digest)

        def count() -> int:
            return sum(entry.calls for entry in composition.metrics()["far"].operations.values())

        before = count()
        with contextlib.suppress(CastoreError):
            WORKS[work](root, digest)
        return count() - before


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_end_of_a_chain_is_asked_in_proportion_to_its_length(chain: str, harm: str) -> None:
    """If each layer let those beneath it try everything twice, six made 16 times as many calls as two."""
    for work in WORKS:
        if harm == "right" or work in ("read", "read a part"):
            few, many = (calls_of(chain, work, harm, depth) for depth in (2, 6))
            assert many <= 4 * few, f"{work}: {few} calls of two layers, {many} of six"
