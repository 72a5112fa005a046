"""Readers of blobs that are kept open between one read of the kernel and the next."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from castore.contract.blobs import BlobReader, BlobService
from castore.digest import B3Digest
from castore.errors import CorruptBlobError
from castore.format.nodes import FileNode
from castore.threads.forks import new_lock
from castore.threads.idle import IdleWatch, Waiting

_MOST: Final = 32
"""So many are kept. Each has some chunks at hand, and more under way while its blob is read in order."""

_PATIENCE: Final = 10.0
"""After so many seconds without a read one is closed."""


class _Kept:
    """A reader that nobody reads from at the moment."""

    __slots__ = ("position", "reader", "waiting")

    def __init__(self, reader: BlobReader, position: int) -> None:
        self.reader = reader
        self.position = position
        self.waiting: Waiting | None = None


class KeptReaders:
    """Reads from blobs. The next read of a blob goes on in the reader of the one before.

    The kernel says nothing of who reads, and may read one file at several places at once: a read takes the
    reader whose position is nearest, and a new one where none is free.

    Arguments:
        blobs: Returns where the blobs are; asked for each reader.
        close: Lets a reader be closed that has had its time.
        now: The clock.
    """

    def __init__(
        self,
        blobs: Callable[[], BlobService],
        close: Callable[[Callable[[], object]], object] = lambda call: call(),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blobs = blobs
        self._let_close = close
        self._lock = new_lock()
        self._kept: OrderedDict[B3Digest, list[_Kept]] = OrderedDict()
        self._count = 0
        self._closed = False
        self._watch = IdleWatch(lambda: _PATIENCE, now)

    def __len__(self) -> int:
        return self._count

    def read_into(self, node: FileNode, offset: int, buffer: memoryview) -> int:
        """Fill a buffer with the bytes of a file from *offset* on; return how many: fewer only at its end.

        Raises `BlobNotFoundError`, `CorruptBlobError` also for a file of another size than its entry says,
        and what the reader raises.
        """
        end = min(offset + len(buffer), node.size)
        if offset >= end:
            return 0
        reader = self._take(node.digest, offset)
        done = False
        try:
            if reader is None:
                reader = self._blobs().open(node.digest)
            if reader.size != node.size:
                raise CorruptBlobError(
                    f"blob {node.digest} has {reader.size} bytes, and its entry says {node.size}",
                    expected=node.digest,
                )
            if reader.tell() != offset:
                reader.seek(offset)
            _fill(reader, buffer[: end - offset])
            # What was read with one read is not asked for again: the kernel keeps it.
            done = not (offset == 0 and end == node.size)
        finally:
            if reader is not None and not (done and self._keep(node.digest, reader, end)):
                reader.close()
        return end - offset

    def close(self) -> None:
        """Close those that are kept; what is read afterwards is closed at once."""
        with self._lock:
            self._closed = True
            kept = [each for row in self._kept.values() for each in row]
            self._kept.clear()
            self._count = 0
        for each in kept:
            self._leave(each)

    def _take(self, digest: B3Digest, offset: int) -> BlobReader | None:
        with self._lock:
            row = self._kept.get(digest)
            if not row:
                return None
            kept = min(row, key=lambda each: abs(each.position - offset))
            self._remove(digest, kept)
        if kept.waiting is not None:
            kept.waiting.__exit__()
        return kept.reader

    def _keep(self, digest: B3Digest, reader: BlobReader, position: int) -> bool:
        kept = _Kept(reader, position)
        gone: list[_Kept] = []
        kept.waiting = self._watch.over(lambda: self._expire(digest, kept))
        with self._lock:
            if self._closed:
                return False
            self._kept.setdefault(digest, []).append(kept)
            self._kept.move_to_end(digest)
            self._count += 1
            while self._count > _MOST:
                oldest, row = next(iter(self._kept.items()))
                gone.append(row[0])
                self._remove(oldest, row[0])
        kept.waiting.__enter__()
        kept.waiting.begin()
        for each in gone:
            if each.waiting is not None:
                each.waiting.__exit__()
            each.reader.close()
        return True

    def _remove(self, digest: B3Digest, kept: _Kept) -> None:
        row = self._kept[digest]
        row.remove(kept)
        self._count -= 1
        if not row:
            del self._kept[digest]

    def _expire(self, digest: B3Digest, kept: _Kept) -> None:
        with self._lock:
            is_kept = kept in self._kept.get(digest, ())
            if is_kept:
                self._remove(digest, kept)
        if is_kept:
            self._leave(kept)
        elif kept.waiting is not None:
            kept.waiting.__exit__()

    def _leave(self, kept: _Kept) -> None:
        if kept.waiting is not None:
            kept.waiting.__exit__()
        self._let_close(kept.reader.close)


def _fill(reader: BlobReader, buffer: memoryview) -> None:
    while buffer:
        count = reader.readinto(buffer)
        if not count:
            raise EOFError(f"a blob ends {len(buffer)} bytes early")
        buffer = buffer[count:]
