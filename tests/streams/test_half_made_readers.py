"""`io` closes what is collected, also a reader whose constructor raised; what fails then is printed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import NoReturn

import pytest

from castore import BlobReader, ChunkedReader
from castore.composites.failover_reading import FailoverReader
from castore.metrics.shell import MeasuredReader
from castore.streams.readers import BytesReader
from castore.wrapping.forwarding import ForwardingReader
from castore_fallback.copying import KeepingReader
from castore_lru.streams import PinnedReader


class Broken(Exception):
    pass


class Breaking:
    """Stands for any argument."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Broken


class Unsized(BlobReader):
    @property
    def size(self) -> NoReturn:
        raise Broken


class Member:
    def call(self, call: Callable[[], object]) -> object:
        return call()


class Space:
    def release(self, tag: int) -> None:
        pass


KINDS = [
    (ChunkedReader, (Breaking(), [])),
    (ChunkedReader, ()),
    (PinnedReader, (Space(), 1, Breaking(), [])),
    (ForwardingReader, (Unsized(), None)),
    (MeasuredReader, (Unsized(), None)),
    (FailoverReader, (None, None, Unsized(), Member(), None)),
    (KeepingReader, (BytesReader(b""), Breaking())),
]


@pytest.mark.parametrize(("kind", "arguments"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_reader_whose_constructor_raised_is_dropped_in_silence(
    kind: type[BlobReader], arguments: tuple[object, ...]
) -> None:
    """What a finaliser raises would be an error here, and so would a warning."""
    with pytest.raises((Broken, ValueError, TypeError)):
        kind(*arguments)
    gc.collect()
