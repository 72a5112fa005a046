"""A service that hands out nothing unchecked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Literal, ParamSpec, TypeVar

from castore import B3Digest, BlobReader, BlobService, ChunkedReader, CorruptBlobError
from castore.contract.capabilities import ChunkSource, FrameStore
from castore.threads.pool import Pool
from castore.wrapping.forwarding import ForwardingReader
from castore.wrapping.wrapper import WrapperService
from castore_wrappers.verify.checking import CheckedChunks, check_whole, checked_chunk
from castore_wrappers.verify.quarantine import Quarantine

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

_READS: Final = frozenset({"chunks", "open_read", "reader.read", "get_chunk", "get_frame"})
"""Where what is stored may be found to be corrupt. A writer may say so as well, of what it was given."""

_FORMAT: Final = "zstd"
"""The format of frames that can be looked into."""

_log: Final = logging.getLogger("castore_wrappers.verify")


class VerifyService(WrapperService):
    """Checks each byte of *inner* against its digest before it is handed out, whatever *inner* has checked.

    A blob of chunks is checked chunk by chunk, so that reading a part of it costs no more than that part;
    reading from start to end also checks the digest of the whole. A blob without finer chunks is read whole
    when it is opened. What is wrong raises `CorruptBlobError` and is logged.

    Arguments:
        inner: The service that is not trusted.
        on_corrupt: With `quarantine`, what is wrong is also moved out of the way, through the capability
            `Inventory`; raises `UnsupportedError` if *inner* has no such capability.
        name: The name of this instance.
        pool: Fetch and check chunks ahead while they are read in order.
    """

    passes_files = True

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
        self._chunks = None if found is None else CheckedChunks(found)
        high_latency = found is not None and found.high_latency
        self._pool = pool.io_pool if pool is not None and high_latency else pool

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call; check what came of it; take care of what is wrong."""
        if operation not in _READS:
            return call(*args, **kwargs)
        try:
            result = call(*args, **kwargs)
            self._check(operation, args, result)
        except CorruptBlobError as error:
            _log.error("`%s`: %s", self.name, error)
            if self._quarantine is not None:
                self._quarantine.take(error)
            raise
        return result

    def _check(self, operation: str, args: tuple[Any, ...], result: Any) -> None:
        if operation == "get_chunk":
            checked_chunk(args[0], result)
        elif operation == "get_frame" and result is not None:
            from castore.format import frames  # noqa: PLC0415 - what has no frames needs no zstandard

            frames.decode_chunk(result, args[0])

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open a blob: over its chunks, or when all of it was found to be right."""
        chunks = self.chunks(digest)
        if not chunks:
            return self.around("open_read", self._open_whole, digest)
        reader = ChunkedReader(self.inner, chunks, digest=digest, source=self._chunks, pool=self._pool)
        return ForwardingReader(reader, self.around)

    def _open_whole(self, digest: B3Digest) -> BlobReader | None:
        reader = self.inner.open_read(digest)
        return None if reader is None else check_whole(reader, digest)

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return a capability of *inner* that hands out only what was checked; frames only if they are zstd."""
        if kind is FrameStore:
            found = self.inner.capability(FrameStore)
            if found is None or found.frame_format != _FORMAT:
                return None
        return super().capability(kind)
