"""Readers and writers that pin what they work on."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from castore import B3Digest, BlobWriter, ChunkedReader
from castore.wrapping.forwarding import ForwardingWriter
from castore_lru.space import Space

P = ParamSpec("P")
T = TypeVar("T")


def _call(operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ARG001
    return call(*args, **kwargs)


class PinnedReader(ChunkedReader):
    """Reads a blob of chunks, none of which is evicted until this is closed."""

    def __init__(self, space: Space, tag: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unpin = weakref.finalize(self, space.release, tag)
        self._unpin.atexit = False

    def close(self) -> None:
        """Let the blob go."""
        super().close()
        self._unpin()


class PinnedWriter(ForwardingWriter):
    """Passes bytes on to *writer*, which has put everything by way of a store with the tag."""

    def __init__(self, space: Space, tag: int, writer: BlobWriter) -> None:
        super().__init__(writer, _call)
        self._unpin = weakref.finalize(self, space.release, tag)
        self._unpin.atexit = False

    def _finish(self) -> B3Digest:
        digest = super()._finish()
        self._unpin()
        return digest

    def _discard(self) -> None:
        try:
            super()._discard()
        finally:
            self._unpin()
