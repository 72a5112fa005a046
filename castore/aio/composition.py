"""The doors for async programs: a composition from a file, and a single service from a URL."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from operator import methodcaller
from typing import TypeVar

from castore import opening
from castore.aio.facade import Facade
from castore.aio.service import AsyncBlobService
from castore.aio.threads import GRACE, THREADS, Threads
from castore.composition.composition import Composition
from castore.composition.types.registry import Registry

T = TypeVar("T")


class AsyncComposition(Facade):
    """A composition whose services are used by `await`. Leaving its `async with` block closes it.

    Arguments:
        composition: What is declared, and built when it is first asked for.
        threads: How many operations of all its services run at a time; more of them wait in order. Or the
            threads of somebody else.
        grace: How many seconds `close` waits for calls that have not returned.

    Attributes:
        composition: The composition.
    """

    def __init__(
        self, composition: Composition, *, threads: int | Threads = THREADS, grace: float = GRACE
    ) -> None:
        super().__init__(composition.close, threads=threads, grace=grace)
        self.composition = composition

    async def blobs(self, name: str = "root") -> AsyncBlobService:
        """Return a blob service, which is built if it is not yet; raises what `Composition.build` does."""
        service = await self._threads.run(partial(self.composition.blobs, name))
        return AsyncBlobService(service, threads=self._threads)


@asynccontextmanager
async def open(  # noqa: A001 - used as `castore.aio.open`
    path: str | os.PathLike[str] | None = None,
    *,
    registry: Registry | None = None,
    search: bool = True,
    threads: int = THREADS,
    grace: float = GRACE,
) -> AsyncIterator[AsyncComposition]:
    """Open a composition for an `async with` block; `castore.open` says which, and what it raises.

    *threads* and *grace*: see `AsyncComposition`.
    """
    begin = partial(opening.open, path, registry=registry, search=search)
    async with _opened(begin, threads, grace) as (composition, pool):
        yield AsyncComposition(composition, threads=pool)


@asynccontextmanager
async def from_url(
    url: str, *, registry: Registry | None = None, threads: int = THREADS, grace: float = GRACE
) -> AsyncIterator[AsyncBlobService]:
    """Open a blob service by its URL alone for an `async with` block, as `castore.from_url` does.

    *threads* and *grace*: see `AsyncBlobService`.
    """
    async with _opened(partial(opening.from_url, url, registry=registry), threads, grace) as (service, pool):
        yield AsyncBlobService(service, threads=pool)


@asynccontextmanager
async def _opened(begin: Callable[[], T], threads: int, grace: float) -> AsyncIterator[tuple[T, Threads]]:
    pool = Threads(threads, grace=grace)
    close = methodcaller("close")
    opened: list[T] = []
    try:
        # What is opened too late, when nobody waits any more, is closed as well.
        opened.append(await pool.run(begin, late=lambda late: late and close(late)))
        yield opened[0], pool
    finally:
        await pool.close(partial(close, opened[0]) if opened else None)
