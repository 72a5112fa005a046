"""A store of files looks at its folder once for many objects, and for each answer that it gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import pytest

from castore import B3Digest, Composition
from castore.contract.capabilities import ChunkStore
from castore.errors import CastoreError, UnavailableError
from castore.places import KeptFolder
from castore_objectstore.local import LocalObjectStore

DATA = [bytes([n, n]) for n in range(100)]
DIGESTS = [B3Digest.of(data) for data in DATA]


def open_store(folder: Path, durability: str = "process") -> Composition:
    return Composition.from_mapping(
        {
            "blobservices": {
                "root": {
                    "type": "objectstore",
                    "object_store_url": f"file:{folder}",
                    "durability": durability,
                }
            }
        }
    )


def store_of(composition: Composition) -> ChunkStore:
    store = composition.blobs().capability(ChunkStore)
    assert store is not None
    return store


@pytest.mark.parametrize("durability", ["process", "full"])
def test_one_look_serves_for_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Literal["process", "full"]
) -> None:
    looks = 0
    require = KeptFolder.require

    def count(place: KeptFolder) -> bool:
        nonlocal looks
        looks += 1
        return require(place)

    monkeypatch.setattr(KeptFolder, "require", count)
    with open_store(tmp_path / "store", durability) as composition:
        store = store_of(composition)
        blobs: dict[B3Digest, list[object]] = {digest: [] for digest in DIGESTS}
        calls: list[Callable[[], object]] = [
            lambda: store.claim(DIGESTS),
            lambda: store.put_chunks(dict(zip(DIGESTS, DATA, strict=True))),
            lambda: store.put_indexes(blobs),  # type: ignore[arg-type]
            lambda: store.claim_blobs(dict.fromkeys(DIGESTS)),
            lambda: store.find_chunks([B3Digest.of(b"absent %d" % n) for n in range(100)]),
            lambda: store.get_chunks({B3Digest.of(b"absent %d" % n): None for n in range(100)}),
        ]
        for number, call in enumerate(calls):
            looks = 0
            call()
            assert looks <= 6, number


@pytest.mark.parametrize("question", ["find_chunks", "claim", "missing", "get_chunks"])
def test_a_folder_that_goes_in_the_middle_of_a_batch_makes_nothing_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """What was found before counts as little: whoever asks again gets the right answer."""
    folder = tmp_path / "store"
    with open_store(folder) as composition:
        root = composition.blobs()
        store = store_of(composition)
        for data in DATA:
            root.write(data)
        asked = 0
        for name in ("exists", "_look_at", "get"):
            real = getattr(LocalObjectStore, name)

            def go(
                objects: LocalObjectStore, *arguments: object, real: Callable[..., object] = real
            ) -> object:
                nonlocal asked
                asked += 1
                if asked == 50:
                    folder.rename(tmp_path / "elsewhere")
                    folder.mkdir()
                return real(objects, *arguments)

            monkeypatch.setattr(LocalObjectStore, name, go)
        questions: dict[str, Callable[[Iterable[B3Digest]], object]] = {
            "find_chunks": store.find_chunks,
            "claim": store.claim,
            "missing": root.missing,
            "get_chunks": lambda digests: store.get_chunks(dict.fromkeys(digests)),
        }
        with pytest.raises(UnavailableError, match="Another folder is here than before"):
            questions[question](DIGESTS)
        monkeypatch.undo()
        folder.rmdir()
        (tmp_path / "elsewhere").rename(folder)
        assert not root.missing(DIGESTS)


def test_what_is_put_while_the_folder_is_replaced_is_not_said_to_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    with open_store(folder) as composition:
        root = composition.blobs()
        root.write(b"before")
        put = LocalObjectStore.put
        puts = 0

        def go(objects: LocalObjectStore, key: str, data: bytes) -> None:
            nonlocal puts
            puts += 1
            if puts == 50:
                shutil.move(folder, tmp_path / "elsewhere")
                folder.mkdir()
            put(objects, key, data)

        monkeypatch.setattr(LocalObjectStore, "put", go)
        with pytest.raises(CastoreError, match="Another folder is here than before"):
            store_of(composition).put_chunks(dict(zip(DIGESTS, DATA, strict=True)))
