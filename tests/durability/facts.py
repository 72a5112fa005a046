"""What must be true of a store after whatever has happened to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from castore import B3Digest, CastoreError
from castore.format import blob_index, frames
from castore.threads.pool import Pool
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

RESIDUE = re.compile(r"(blobs|chunks)/b3/[0-9a-f]{4}/[0-9a-f]{64}#[0-9]+")


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def faults_in(files: dict[str, bytes]) -> list[str]:
    """Say what is wrong with the files of a store, without its service; temporary files are not wrong."""
    faults = []
    for name, data in files.items():
        kind, _, digest = name.partition("/")[0], None, name.rpartition("/")[2]
        if RESIDUE.fullmatch(name) or kind == "leases" or (name, data) == ("castore.lock", b""):
            continue
        try:
            expected = B3Digest.parse(digest)
            if name != f"{kind}/b3/{digest[:4]}/{digest}" or kind not in {"blobs", "chunks"}:
                faults.append(f"{name} is neither an index nor a chunk")
            elif kind == "chunks":
                frames.decode_chunk(data, expected)
            else:
                faults += faults_of_blob(expected, data, files)
        except (CastoreError, ValueError) as error:
            faults.append(f"{name}: {error}")
    return faults


def faults_of_blob(digest: B3Digest, index: bytes, files: dict[str, bytes]) -> Iterable[str]:
    """Read a blob by its index."""
    metas = blob_index.decode(index, digest)
    names = [meta.digest for meta in metas] or ([digest] if digest != B3Digest.of(b"") else [])
    parts = []
    for name in names:
        frame = files.get(f"chunks/b3/{name.hex()[:4]}/{name.hex()}")
        if frame is None:
            yield f"blob {digest}: chunk {name} is missing"
            return
        parts.append(frames.decode_chunk(frame, name))
    if B3Digest.of(b"".join(parts)) != digest:
        yield f"blob {digest}: its chunks make up another"


def service_on(folder: Path, **options: object) -> ObjectStoreBlobService:
    """A service over a folder, with small chunks and no threads of its own."""
    store = LocalObjectStore(folder, instance="files", **options)  # type: ignore[arg-type]
    return ObjectStoreBlobService(store, avg_chunk_size=1024, pool=Pool(0))
