"""What was found to be wrong about blobs that services keep, so that nobody reads by it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from castore.contract.blobs import ChunkMeta
from castore.digest import B3Digest
from castore.format.blob_index import fingerprint
from castore.threads import forks

_MOST: Final = 1024

_ONE_PIECE: Final = fingerprint(())


class WrongIndexes:
    """Lists of chunks that one service has, and that do not make up their blobs.

    The last 1,024 are remembered. Who mends one need not tell: another list of the blob is not that one. Only
    of a blob in one piece there is nothing to tell it by, so that it has to be forgotten.
    """

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._wrong: dict[B3Digest, bytes] = {}

    def add(self, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> None:
        """Remember that these chunks are not the blob."""
        mark = fingerprint(chunks)
        with self._lock:
            self._wrong.pop(blob, None)
            self._wrong[blob] = mark
            if len(self._wrong) > _MOST:
                del self._wrong[next(iter(self._wrong))]

    def has(self, blob: B3Digest, chunks: Sequence[ChunkMeta]) -> bool:
        """Tell whether these chunks are known not to be the blob."""
        mark = self._wrong.get(blob)
        return mark is not None and mark == fingerprint(chunks)

    def doubts(self, blob: B3Digest) -> bool:
        """Tell whether a blob in one piece was found to be wrong: it may have been put anew since, unseen.

        So it is not called wrong, but anybody else is asked before.
        """
        return self._wrong.get(blob) == _ONE_PIECE

    def forget(self, blob: B3Digest) -> None:
        """Believe what there is of a blob in one piece, which was put anew.

        A list stays wrong: somebody may have read it just before it was replaced.
        """
        if self._wrong.get(blob) == _ONE_PIECE:
            with self._lock:
                self._wrong.pop(blob, None)
