"""An object store that meets faults."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from castore.faults.injecting import Faults
from castore.faults.operations import OBJECT_READS, OBJECT_WRITES
from castore.faults.plan import FaultPlan

_OPERATIONS = OBJECT_READS | OBJECT_WRITES


class FaultyObjects:
    """Stands in front of any object store, and lets its operations meet the faults of *plan*.

    A store is whatever has methods such as `get`, `exists`, `put` and `list`: nothing is known of its class,
    so a store of any plugin will do. All else that it has is passed on as it is.

    Attributes:
        faults: What came of the plan.
    """

    def __init__(
        self,
        objects: Any,
        plan: FaultPlan,
        *,
        instance: str = "faulty",
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._objects = objects
        self.faults = Faults(plan, instance=instance, sleep=sleep)

    def __getattr__(self, name: str) -> Any:
        if name == "_objects":
            # It is not there while a copy is made.
            raise AttributeError(name)
        value = getattr(self._objects, name)
        if name not in _OPERATIONS:
            return value
        return lambda *args, **kwargs: self.faults.perform(name, value, *args, **kwargs)

    def read_into(self, key: str, take: Callable[[bytes], object], *most: int) -> bool:
        """Give *take* what `get` returns."""
        data = self.get(key, *most)
        if data is None:
            return False
        take(data)
        return True

    @contextlib.contextmanager
    def batch(self) -> Iterator[FaultyObjects]:
        """Enter a batch of the store, whose operations meet faults, too."""
        with self._objects.batch() as objects:
            faulty = copy.copy(self)
            faulty._objects = objects  # noqa: SLF001 - its own
            yield faulty

    def close(self) -> None:
        """Let go of all who wait, and close the store."""
        self.faults.release()
        self._objects.close()
