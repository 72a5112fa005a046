"""What stands before one synchronous thing, and closes it with the threads that it is used on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from castore.aio.threads import GRACE, THREADS, Threads


class Facade:
    """Has threads of its own, or those of somebody else, and at the end of its `async with` block is closed.

    Arguments:
        close: Closes the thing behind it.
        threads: How many calls run at a time, or the threads of somebody else.
        grace: Of its own threads: how many seconds `close` waits for calls that have not returned.
    """

    def __init__(
        self,
        close: Callable[[], object],
        *,
        threads: int | Threads = THREADS,
        grace: float = GRACE,
    ) -> None:
        self._close = close
        self._are_shared = isinstance(threads, Threads)
        self._threads = threads if isinstance(threads, Threads) else Threads(threads, grace=grace)

    async def close(self) -> None:
        """Close what is behind it, and end its threads unless they are somebody else's.

        Waits for what is under way. Calls that have not returned after the grace time are left behind, and
        what they work on is closed beneath them. A wait that is cancelled stops none of this. Closing again
        does nothing.
        """
        if self._are_shared:
            await self._threads.run(self._close, insist=True)
        else:
            await self._threads.close(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
