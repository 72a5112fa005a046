"""A service that hands out nothing unchecked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from castore import B3Digest, BlobReader, BlobService, CastoreError, ChunkedReader, CorruptBlobError
from castore.chunks.recovery import Elsewhere
from castore.contract.blobs import Answer
from castore.contract.capabilities import ChunkSource, FrameStore, SharedPlace
from castore.contract.operations import OPERATIONS, Operation
from castore.errors import OversizedFrameError
from castore.threads.pool import Pool
from castore.wrapping.forwarding import ForwardingReader
from castore.wrapping.wrapper import WrapperService
from castore_wrappers.verify.checking import (
    CheckedChunks,
    check_bytes,
    check_whole,
    checked_answer,
    is_checkable,
)
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
    reading from start to end also checks the digest of the whole. A blob without finer chunks is read whole
    when it is opened. What is wrong is logged, and raises `CorruptBlobError` unless the readers of *inner*
    have it right.

    Arguments:
        inner: The service that is not trusted.
        on_corrupt: With `quarantine`, what is wrong is also moved out of the way, through the capability
            `Inventory`; raises `UnsupportedError` if *inner* has no such capability.
        name: The name of this instance.
        pool: Fetch and check chunks ahead while they are read in order.
    """

    def __init__(
        self,
        inner: BlobService,
        *,
        on_corrupt: Literal["report", "quarantine"] = "report",
        name: str = "verify",
        pool: Pool | None = None,
    ) -> None:
        super().__init__(inner, name=name)
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
        return ForwardingReader(reader, self.around)

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
