"""A service that nothing can be written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from castore import BlobService, BlobWriter, UnsupportedError
from castore.contract.capabilities import BatchExistence, BlobLister, ChunkSource, Durable, EvictionEvents
from castore.wrapping.wrapper import WrapperService

P = TypeVar("P")

KEPT: Final = (BatchExistence, BlobLister, ChunkSource, Durable, EvictionEvents)
"""The capabilities that change nothing. Of one that is not known it cannot be told."""


class ReadOnlyService(WrapperService):
    """Reads from *inner*; writing raises `UnsupportedError` and never reaches it.

    It has those capabilities of *inner* that change nothing; not one that can do both.
    """

    def __init__(self, inner: BlobService, *, name: str = "read_only") -> None:
        super().__init__(inner, name=name)

    def open_write(self) -> BlobWriter:
        """Raise `UnsupportedError`."""
        raise UnsupportedError(f"`{self.name}` is read-only: write to another service")

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability of *inner* that cannot write."""
        return super().capability(kind) if kind in KEPT else None
