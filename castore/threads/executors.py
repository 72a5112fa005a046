"""The threads of a server, of which a library makes use by the interface of `concurrent.futures`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from castore.threads import forks


class CountingExecutor(ThreadPoolExecutor):
    """Threads that know how much was given to them and is not done yet."""

    def __init__(self, size: int, name: str) -> None:
        super().__init__(size, thread_name_prefix=f"castore_{name}")
        self.size = size
        self._count_lock = forks.new_lock()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """How many calls run, or wait for a thread."""
        return self._under_way

    @property
    def is_crowded(self) -> bool:
        """Whether some wait for a thread."""
        return self._under_way > self.size

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Let a thread make a call as soon as one is free."""
        with self._count_lock:
            self._under_way += 1
        try:
            future = super().submit(fn, *args, **kwargs)
        except BaseException:
            self._done()
            raise
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object = None) -> None:
        with self._count_lock:
            self._under_way -= 1
