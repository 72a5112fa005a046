"""Repair of a service from another one that has the same blobs.

What is to replace something is fetched and checked first; then what is damaged is moved into quarantine, and
then the other is put. So a reader never finds less than it would have found before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import attrs
from blake3 import blake3

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.contract.upkeep import Inventory, StoredItem
from castore.digest import B3Digest
from castore.errors import CastoreError, UnsupportedError
from castore.upkeep.findings import MISSING_INDEX, UNAVAILABLE, Finding
from castore.upkeep.reading import Attempts, read_blob, read_chunk

_FLUSH_AFTER: Final = 256
"""Chunks that are put before they are made durable."""


@attrs.frozen
class Mending:
    """What became of a finding.

    Attributes:
        finding: What was wrong.
        mended: Whether it is right now.
        message: How that came about, or why not.
        quarantine: Where the damaged one is now, if it was moved.
    """

    finding: Finding
    mended: bool
    message: str
    quarantine: str | None = None


class _CannotMendError(Exception):
    """Says why something stays as it is."""


def repair(
    service: BlobService,
    other: BlobService,
    findings: Sequence[Finding],
    *,
    name: str = "the other service",
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[Mending]:
    """Mend what a verification of *service* has found, with what *other* has; yield what became of each.

    Arguments:
        service: It must be able to set things aside (`Inventory`) and to take chunks (`ChunkStore`), else
            `UnsupportedError` is raised.
        other: Any service; it need not cut blobs alike. Nothing of it is believed without a check.
        findings: As `verify` returns them.
        name: What to call *other* in messages.
        progress: Called with the number of bytes that were fetched since the last call.

    Once the iterator has ended, what was mended is durable.
    """
    inventory, store = service.capability(Inventory), service.capability(ChunkStore)
    if inventory is None or store is None:
        raise UnsupportedError("this service cannot be repaired: it does not let single items be replaced")
    work = _Repair(service, inventory, store, other, name, progress)
    with store.hold():
        yield from work.run(findings)


@attrs.define(eq=False)
class _Repair:
    service: BlobService
    inventory: Inventory
    store: ChunkStore
    other: BlobService
    name: str
    progress: Callable[[int], object]
    _items: dict[tuple[str, B3Digest], StoredItem] = attrs.field(factory=dict)
    _moved: dict[tuple[str, B3Digest], str] = attrs.field(factory=dict)
    _put: int = 0

    @property
    def _here(self) -> Attempts:
        return Attempts(self.service)

    def run(self, findings: Sequence[Finding]) -> Iterator[Mending]:
        """Mend chunks first: blobs are rebuilt from them."""
        self._items = self._find_items(findings)
        late = []
        for finding in findings:
            if finding.code == UNAVAILABLE:
                yield Mending(finding, False, "it may be right: it could not be read")
            elif finding.what == "chunk":
                mending = self._attempt(finding, self._mend_chunk)
                if mending.mended or finding.blob is None:
                    yield mending
                else:
                    late.append(mending)
            else:
                late.append(Mending(finding, False, ""))
        self._flush()
        for mending in late:
            if mending.finding.what != "chunk":
                yield self._attempt(mending.finding, self._mend_blob)
        yield from (self._reconsidered(mending) for mending in late if mending.finding.what == "chunk")
        self._flush()

    def _find_items(self, findings: Sequence[Finding]) -> dict[tuple[str, B3Digest], StoredItem]:
        """Find those that are to be set aside: what a finding says is not enough to name them."""
        wanted = {(finding.what, finding.digest) for finding in findings if finding.what != "blob"}
        wanted |= {("index", finding.digest) for finding in findings if finding.what == "blob"}
        found = {}
        if wanted:
            for item in self.inventory.list_items():
                if item.digest is not None and (item.kind, item.digest) in wanted:
                    found[item.kind, item.digest] = item
        return {(str(kind), digest): item for (kind, digest), item in found.items()}

    def _attempt(self, finding: Finding, mend: Callable[[Finding], str]) -> Mending:
        kind: Literal["chunk", "index"] = "chunk" if finding.what == "chunk" else "index"
        try:
            message = mend(finding)
        except (CastoreError, _CannotMendError) as error:
            return Mending(finding, False, str(error), self._moved.get((kind, finding.digest)))
        return Mending(finding, True, message, self._moved.get((kind, finding.digest)))

    # -- chunks --

    def _mend_chunk(self, finding: Finding) -> str:
        if isinstance(self._here.chunk(finding.digest), bytes):
            return "it is right again"
        data = self._fetch_chunk(finding.digest, finding.blob)
        self._set_aside("chunk", finding.digest)
        self._put_chunk(finding.digest, data)
        return f"fetched from {self.name}"

    def _fetch_chunk(self, digest: B3Digest, blob: B3Digest | None) -> bytes:
        """Return the checked bytes of a chunk; where *other* cuts otherwise, a stretch of the blob."""
        data = read_chunk(self.other, self.other.capability(ChunkSource), digest)
        if data is None and blob is not None:
            data = self._cut_out(digest, blob)
        if data is None:
            raise _CannotMendError(f"{self.name} does not have it")
        self.progress(len(data))
        return data

    def _cut_out(self, digest: B3Digest, blob: B3Digest) -> bytes | None:
        offset = 0
        for meta in self.service.chunks(blob) or ():
            if meta.digest == digest:
                break
            offset += meta.size
        else:
            return None
        reader = self.other.open_read(blob)
        if reader is None:
            return None
        with reader:
            if offset + meta.size > reader.size:
                return None
            reader.seek(offset)
            data = reader.read(meta.size)
        return data if B3Digest.of(data) == digest else None

    def _put_chunk(self, digest: B3Digest, data: bytes) -> None:
        self.store.put_chunk(digest, data)
        self._put += 1
        if self._put % _FLUSH_AFTER == 0:
            self._flush()

    def _flush(self) -> None:
        """Make what was put durable: that is a part of putting indexes, also of none."""
        self.store.put_indexes(())

    def _set_aside(self, kind: Literal["chunk", "index"], digest: B3Digest) -> None:
        item = self._items.pop((kind, digest), None)
        if item is not None:
            self._moved[kind, digest] = self.inventory.set_aside(item)

    # -- blobs and their indexes --

    def _mend_blob(self, finding: Finding) -> str:
        digest = finding.digest
        if finding.code == MISSING_INDEX and read_blob(self.service, digest) is not None:
            self.store.put_index(digest, ())
            return "its chunk is right, and the index is there again"
        if self._is_right(digest):
            return "it is right again"
        chunks = self.other.chunks(digest)
        if chunks is None:
            raise _CannotMendError(f"{self.name} does not have the blob")
        if chunks:
            self._rebuild(digest, chunks)
        else:
            self._write_anew(digest)
        if not self._is_right(digest):
            raise _CannotMendError(f"it is still not right after it was rebuilt with what {self.name} has")
        return f"rebuilt with what {self.name} has"

    def _rebuild(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Put an index with the list of *other*; only chunks that are not here are fetched."""
        hasher = blake3()
        for meta in chunks:
            data = self._here.chunk(meta.digest)
            if data is not None and not isinstance(data, bytes) and ("chunk", meta.digest) not in self._items:
                raise _CannotMendError(f"chunk {meta.digest} is damaged, too, which was not checked")
            if not isinstance(data, bytes):
                data = self._fetch_chunk(meta.digest, None)
                self._set_aside("chunk", meta.digest)
                self._put_chunk(meta.digest, data)
            hasher.update(data)
            if len(data) != meta.size:
                raise _CannotMendError(f"the index that {self.name} has is wrong, too")
        if hasher.digest() != digest:
            raise _CannotMendError(f"the index that {self.name} has is wrong, too")
        self._set_aside("index", digest)
        self.store.put_index(digest, chunks)

    def _write_anew(self, digest: B3Digest) -> None:
        """Store a blob that *other* keeps whole; its index comes when the bytes are known to be right."""
        with self.service.open_write() as writer:

            def take(piece: memoryview) -> None:
                writer.write(piece)
                self.progress(len(piece))

            if read_blob(self.other, digest, take) is None:
                raise _CannotMendError(f"{self.name} does not have the blob")
            self._set_aside("index", digest)

    def _is_right(self, digest: B3Digest) -> bool:
        """Tell whether a blob can be read, and that by its index, not only by a chunk of the same digest."""
        chunks = self._here.index(digest)
        if not chunks:
            return chunks is not None and isinstance(self._here.blob(digest), int)
        if isinstance(chunks, CastoreError):
            return False
        hasher = blake3()
        for meta in chunks:
            data = self._here.chunk(meta.digest)
            if not isinstance(data, bytes) or len(data) != meta.size:
                return False
            hasher.update(data)
        return hasher.digest() == digest

    def _reconsidered(self, mending: Mending) -> Mending:
        """Call a chunk mended that was only missing because an index was wrong that is right now."""
        finding = mending.finding
        needed = finding.blob is None or not self._is_right(finding.blob)
        if needed or isinstance(self._here.chunk(finding.digest), CastoreError):
            return mending
        return attrs.evolve(mending, mended=True, message="the index of its blob was wrong, and is mended")
