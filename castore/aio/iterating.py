"""An iterator of the synchronous kind, taken some items at a time on a thread.

No thread is held while nobody asks for an item. A call takes what comes quickly, so that many small items do
not wait for a thread each, and one that takes its time is handed out as soon as it is there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Final, TypeVar

from castore.aio.lending import Lent
from castore.aio.stopping import Stop
from castore.aio.threads import Threads
from castore.threads.deadlines import CLOCK

T = TypeVar("T")

_MOST: Final = 1024
"""How many items there may be in a batch."""

_MOST_BYTES: Final = 16 << 20
"""How many bytes they may have, unless a single one has more."""

_SECONDS: Final = 0.01
"""After so long no more are added to a batch."""


async def iterate(
    threads: Threads, begin: Callable[[Stop], Iterator[T]], size_of: Callable[[T], int | None] = lambda _: 0
) -> AsyncGenerator[T, None]:
    """Yield what the iterator yields that *begin* makes; both are used on the threads.

    *size_of* returns the bytes that an item takes; `None` for one after which no other may be asked for until
    it was yielded.

    When a wait is cancelled, or the iteration ends early, the iterator is closed. Raises what it raises,
    after the items that came before that.
    """
    stop = Stop()
    lent = Lent(threads, lambda: begin(stop), _close, what="iterator", stop=stop)
    try:
        items: list[T] = []
        error: Exception | None = None
        more = True
        while more:
            items, error, more = await lent.call(partial(_take, size_of))
            for item in items:
                yield item
        lent.finish()
        if error is not None:
            raise error
    finally:
        # Not waited for: the iteration may have ended because its task is cancelled.
        lent.drop()
        del error


def _take(
    size_of: Callable[[T], int | None], iterator: Iterator[T], stop: Stop
) -> tuple[list[T], Exception | None, bool]:
    """Return some items, the error that came after them, and whether there may be more."""
    items: list[T] = []
    total = 0
    until = CLOCK.now() + _SECONDS
    try:
        for item in iterator:
            items.append(item)
            size = size_of(item)
            total += size or 0
            full = size is None or total >= _MOST_BYTES or len(items) == _MOST
            if full or CLOCK.now() >= until:
                return items, None, True
            stop.check()
    except Exception as error:  # noqa: BLE001 - it is raised where it belongs
        return items, error, False
    return items, None, False


def _close(iterator: Iterator[object]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
