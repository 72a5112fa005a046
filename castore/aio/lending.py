"""One reader, writer or iterator, lent to one call after the other, each on a thread.

A call that is given up takes it along: nobody else may touch it until the call returns, so it is released
then, and can be used no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from castore.aio.stopping import Stop
from castore.aio.threads import Threads

A = TypeVar("A")
T = TypeVar("T")


class Lent(Generic[A]):
    """What is lent.

    Arguments:
        threads: Where calls run.
        begin: Opens it; called on the thread of the first call, unless there is a *thing*.
        release: Releases it; called on a thread.
        what: Its name in errors.
        stop: Is set when a call is given up.
        thing: It itself, if it is open.
    """

    def __init__(
        self,
        threads: Threads,
        begin: Callable[[], A],
        release: Callable[[A], object],
        *,
        what: str,
        stop: Stop | None = None,
        thing: A | None = None,
    ) -> None:
        self._threads = threads
        self._begin = begin
        self._release = release
        self._stop = stop or Stop()
        self._what = what
        self._thing = thing
        self._busy = False
        self.over = False
        """Whether it was released, or will be as soon as that can be."""

    async def call(self, work: Callable[[A, Stop], T]) -> T:
        """Return what *work* returns on a thread; raises what it raises.

        Raises `RuntimeError` while another task uses it. Must not be called when it is over.
        """
        if self._busy:
            raise RuntimeError(f"this {self._what} is in use by another task; give each task its own")
        self._busy = True
        given_up = False
        try:
            return await self._threads.run(partial(self._step, work), stop=self._stop, late=self._let_go)
        except (asyncio.CancelledError, GeneratorExit):
            # A call that was given up may still use it, and releases it itself.
            given_up = self.over = True
            raise
        finally:
            self._busy = given_up
            if self.over and not given_up:
                self._post_release()  # It was ended meanwhile.

    async def end(self) -> None:
        """Release it, and wait for that; while a call uses it, it is released after that."""
        if not self.over:
            self.over = True
            if not self._busy and self._thing is not None:
                await self._threads.run(self._let_go, insist=True)

    def drop(self) -> None:
        """Release it as `end` does, and do not wait for that."""
        if not self.over:
            self.over = True
            if not self._busy:
                self._post_release()

    def finish(self) -> None:
        """Let go of it: it has come to its end by itself."""
        self.over = True
        self._thing = None

    def _step(self, work: Callable[[A, Stop], T]) -> T:
        if self._thing is None:
            self._thing = self._begin()
        return work(self._thing, self._stop)

    def _post_release(self) -> None:
        if self._thing is not None:
            self._threads.post(self._let_go)

    def _let_go(self, _: object = None) -> None:
        thing, self._thing = self._thing, None
        if thing is not None:
            self._release(thing)
