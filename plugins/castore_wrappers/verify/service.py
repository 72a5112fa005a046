"""A service that hands out nothing unchecked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    CastoreError,
    ChunkedReader,
    ChunkMeta,
    CorruptBlobError,
)
from castore.chunks.recovery import Elsewhere
from castore.contract.blobs import Answer
from castore.contract.capabilities import ChunkSource, FrameStore, SharedPlace
from castore.contract.operations import OPERATIONS, Operation
from castore.errors import OversizedFrameError
from castore.threads.pool import Pool
from castore.wrapping.forwarding import Around, ForwardingReader
from castore.wrapping.wrapper import WrapperService
from castore_wrappers.verify.checking import (
    CheckedChunks,
    check_bytes,
    check_whole,
    checked_answer,
    is_checkable,
)
from castore_wrappers.verify.proofs import Proofs
from castore_wrappers.verify.quarantine import Quarantine

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

_OPEN_READ: Final = OPERATIONS["open_read"]

_FORMAT: Final = "zstd"
"""The format of frames that can be looked into."""

_log: Final = logging.getLogger("castore_wrappers.verify")


class VerifyService(WrapperService):
    """Checks each byte of *inner* against its digest before it is handed out, whatever *inner* has checked.

    A blob of chunks is checked chunk by chunk, so that reading a part of it costs no more than that part;
    reading from start to end also checks the digest of the whole. Until then a part is as good as the list of
    chunks. With *proofs* no list is believed: before the first byte of a blob is handed out, or the list of
    its chunks, all of it is read, once for each list. A blob without finer chunks is read whole when it is
    opened. What is wrong is logged, and raises `CorruptBlobError` unless readers of *inner* have it right.

    Arguments:
        inner: The service that is not trusted.
        on_corrupt: With `quarantine`, what is wrong is also moved out of the way, through the capability
            `Inventory`; raises `UnsupportedError` if *inner* has no such capability.
        proofs: Which lists are known to make up their blobs; `None`: they are believed till they prove wrong.
        name: The name of this instance.
        pool: Fetch and check chunks ahead while they are read in order.
    """

    def __init__(
        self,
        inner: BlobService,
        *,
        on_corrupt: Literal["report", "quarantine"] = "report",
        proofs: Proofs | None = None,
        name: str = "verify",
        pool: Pool | None = None,
    ) -> None:
        super().__init__(inner, name=name)
        self._proofs = proofs
        self._quarantine = Quarantine(inner, name) if on_corrupt == "quarantine" else None
        found = inner.capability(ChunkSource)
        self._chunks = None if found is None else CheckedChunks(found, self._frames(FrameStore))
        high_latency = found is not None and found.high_latency
        self._pool = pool.io_pool if pool is not None and high_latency else pool

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call; check what came of it; take care of what is wrong."""
        # A writer may call corrupt what it was given.
        if operation.writes:
            return call(*args, **kwargs)
        try:
            answer: Any = call(*args, **kwargs)
        except CorruptBlobError as error:
            self._condemn(error)
            raise
        if operation.receives and operation.capability is not None:
            answer = self._check(operation, answer, operation.argument(str(operation.items), args, kwargs))
        return cast("T", answer)

    def _check(self, operation: Operation, answer: Any, asked: Any) -> Any:
        sizes = asked if isinstance(asked, Mapping) else {}
        checked = checked_answer(operation, answer)
        for digest, error in checked.items():
            # Nobody has looked into a chunk that is larger than it may be if its size is not known.
            too_large = isinstance(error, OversizedFrameError) and sizes.get(digest, 0) is None
            if isinstance(error, CorruptBlobError) and not too_large:
                self._condemn(error)
        if operation.capability is not SharedPlace:
            return checked
        # It leaves out what is not whole.
        return {digest: data for digest, data in checked.items() if not isinstance(data, CastoreError)}

    def _condemn(self, error: CorruptBlobError) -> None:
        _log.error("`%s`: %s", self.name, error)
        if self._quarantine is not None:
            self._quarantine.take(error)

    def _met(self, error: CastoreError) -> None:
        """Take care of what was wrong, though the service within had it right in another way."""
        if isinstance(error, CorruptBlobError):
            self._condemn(error)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob: over its chunks, or when all of it was found to be right."""
        chunks = self.chunks(digest)
        if not chunks:
            return self.around(_OPEN_READ, self._open_whole, digest)
        reader = self._open_chunked(digest, chunks)
        reader.is_proved = self._proofs is not None
        return reader

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks, which are read before if no list is believed.

        Of a blob whose list is wrong, but which the service within has right, no finer chunks are known.
        """
        for _ in range(2):
            chunks = super().chunks(digest)
            if not chunks or self._proofs is None or self._is_proved(digest, chunks, self._proofs):
                return chunks
        return ()

    def _is_proved(self, digest: B3Digest, chunks: Sequence[ChunkMeta], proofs: Proofs) -> bool:
        """Tell whether some chunks make up a blob, by reading them; raise what is wrong with them.

        False if they do not, but the service within had the blob right by another list.
        """
        if proofs.has(digest, chunks):
            return True
        with self._open_chunked(digest, chunks) as reader:
            try:
                while reader.read_view():
                    pass
            except CorruptBlobError as error:
                if not error.passed_over:
                    raise
                return False
            if not reader.verified or reader.is_elsewhere:
                return False
        proofs.add(digest, chunks)
        return True

    def _open_chunked(self, digest: B3Digest, chunks: Sequence[ChunkMeta]) -> _CheckedReader:
        # Its own readers may know more ways to a chunk, and to another list; nothing of theirs is believed.
        recovery = Elsewhere(
            lambda: self.inner.open_read(digest),
            instead=lambda: self._open_whole(digest),
            met=self._met,
            wrong=self._met,
        )
        reader = ChunkedReader(
            self.inner, chunks, digest=digest, source=self._chunks, pool=self._pool, recovery=recovery
        )
        return _CheckedReader(reader, self.around)

    def _open_whole(self, digest: B3Digest) -> BlobReader | None:
        reader = self.inner.open_read(digest)
        return None if reader is None else check_whole(reader, digest)

    def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        """Check all of a blob, before any of it is handed out."""
        return self.around(_OPEN_READ, self._checked_whole, answer, digest)

    def _checked_whole(self, answer: Answer, digest: B3Digest) -> Answer:
        if isinstance(answer, CorruptBlobError):
            raise answer
        if isinstance(answer, bytes):
            check_bytes(digest, answer)
        return check_whole(answer, digest) if isinstance(answer, BlobReader) else answer

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return a capability of *inner* that hands out only what is right; frames only if they are zstd."""
        if isinstance(kind, type):
            if not is_checkable(kind):
                return None
            if issubclass(kind, FrameStore) and self._frames(kind) is None:
                return None
        return super().capability(kind)

    def _frames(self, kind: type[FrameStore]) -> FrameStore | None:
        """Return what gives frames that can be looked into, if the service within has it."""
        found = self.inner.capability(kind)
        return found if found is not None and found.frame_format == _FORMAT else None


class _CheckedReader(ForwardingReader):
    """Reads chunks that are checked."""

    is_proved = False
    """Whether they are known to make up the blob."""

    def __init__(self, reader: ChunkedReader, around: Around) -> None:
        super().__init__(reader, around)
        self._chunked = reader

    @property
    def verified(self) -> bool:
        """Whether all of the blob was read and found right, now or before."""
        return self.is_proved or super().verified

    @property
    def is_elsewhere(self) -> bool:
        """Whether the list of chunks was left, as it turned out to be wrong."""
        return self._chunked.is_elsewhere
