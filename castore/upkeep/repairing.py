"""Repair of a service from another one that has the same blobs.

What is to replace something is fetched and checked first; then what is damaged is moved into quarantine, and
then the other is put. So a reader never finds less than it would have found before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal

import attrs
from blake3 import blake3

from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Inventory, StoredItem
from castore.digest import B3Digest
from castore.errors import BatchError, CastoreError, UnsupportedError
from castore.upkeep.findings import MISSING_INDEX, UNAVAILABLE, Finding
from castore.upkeep.reading import Attempts, Sizes, read_blob

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
    with store.lease() as leased:
        work = _Repair(service, inventory, leased, other, name=name, progress=progress)
        yield from work.run(findings)


class _Repair:
    def __init__(
        self,
        service: BlobService,
        inventory: Inventory,
        store: ChunkStore,
        other: BlobService,
        *,
        name: str,
        progress: Callable[[int], object],
    ) -> None:
        self._service = service
        self._inventory = inventory
        self._store = store
        self._other = other
        self._name = name
        self._progress = progress
        self._here = Attempts(service)
        self._there = Attempts(other)
        self._items: dict[tuple[str, B3Digest], StoredItem] = {}
        self._moved: dict[tuple[str, B3Digest], str] = {}
        self._unflushed = 0

    def run(self, findings: Sequence[Finding]) -> Iterator[Mending]:
        """Mend chunks first: blobs are rebuilt from them."""
        self._items = self._find_items(findings)
        for finding in findings:
            if finding.code == UNAVAILABLE:
                yield Mending(finding, False, "it may be right: it could not be read")
        amiss = [finding for finding in findings if finding.code != UNAVAILABLE]
        late = []
        chunks = (finding for finding in amiss if finding.what == "chunk")
        for some in self._there.portions.split(chunks, lambda _: None):
            for mending in self._mend_chunks(some):
                if mending.mended or mending.finding.blob is None:
                    yield mending
                else:
                    late.append(mending)
        self._flush()
        for finding in amiss:
            if finding.what != "chunk":
                yield self._mend_blob(finding)
        yield from map(self._reconsidered, late)
        self._flush()

    def _find_items(self, findings: Sequence[Finding]) -> dict[tuple[str, B3Digest], StoredItem]:
        """Find those that are to be set aside: what a finding says is not enough to name them."""
        wanted = {(finding.what, finding.digest) for finding in findings if finding.what != "blob"}
        wanted |= {("index", finding.digest) for finding in findings if finding.what == "blob"}
        found = {}
        if wanted:
            for item in self._inventory.list_items():
                if item.digest is not None and (item.kind, item.digest) in wanted:
                    found[item.kind, item.digest] = item
        return {(str(kind), digest): item for (kind, digest), item in found.items()}

    def _mending(self, finding: Finding, message: str, *, mended: bool = False) -> Mending:
        kind: Literal["chunk", "index"] = "chunk" if finding.what == "chunk" else "index"
        return Mending(finding, mended, message, self._moved.get((kind, finding.digest)))

    # -- chunks --

    def _mend_chunks(self, findings: Sequence[Finding]) -> Iterator[Mending]:
        """Mend some: they are fetched together, and put together."""
        here = self._here.chunks(dict.fromkeys(finding.digest for finding in findings))
        bad = [finding for finding in findings if not isinstance(here.get(finding.digest), bytes)]
        fetched, reasons = self._fetch({finding.digest: finding.blob for finding in bad})
        reasons |= self._replace(fetched)
        for finding in findings:
            if isinstance(here.get(finding.digest), bytes):
                yield self._mending(finding, "it is right again", mended=True)
            elif finding.digest in reasons:
                yield self._mending(finding, reasons[finding.digest])
            else:
                yield self._mending(finding, f"fetched from {self._name}", mended=True)

    def _fetch(
        self, chunks: Mapping[B3Digest, B3Digest | None], sizes: Sizes | None = None
    ) -> tuple[dict[B3Digest, bytes], dict[B3Digest, str]]:
        """Return the checked bytes of chunks, and why others cannot be had.

        Where *other* cuts otherwise a chunk is a stretch of its blob, as far as that is known.
        """
        fetched: dict[B3Digest, bytes] = {}
        reasons: dict[B3Digest, str] = {}
        found = self._there.chunks(dict.fromkeys(chunks) if sizes is None else sizes)
        for digest, blob in chunks.items():
            data = found.get(digest)
            if data is None and blob is not None:
                try:
                    data = self._cut_out(digest, blob)
                except CastoreError as error:
                    data = error
            if isinstance(data, bytes):
                fetched[digest] = data
                self._progress(len(data))
            else:
                reasons[digest] = f"{self._name} does not have it" if data is None else str(data)
        return fetched, reasons

    def _cut_out(self, digest: B3Digest, blob: B3Digest) -> bytes | None:
        offset = 0
        for meta in self._service.chunks(blob) or ():
            if meta.digest == digest:
                break
            offset += meta.size
        else:
            return None
        reader = self._other.open_read(blob)
        if reader is None:
            return None
        with reader:
            if offset + meta.size > reader.size:
                return None
            reader.seek(offset)
            data = reader.read(meta.size)
        return data if B3Digest.of(data) == digest else None

    def _replace(self, chunks: Mapping[B3Digest, bytes]) -> dict[B3Digest, str]:
        """Set aside what is damaged, and put chunks that are right; return why some could not be put."""
        reasons: dict[B3Digest, str] = {}
        ready = {}
        for digest, data in chunks.items():
            try:
                self._set_aside("chunk", digest)
            except CastoreError as error:
                reasons[digest] = str(error)
            else:
                ready[digest] = data
        reasons |= self._put(ready)
        self._unflushed += len(ready)
        if self._unflushed >= _FLUSH_AFTER:
            self._flush()
        return reasons

    def _put(self, chunks: Mapping[B3Digest, bytes]) -> dict[B3Digest, str]:
        try:
            if chunks:
                self._store.put_chunks(chunks)
        except BatchError as error:
            return {digest: str(error.faults.get(digest, error)) for digest in chunks.keys() - error.done}
        except CastoreError as error:
            if len(chunks) == 1:
                return dict.fromkeys(chunks, str(error))
            # One that cannot be put is not to keep the others from it.
            return {
                digest: reason
                for entry in chunks.items()
                for digest, reason in self._put(dict((entry,))).items()
            }
        return {}

    def _flush(self) -> None:
        """Make what was put durable: that is a part of putting indexes, also of none."""
        self._unflushed = 0
        self._store.put_indexes({})

    def _set_aside(self, kind: Literal["chunk", "index"], digest: B3Digest) -> None:
        item = self._items.pop((kind, digest), None)
        if item is not None:
            self._moved[kind, digest] = self._inventory.set_aside(item)

    # -- blobs and their indexes --

    def _mend_blob(self, finding: Finding) -> Mending:
        try:
            return self._mending(finding, self._rebuild_blob(finding), mended=True)
        except (CastoreError, _CannotMendError) as error:
            return self._mending(finding, str(error))

    def _rebuild_blob(self, finding: Finding) -> str:
        digest = finding.digest
        if finding.code == MISSING_INDEX and read_blob(self._service, digest) is not None:
            self._store.put_indexes({digest: ()})
            return "its chunk is right, and the index is there again"
        if self._is_right(digest):
            return "it is right again"
        chunks = self._other.chunks(digest)
        if chunks is None:
            raise _CannotMendError(f"{self._name} does not have the blob")
        if chunks:
            self._rebuild(digest, chunks)
        else:
            self._write_anew(digest)
        if not self._is_right(digest):
            raise _CannotMendError(f"it is still not right after it was rebuilt with what {self._name} has")
        return f"rebuilt with what {self._name} has"

    def _rebuild(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Put an index with the list of *other*; only chunks that are not here are fetched."""
        hasher = blake3()
        for portion in self._here.in_order(chunks):
            lacking: dict[B3Digest, int | None] = {}
            for meta, found in portion:
                if isinstance(found, CastoreError) and ("chunk", meta.digest) not in self._items:
                    raise _CannotMendError(f"chunk {meta.digest} is damaged, too, which was not checked")
                if not isinstance(found, bytes):
                    lacking[meta.digest] = meta.size
            fetched, reasons = self._fetch(dict.fromkeys(lacking), lacking)
            reasons |= self._replace(fetched)
            if reasons:
                raise _CannotMendError(next(iter(reasons.values())))
            for meta, found in portion:
                data = found if isinstance(found, bytes) else fetched[meta.digest]
                hasher.update(data)
                if len(data) != meta.size:
                    raise _CannotMendError(f"the index that {self._name} has is wrong, too")
        if hasher.digest() != digest:
            raise _CannotMendError(f"the index that {self._name} has is wrong, too")
        self._set_aside("index", digest)
        self._store.put_indexes({digest: chunks})

    def _write_anew(self, digest: B3Digest) -> None:
        """Store a blob that *other* keeps whole; its index comes when the bytes are known to be right."""
        with self._service.open_write() as writer:

            def take(piece: memoryview) -> None:
                writer.write(piece)
                self._progress(len(piece))

            if read_blob(self._other, digest, take) is None:
                raise _CannotMendError(f"{self._name} does not have the blob")
            self._set_aside("index", digest)

    def _is_right(self, digest: B3Digest) -> bool:
        """Tell whether a blob can be read, and that by its index, not only by a chunk of the same digest."""
        chunks = self._here.index(digest)
        if not chunks:
            return chunks is not None and isinstance(self._here.blobs((digest,))[digest], int)
        if isinstance(chunks, CastoreError):
            return False
        hasher = blake3()
        for portion in self._here.in_order(chunks):
            for meta, data in portion:
                if not isinstance(data, bytes) or len(data) != meta.size:
                    return False
                hasher.update(data)
        return hasher.digest() == digest

    def _reconsidered(self, mending: Mending) -> Mending:
        """Call a chunk mended that was only missing because an index was wrong that is right now."""
        finding = mending.finding
        needed = finding.blob is None or not self._is_right(finding.blob)
        if needed or isinstance(self._here.chunks({finding.digest: None}).get(finding.digest), CastoreError):
            return mending
        return attrs.evolve(mending, mended=True, message="the index of its blob was wrong, and is mended")
