"""The pool of threads of a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from castore.composition.composition import Composition
from castore.workers import Workers


@contextlib.contextmanager
def pool_of(stores: Composition, size: int | None) -> Iterator[Workers]:
    """Return a pool of *size* threads, or without a size that of the composition."""
    if size is None:
        yield stores.workers
        return
    with contextlib.closing(Workers(size)) as pool:
        yield pool
