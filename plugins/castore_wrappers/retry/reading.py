"""A reader that goes on where it broke."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from castore import B3Digest, BlobReader, CastoreError, CorruptBlobError, UnavailableError
from castore.wrapping.forwarding import Around, ForwardingReader, pieces_of
from castore_wrappers.retry.patience import Patience


class ResumingReader(ForwardingReader):
    """Tries again to get a piece that was unavailable, and gives no byte twice.

    The first of several new attempts asks the same reader: where each chunk is a request of its own nothing
    else is needed, and its check of the whole blob goes on. The others open the blob anew; its chunks are
    checked as before.
    """

    def __init__(
        self,
        reader: BlobReader,
        digest: B3Digest,
        reopen: Callable[[B3Digest], BlobReader | None],
        patience: Patience,
        around: Around,
    ) -> None:
        super().__init__(reader, around)
        self._digest = digest
        self._reopen = reopen
        self._patience = patience

    def _next_piece(self, position: int) -> memoryview:
        started = self._patience.clock()
        try:
            return self._pieces.piece_at(position)
        except UnavailableError as error:
            return self._patience.go_on(error, started, partial(self._piece_again, position))

    def _piece_again(self, position: int, number: int) -> memoryview:
        if number > 1 or self._patience.policy.attempts == 2:
            self._open_anew()
        return self._pieces.piece_at(position)

    def _open_anew(self) -> None:
        reader = self._reopen(self._digest)
        if reader is None:
            raise UnavailableError(self._patience.name, f"blob {self._digest} went away while it was read")
        if reader.size != self.size:
            reader.close()
            raise CorruptBlobError(
                f"blob {self._digest} had {self.size} bytes and has {reader.size} now", expected=self._digest
            )
        # The old one is broken: what it says when it is closed is of no interest.
        with contextlib.suppress(CastoreError, OSError):
            self._pieces.close()
        self._pieces = pieces_of(reader)
