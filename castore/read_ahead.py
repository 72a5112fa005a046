"""The chunks of a blob, fetched before they are asked for once they are read in order.

What is asked for at once is fetched at once, several chunks at a time. Beyond that nothing is fetched ahead
until a second chunk is read right behind a first one: who looks at the beginning of a file, or here and
there, pays for what is looked at. From then on a *window* of chunks is under way. It grows while the consumer
has to wait for one, up to a limit in bytes, and so finds out by itself how much a slow store needs; a fast
one is never far ahead. A few chunks stay at hand when they are done with, for reads that go back and forth,
and for blobs that have the same chunk many times.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from castore.blobservice import ChunkMeta
from castore.digest import B3Digest
from castore.workers import Task, Workers

_FIRST_WINDOW: Final = 2

_MOST_AHEAD: Final = 24 << 20
"""How many bytes may be under way."""

_MOST_AT_HAND: Final = 4 << 20
"""How many bytes stay when they are done with."""


class ReadAhead:
    """Gives the chunks of a list by their number.

    Arguments:
        chunks: The list.
        fetch: Returns the checked bytes of a chunk; called in threads of the pool.
        workers: The pool.
        after: How many bytes must have been read in order before more is fetched than was asked for.
    """

    def __init__(
        self,
        chunks: Sequence[ChunkMeta],
        fetch: Callable[[ChunkMeta], bytes],
        workers: Workers,
        *,
        after: int = 0,
    ) -> None:
        self._chunks = chunks
        self._fetch = fetch
        self._workers = workers
        self._after = after
        self._at_hand: OrderedDict[B3Digest, bytes] = OrderedDict()
        self._bytes_at_hand = 0
        self._tasks: dict[int, Task[bytes]] = {}
        self._bytes_ahead = 0
        self._next = -1
        self._submitted = 0
        self._window = 0
        self._asked_for = (0, 0)
        self._in_order = 0

    def expect(self, begin: int, end: int) -> None:
        """Be told that the chunks from number *begin* up to *end* are going to be asked for, in order."""
        self._asked_for = (begin, end)

    def get(self, index: int) -> bytes:
        """Return a chunk; raises what fetching it raises."""
        in_order = index == self._next
        if not in_order:
            self.drop()
            self._submitted, self._in_order = index, 0
        begin, end = self._asked_for
        if begin <= index < end - 1 and self._workers.size:
            self._start(index + 1, min(end, index + 1 + 2 * self._workers.size))
        data, waited = self._take(index)
        self._next = index + 1
        self._in_order += self._chunks[index].size
        if in_order and self._workers.size and self._in_order > self._after:
            self._widen(waited=waited)
            self._look_ahead()
        return data

    def _take(self, index: int) -> tuple[bytes, bool]:
        """Return a chunk, and whether it had to be waited for."""
        meta = self._chunks[index]
        task = self._tasks.pop(index, None)
        if task is not None:
            self._bytes_ahead -= meta.size
            waited = not task.done
            data = task.result()
        else:
            waited = meta.digest not in self._at_hand
            data = self._at_hand[meta.digest] if not waited else self._fetch(meta)
        self._keep(meta.digest, data)
        return data, waited

    def _keep(self, digest: B3Digest, data: bytes) -> None:
        if digest in self._at_hand:
            self._at_hand.move_to_end(digest)
            return
        self._at_hand[digest] = data
        self._bytes_at_hand += len(data)
        while self._bytes_at_hand > _MOST_AT_HAND and len(self._at_hand) > 1:
            self._bytes_at_hand -= len(self._at_hand.popitem(last=False)[1])

    def _widen(self, *, waited: bool) -> None:
        if not self._window:
            self._window = _FIRST_WINDOW
        elif waited:
            self._window *= 2

    def _look_ahead(self) -> None:
        if not self._start(self._next, min(self._next + self._window, len(self._chunks))):
            # It has found its width: no more than this is ever under way.
            self._window = max(self._submitted - self._next, _FIRST_WINDOW)

    def _start(self, begin: int, end: int) -> bool:
        """Let the chunks from *begin* to *end* be fetched; return False if they are too many."""
        self._submitted = max(self._submitted, begin)
        while self._submitted < end:
            meta = self._chunks[self._submitted]
            if self._bytes_ahead + meta.size > _MOST_AHEAD:
                return False
            if meta.digest not in self._at_hand:
                self._tasks[self._submitted] = self._workers.submit(partial(self._fetch, meta))
                self._bytes_ahead += meta.size
            self._submitted += 1
        return True

    def drop(self) -> None:
        """Give up what is under way; it waits for what has begun."""
        tasks, self._tasks = self._tasks, {}
        self._bytes_ahead = self._window = 0
        for task in tasks.values():
            task.drop()

    def close(self) -> None:
        """Give up what is under way, and let go of what is at hand."""
        self.drop()
        self._at_hand.clear()
        self._bytes_at_hand = 0
