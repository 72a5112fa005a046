"""Readers that pin what they work on."""

from __future__ import annotations

import weakref
from typing import Any

from castore import ChunkedReader
from castore_lru.space import Space


class PinnedReader(ChunkedReader):
    """Reads a blob of chunks, none of which is evicted until this is closed."""

    def __init__(self, space: Space, tag: int, *args: Any, **kwargs: Any) -> None:
        # First, as `io` also closes a reader whose constructor raises.
        self._unpin = weakref.finalize(self, space.release, tag)
        self._unpin.atexit = False
        super().__init__(*args, **kwargs)

    def close(self) -> None:
        """Let the blob go."""
        super().close()
        self._unpin()
