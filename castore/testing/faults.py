"""A service that fails when told to, and remembers what it was asked."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from castore.blobservice import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.digest import B3Digest
from castore.errors import UnavailableError
from castore.readers import PieceReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

READS: Final = frozenset({
    "has", "open_read", "reader.read", "chunks", "missing", "has_chunk", "get_chunk", "list_blobs"
})  # fmt: skip
"""The operations that read."""

WRITES: Final = frozenset({
    "open_write", "writer.write", "writer.close", "put_chunk", "put_index", "delete"
})  # fmt: skip
"""The operations that write."""


class FaultyService(BlobService):
    """Passes everything on to *service*, except what is in `failing`: that raises `UnavailableError`.

    It has the powers of *service*, which fail alike, by the names of their methods; with *powers* False it
    has none, as a stranger's smallest service.

    Attributes:
        failing: The names of operations, such as those in `READS` and `WRITES`. Change it at any time.
        calls: The names of all operations that were asked for, in order.
    """

    def __init__(
        self,
        service: BlobService,
        failing: Iterable[str] = (),
        *,
        powers: bool = True,
        instance: str = "faulty",
    ) -> None:
        self._service = service
        self._powers = powers
        self._instance = instance
        self.failing = set(failing)
        self.calls: list[str] = []

    def meet(self, operation: str) -> None:
        """Note the operation, and raise if it is to fail."""
        self.calls.append(operation)
        if operation in self.failing:
            raise UnavailableError(self._instance, f"told to fail at {operation}")

    def has(self, digest: B3Digest) -> bool:
        """Ask the service behind."""
        self.meet("has")
        return self._service.has(digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service behind."""
        self.meet("missing")
        return self._service.missing(digests)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Ask the service behind."""
        self.meet("chunks")
        return self._service.chunks(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there; each piece read of it is a `reader.read`."""
        self.meet("open_read")
        reader = self._service.open_read(digest)
        return None if reader is None else _Reader(reader, self.meet)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        self.meet("open_write")
        return _Writer(self._service.open_write(), self.meet)

    def capability(self, power: Callable[..., P]) -> P | None:
        """Return the power of the service behind, failing as this one does."""
        found = self._service.capability(power) if self._powers else None
        return None if found is None else _guarded(power, found, self.meet)

    def close(self) -> None:
        """Close the service behind."""
        self._service.close()


class _Reader(PieceReader):
    def __init__(self, reader: BlobReader, meet: Callable[[str], None]) -> None:
        self._reader = reader
        self._meet = meet

    @property
    def size(self) -> int:
        return self._reader.size

    def piece_at(self, position: int) -> memoryview:
        self._meet("reader.read")
        self._reader.seek(position)
        return memoryview(self._reader.read(io.DEFAULT_BUFFER_SIZE))

    def close(self) -> None:
        self._reader.close()
        super().close()


class _Writer(BlobWriter):
    def __init__(self, writer: BlobWriter, meet: Callable[[str], None]) -> None:
        self._writer = writer
        self._meet = meet

    def write(self, data: Buffer, /) -> int:
        self._meet("writer.write")
        return self._writer.write(data)

    def close(self) -> B3Digest:
        self._meet("writer.close")
        return self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


def _guarded(power: Callable[..., P], found: P, meet: Callable[[str], None]) -> P:
    """Return an object of the class *power* whose members are those of *found*, each preceded by *meet*."""

    def member(name: str) -> property:
        def get(_: object) -> Any:
            value = getattr(found, name)
            if not callable(value):
                meet(name)
                return value

            def call(*args: Any) -> Any:
                meet(name)
                return value(*args)

            return call

        return property(get)

    members = {name: member(name) for name in dir(power) if not name.startswith("_")}
    made: Callable[[], P] = type("Guarded", (power,), members)  # type: ignore[arg-type]
    return made()
