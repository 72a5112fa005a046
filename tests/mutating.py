"""Ways to get something wrong, each of which a test must find. A mutant breaks it while it is entered."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock


class Mutants(dict[str, Callable[[], contextlib.AbstractContextManager[object]]]):
    """Mutants by what they do wrong: the names of their functions."""

    def add(self, function: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        """Add one: a function that breaks something, yields, and mends it."""
        self[function.__name__.replace("_", "-")] = contextlib.contextmanager(function)
        return function


def patch(target: Any, name: str, value: Any) -> Any:
    """Put something in the place of an attribute while the context is entered."""
    return mock.patch.object(target, name, value)
