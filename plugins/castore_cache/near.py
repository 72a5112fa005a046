"""The near service as a cache uses it: what fails there is passed over, or raised, as the policy says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

from blake3 import blake3

from castore import (
    B3Digest,
    BadIndexError,
    BlobReader,
    BlobService,
    BlobWriter,
    CastoreError,
    ChunkMeta,
    CorruptBlobError,
)
from castore.chunks.fetching import find_in
from castore.composites.remarks import Remarks
from castore.composites.wrong_indexes import WrongIndexes
from castore.contract.batches import MOST_ITEMS, MOST_UNKNOWN, batches
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore, FoundChunks, SharedPlace
from castore.errors import BatchError, OversizedFrameError
from castore.format.blob_index import same_list
from castore.streams.checked import wrong_bytes
from castore.streams.readers import BytesReader
from castore.threads import forks

T = TypeVar("T")

_log: Final = logging.getLogger("castore_cache")

_FEW: Final = 16
"""So many chunks are asked for first, to find out whether a blob is far from complete."""


class Near:
    """The near service.

    What is corrupt there is no failure: far is asked for it, and near is healed. That something read from far
    cannot be kept never harms who reads.

    Arguments:
        service: The service.
        name: That of the cache, for what is logged.
        alone: Whether new blobs go to near alone, so that it may have what far lacks.
        strict: Whether a failure of near is raised.
        keeps: Whether what is read from far is kept.
    """

    def __init__(
        self, service: BlobService, name: str, *, alone: bool, strict: bool = False, keeps: bool = True
    ) -> None:
        self.service = service
        self.strict = strict
        self.keeps = keeps
        self.name = name
        self._alone = alone
        self._store = service.capability(ChunkStore)
        self._source = service.capability(ChunkSource)
        self.checks = self._source is not None
        """Whether its bytes are checked before it hands them out: what keeps chunks does that."""
        self._deleter = service.capability(BlobDeleter)
        self.place = service.capability(SharedPlace) if keeps else None
        self.high_latency = self._source is not None and self._source.high_latency
        self._lock = forks.new_lock()
        self._wrong = WrongIndexes()
        self._remarks = Remarks(_log)
        self.errors = 0
        """How often it failed."""
        self.damages = 0
        """How often something was corrupt there."""

    # -- what fails --

    def ask(self, call: Callable[[], T]) -> tuple[T | None, CastoreError | None]:
        """Return what *call* returns, or `None` and the fault if that is passed over."""
        try:
            return call(), None
        except CastoreError as fault:
            raised = self.stands(fault)
            self.note(fault, raised=raised)
            if raised:
                raise
            return None, fault

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails, whatever the policy."""
        try:
            return call()
        except CastoreError as fault:
            self.note(fault)
            return None

    def peek(self, call: Callable[[], T]) -> T | None:
        """Return what *call* returns, or `None` if near fails, as it has just done and said."""
        try:
            return call()
        except CastoreError:
            return None

    def stands(self, fault: CastoreError) -> bool:
        """Tell whether a fault is the answer, so that far is not asked."""
        return self.strict and not isinstance(fault, CorruptBlobError)

    def note(self, fault: CastoreError, *, raised: bool = False, times: int = 1) -> None:
        """Count a fault; log it unless it is raised, for then it is told to whoever asked."""
        with self._lock:
            if isinstance(fault, CorruptBlobError):
                self.damages += times
            else:
                self.errors += times
        if not raised:
            # What is corrupt is another thing each time, and mended; what fails fails for every chunk.
            remarks = Remarks(_log) if isinstance(fault, CorruptBlobError) else self._remarks
            remarks.warn("`%s`: near failed and is passed over: %s", self.name, fault, times=times)

    def _note_each(self, faults: Collection[CastoreError]) -> None:
        """Note the faults of a batch, those of a kind together."""
        corrupt = [fault for fault in faults if isinstance(fault, CorruptBlobError)]
        others = [fault for fault in faults if not isinstance(fault, CorruptBlobError)]
        for alike in (corrupt, others):
            if alike:
                self.note(alike[0], raised=self.stands(alike[0]), times=len(alike))

    def decide_absence(self, fault: CastoreError | None) -> None:
        """Raise the *fault* of near, if any, where far's word is not enough to call something absent.

        What is corrupt in near is there, whatever far says.
        """
        if fault is not None and (self._alone or isinstance(fault, CorruptBlobError)):
            raise fault

    # -- chunks --

    def find(self, sizes: Mapping[B3Digest, int | None]) -> tuple[FoundChunks, dict[B3Digest, CastoreError]]:
        """Return near's answers, and the faults for which far is asked; chunks in neither are absent.

        Raises the failure of a strict near, if that is one of all.
        """
        found, fault = self.ask(lambda: self._find(sizes))
        if fault is not None:
            return {}, dict.fromkeys(sizes, fault)
        answers: FoundChunks = {}
        faults: dict[B3Digest, CastoreError] = {}
        for digest, answer in (found or {}).items():
            # One that is too large for an unknown size is there, to be read as a blob.
            if isinstance(answer, bytes) or (
                isinstance(answer, OversizedFrameError) and sizes[digest] is None
            ):
                answers[digest] = answer
            else:
                faults[digest] = answer
        if faults:
            self._note_each(faults.values())
            standing = {digest: fault for digest, fault in faults.items() if self.stands(fault)}
            answers |= standing
            faults = {digest: fault for digest, fault in faults.items() if digest not in standing}
        return answers, faults

    def _find(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        return find_in(self.service, self._source, sizes, most=MOST_UNKNOWN)

    def look(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:
        """Return the chunks that near has by now."""
        found = self.peek(lambda: self._find(sizes)) or {}
        return {digest: data for digest, data in found.items() if isinstance(data, bytes)}

    def look_unflushed(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, bytes]:
        """Return the chunks that other processes have put there, and not flushed yet."""
        place = self.place
        return {} if place is None else self.peek(lambda: place.find_unflushed(sizes)) or {}

    def look_for_blob(self, digest: B3Digest, most: int) -> bytes | None:
        """Return the checked bytes of a blob that near has by now, if it has no more than *most* bytes."""

        def read() -> bytes | None:
            reader = self.service.open_read(digest)
            if reader is None:
                return None
            with reader:
                data = reader.read() if reader.size <= most else None
            return data if data is not None and B3Digest.of(data) == digest else None

        return self.peek(read)

    def find_chunks(self, digests: Collection[B3Digest]) -> set[B3Digest]:
        """Return the chunks that near has; raises what near raises."""
        if self._source is None:
            return set(digests) - self.service.missing(digests)
        return self._source.find_chunks(digests)

    def has_chunks(self, digests: Iterable[B3Digest]) -> bool:
        """Tell whether near has them all, and can tell; the first ones that it lacks end this."""
        remaining = iter(digests)
        most = _FEW
        while batch := set(islice(remaining, most)):
            found = self.attempt(lambda wanted=batch: self.find_chunks(wanted))  # type: ignore[misc]
            if found is None or not batch <= found:
                return False
            most = MOST_ITEMS
        return True

    def makes_up(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether near has some chunks, and they make up a blob; they are read there."""
        hasher = blake3()
        for batch in batches(chunks, lambda meta: meta.size):
            sizes = {meta.digest: meta.size for meta in batch}
            found = self.attempt(lambda wanted=sizes: self._find(wanted)) or {}  # type: ignore[misc]
            for meta in batch:
                data = found.get(meta.digest)
                if not isinstance(data, bytes):
                    return False
                hasher.update(data)
        return hasher.digest() == digest

    def keep(self, chunks: Mapping[B3Digest, bytes]) -> Collection[B3Digest]:
        """Store chunks, as blobs if near keeps no chunks; return those with which that succeeded."""
        if not self.keeps or not chunks:
            return ()
        if self._store is None:
            return self._keep_as_blobs(chunks.values())
        try:
            self._store.put_chunks(chunks)
        except CastoreError as fault:
            self.note(fault)
            return fault.done if isinstance(fault, BatchError) else ()
        return chunks.keys()

    def _keep_as_blobs(self, blobs: Iterable[bytes]) -> Collection[B3Digest]:
        kept = set()
        for data in blobs:
            digest = self.attempt(lambda each=data: self.service.write(each))  # type: ignore[misc]
            if digest is None:
                break  # The others would fail alike.
            kept.add(digest)
        return kept

    def clear(self, faults: Mapping[B3Digest, CastoreError]) -> None:
        """Make way for what is to replace something corrupt, where putting it would not replace it."""
        if self._store is None:
            for digest, fault in faults.items():
                if isinstance(fault, CorruptBlobError):
                    self.drop(digest)

    def drop(self, digest: B3Digest) -> None:
        """Delete a blob that is not what it should be, if near can."""
        deleter = self._deleter
        if deleter is not None:
            self.attempt(lambda: deleter.delete(digest))

    # -- blobs --

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks of a blob; raise `BadIndexError` for a list that is known to be wrong."""
        chunks = self.service.chunks(digest)
        if chunks and self._wrong.has(digest, chunks):
            raise self._wrong_index(digest)
        return chunks

    def distrust(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Take note that what near has of a blob is not the blob: far is asked for it from now on."""
        self._wrong.add(digest, chunks)
        self.note(self._wrong_index(digest))

    def doubts(self, digest: B3Digest) -> bool:
        """Tell whether a blob in one piece was found to be wrong, so that far is asked before."""
        return self._wrong.doubts(digest)

    def trust(self, digest: B3Digest) -> None:
        """Believe what near has of a blob, which was put there anew."""
        self._wrong.forget(digest)

    def _wrong_index(self, digest: B3Digest) -> CorruptBlobError:
        return BadIndexError(f"near has a wrong index of blob {digest}", expected=digest)

    def lists(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether near has this list of a blob, and can tell."""
        found = self.attempt(lambda: self.service.chunks(digest))
        return found is not None and same_list(found, chunks)

    def open_checked(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader over the bytes of a small blob, which are read now; raises if they are wrong."""
        with reader:
            data = reader.read()
        found = B3Digest.of(data)
        if found != digest:
            self.drop(digest)
            raise wrong_bytes(digest, found)
        return BytesReader(data, digest)

    def keep_blob(self, digest: B3Digest, data: bytes) -> None:
        """Store a blob that far keeps in one piece: as one chunk, if near keeps chunks."""
        if not self.keeps:
            return
        self.trust(digest)
        if self._store is None or not data:
            self.attempt(lambda: self.service.write(data))
        elif self.keep({digest: data}):
            self.complete(digest, ())

    def complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Make a blob visible in near, all of whose chunks are there and make up its digest."""
        if not chunks:
            self.trust(digest)
        self.attempt(lambda: self._complete(digest, chunks))

    def _complete(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        store = self._store
        if store is not None:
            # What can be read in near need not be where it writes, as with a fallback: no index goes there.
            wanted = dict.fromkeys(meta.digest for meta in chunks) or {digest: None}
            if all(store.claim(batch) >= set(batch) for batch in batches(wanted, lambda _: 0)):
                store.put_indexes({digest: chunks})
        elif len(chunks) > 1:
            self._assemble(chunks)

    def _assemble(self, chunks: Sequence[ChunkMeta]) -> None:
        """Write the blob from its chunks, where near can keep it no other way."""
        with self.service.open_write() as writer:
            for batch in batches(chunks, lambda meta: meta.size):
                found = find_in(self.service, None, {meta.digest: meta.size for meta in batch})
                for meta in batch:
                    data = found.get(meta.digest)
                    if not isinstance(data, bytes):
                        writer.abort()
                        return
                    writer.write(data)


class NearCopy:
    """A blob being copied to near; if near fails nothing comes of it, and nobody is harmed."""

    def __init__(self, near: Near, digest: B3Digest) -> None:
        self._near = near
        self._digest = digest
        self._writer: BlobWriter | None = near.attempt(near.service.open_write) if near.keeps else None

    @property
    def lives(self) -> bool:
        """Whether anything can still come of it."""
        return self._writer is not None

    def take(self, piece: memoryview) -> None:
        """Copy the next piece."""
        writer = self._writer
        if writer is not None and self._near.attempt(lambda: writer.write(piece)) is None:
            self.drop()

    def finish(self) -> bool:
        """Make the blob visible; return whether near has it now."""
        writer, self._writer = self._writer, None
        if writer is None or self._near.attempt(writer.close) is None:
            return False
        self._near.trust(self._digest)
        return True

    def drop(self) -> None:
        """Forget what was copied."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._near.attempt(writer.abort)
