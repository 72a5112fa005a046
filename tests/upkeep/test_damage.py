"""Random damage to a store: all of it is found, nothing is invented, all is mended, and no read is wrong.

1,000 damages in the usual run; `CASTORE_DAMAGES=10000` in the long one, and `CASTORE_DAMAGE_SEED` for others.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from castore import B3Digest, BlobService, CastoreError, ChunkMeta
from castore.format import blob_index
from castore.format.frames import decode_chunk
from castore.threads.pool import Pool
from castore.upkeep import Finding, copy, repair, verify
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

DAMAGES = int(os.environ.get("CASTORE_DAMAGES", "1000"))
SEED = int(os.environ.get("CASTORE_DAMAGE_SEED", "1"))
PER_ROUND = 100
BLOBS = 500

Index = tuple[ChunkMeta, ...]


def digest_of(path: Path) -> B3Digest:
    return B3Digest.parse(path.name)


def is_chunk(path: Path) -> bool:
    return path.parts[-4] == "chunks"


@attrs.define
class Store:
    """A store in a folder whose files can be damaged, and what they were before."""

    folder: Path
    blobs: dict[B3Digest, bytes]
    pristine: dict[Path, bytes]
    indexes: dict[B3Digest, Index]
    rng: random.Random

    # -- the truth --

    def is_right(self, path: Path) -> bool:
        """Tell whether a file says what it said; it may do so in other bytes."""
        if not path.exists():
            return False
        data, digest = path.read_bytes(), digest_of(path)
        try:
            if is_chunk(path):
                decode_chunk(data, digest)
                return True
            return blob_index.decode(data, digest) == self.indexes[digest]
        except CastoreError:
            return False

    def damaged(self) -> set[Path]:
        return {path for path in self.pristine if not self.is_right(path)}

    def quarantined(self) -> set[bytes]:
        return {path.read_bytes() for path in (self.folder / "quarantine").rglob("*") if path.is_file()}

    def chunks_of(self, blob: B3Digest) -> set[B3Digest]:
        return {meta.digest for meta in self.indexes[blob]} or {blob}

    # -- damage --

    def damage(self) -> bool:
        """Do something bad to a random file; return whether it is any damage."""
        kind = self.rng.choice([self.flip, self.truncate, self.swap, self.delete, self.edit, self.edit])
        path = self.rng.choice(self.paths)
        return path.exists() and kind(path) and not self.is_right(path)

    @property
    def paths(self) -> list[Path]:
        return list(self.pristine)

    def flip(self, path: Path) -> bool:
        data = bytearray(path.read_bytes())
        if data:
            bit = self.rng.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
        return bool(data)

    def truncate(self, path: Path) -> bool:
        data = path.read_bytes()
        if data:
            path.write_bytes(data[: self.rng.randrange(len(data))])
        return bool(data)

    def swap(self, path: Path) -> bool:
        other = self.rng.choice(self.paths)
        if not other.exists():
            return False
        mine, its = path.read_bytes(), other.read_bytes()
        path.write_bytes(its)
        other.write_bytes(mine)
        return True

    def delete(self, path: Path) -> bool:
        path.unlink()
        return True

    def edit(self, path: Path) -> bool:
        """Change an index so that it still is one."""
        blob = digest_of(path)
        if is_chunk(path):
            return False
        chunks = list(self.indexes[blob]) or [ChunkMeta(blob, 700)]
        position = self.rng.randrange(len(chunks))
        meta = chunks[position]
        change = self.rng.randrange(8)
        if change == 0:
            del chunks[position]
        elif change == 1:
            chunks.insert(self.rng.randrange(len(chunks) + 1), meta)
        elif change == 2:
            self.rng.shuffle(chunks)
        elif change == 3:
            chunks[position] = attrs.evolve(meta, size=meta.size + self.rng.choice([-1, 1, 1000]) or 1)
        elif change == 4:
            chunks[position] = attrs.evolve(meta, digest=B3Digest(self.rng.randbytes(32)))
        elif change == 5:
            chunks[position] = self.any_chunk()
        elif change == 6:
            chunks.append(self.any_chunk())
        else:
            path.write_bytes(self.rng.randbytes(self.rng.randrange(1, 80)))
            return True
        path.write_bytes(blob_index.encode(chunks))
        return True

    def any_chunk(self) -> ChunkMeta:
        """Another chunk of the store, of its true size."""
        return self.rng.choice(self.rng.choice([index for index in self.indexes.values() if index]))


def make_blobs(rng: random.Random) -> Iterator[bytes]:
    """Small ones, empty ones, long ones, and some that have much in common."""
    common = rng.randbytes(6000)
    yield b""
    for number in range(BLOBS - 1):
        size = rng.choice([20, 100, 700, 3000, 8000])
        shared = common[: rng.randrange(len(common))] if number % 3 == 0 else b""
        yield shared + rng.randbytes(size)


def open_store(folder: Path) -> ObjectStoreBlobService:
    local = LocalObjectStore(folder, instance=folder.name, durability="process")
    return ObjectStoreBlobService(local, avg_chunk_size=1024, pool=Pool(0))


@pytest.fixture
def service(tmp_path: Path) -> ObjectStoreBlobService:
    return open_store(tmp_path / "here")


@pytest.fixture
def other(service: BlobService, tmp_path: Path, store: Store) -> BlobService:
    """A copy of everything."""
    other = open_store(tmp_path / "there")
    copy(service, other, pool=Pool(0))
    return other


@pytest.fixture
def store(service: ObjectStoreBlobService, tmp_path: Path) -> Store:
    rng = random.Random(SEED)
    blobs = {service.write(data): data for data in make_blobs(rng)}
    assert len(blobs) == BLOBS
    folder = tmp_path / "here"
    pristine = {
        path: path.read_bytes()
        for top in ("blobs", "chunks")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }
    indexes = {blob: tuple(service.chunks(blob) or ()) for blob in blobs}
    assert any(indexes.values())
    return Store(folder, blobs, pristine, indexes, rng)


@pytest.fixture
def check_read(service: BlobService, store: Store) -> Callable[[B3Digest], None]:
    def check(digest: B3Digest) -> None:
        try:
            data = service.read(digest)
        except CastoreError:
            return
        assert data == store.blobs[digest]

    return check


def check_findings(store: Store, findings: list[Finding]) -> None:
    """Each damage has a finding, and each finding has a damage."""
    damaged = store.damaged()
    chunks = {digest_of(path) for path in damaged if is_chunk(path)}
    indexes = {digest_of(path) for path in damaged if not is_chunk(path)}
    affected = indexes | {
        blob for blob in store.blobs if store.chunks_of(blob) & chunks and store.blobs[blob]
    }
    known = {digest_of(path) for path in store.pristine if is_chunk(path)}

    found_chunks = {finding.digest: finding for finding in findings if finding.what == "chunk"}
    found_indexes = {finding.digest for finding in findings if finding.what == "index"}
    found_blobs = {finding.digest for finding in findings if finding.what == "blob"}
    assert len({(finding.what, finding.digest) for finding in findings}) == len(findings)

    # None missed. No trace is left of a chunk that was deleted with the indexes of all its blobs damaged.
    assert found_indexes | found_blobs == affected
    for digest in chunks - found_chunks.keys():
        assert not (store.folder / f"chunks/b3/{digest.hex()[:4]}/{digest.hex()}").exists()
        assert {blob for blob in store.blobs if digest in store.chunks_of(blob)} <= indexes
    # None invented. A chunk that never was is missing because an index is wrong.
    assert found_indexes <= indexes
    for digest, finding in found_chunks.items():
        assert digest in chunks or (digest not in known and finding.blob in indexes)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_damage_is_found_and_mended(
    service: BlobService, other: BlobService, store: Store, check_read: Callable[[B3Digest], None]
) -> None:
    """Also while the repair is at work, a read gives the right bytes or an error of castore."""
    assert verify(service, expected=store.blobs, pool=Pool(0)).findings == []
    done = 0
    while done < DAMAGES:
        for _ in range(min(PER_ROUND, DAMAGES - done)):
            while not store.damage():
                pass
            done += 1
        before = {path: path.read_bytes() for path in store.damaged() if path.exists()}

        findings = verify(service, expected=store.blobs, pool=Pool(2)).findings

        check_findings(store, findings)
        for digest in store.blobs:
            check_read(digest)
        for mending in repair(service, other, findings):
            assert mending.mended, mending
            check_read(mending.finding.digest if mending.finding.digest in store.blobs else digest)
        assert store.damaged() == set()
        for digest, data in store.blobs.items():
            assert service.read(digest) == data
        quarantine = {
            path.read_bytes() for path in (store.folder / "quarantine").rglob("*") if path.is_file()
        }
        assert set(before.values()) <= quarantine
    assert verify(service, expected=store.blobs, pool=Pool(0)).findings == []
