"""A service that meets faults, fails when told to, and remembers what it was asked."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from blake3 import blake3

from castore.buffers import byte_view
from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.digest import B3Digest
from castore.errors import UnavailableError
from castore.faults.injecting import Faults
from castore.faults.plan import FaultPlan
from castore.streams.readers import PieceReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = TypeVar("P")

_MOST: Final = 100_000
"""How many calls are remembered."""


class _Perform(Protocol):
    def __call__(self, operation: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...


class FaultyService(BlobService):
    """Passes everything on to *service*, except what is in `failing`: that raises `UnavailableError`.

    What does not fail so meets the faults of *plan*, by which nothing goes wrong unless it says so. It has
    the capabilities of *service*, which fail alike, by the names of their methods; with *capabilities* False it has none,
    as a stranger's smallest service. *sleep* is called with a number of seconds in place of waiting. Readers
    give *piece* bytes at once.

    Attributes:
        failing: The names of operations, such as those in `READS` and `WRITES`. Change it at any time.
        calls: The names of all operations that were asked for, in order; of very many the last ones.
        faults: What came of the plan.
    """

    def __init__(
        self,
        service: BlobService,
        failing: Iterable[str] = (),
        *,
        capabilities: bool = True,
        instance: str = "faulty",
        plan: FaultPlan | None = None,
        sleep: Callable[[float], object] | None = None,
        piece: int = io.DEFAULT_BUFFER_SIZE,
    ) -> None:
        self._piece = piece
        self._service = service
        self._capabilities = capabilities
        self._instance = instance
        self.failing = set(failing)
        self.calls: list[str] = []
        self.faults = Faults(plan or FaultPlan(), instance=instance, sleep=sleep)

    def meet(self, operation: str) -> None:
        """Note the operation, and raise if it is to fail."""
        self.calls.append(operation)
        if len(self.calls) > 2 * _MOST:
            del self.calls[:_MOST]
        if operation in self.failing:
            raise UnavailableError(self._instance, f"told to fail at {operation}")

    def _perform(self, operation: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.meet(operation)
        return self.faults.perform(operation, function, *args, **kwargs)

    def has(self, digest: B3Digest) -> bool:
        """Ask the service behind."""
        found: bool = self._perform("has", self._service.has, digest)
        return found

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service behind."""
        absent: set[B3Digest] = self._perform("missing", self._service.missing, digests)
        return absent

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Ask the service behind."""
        found: Sequence[ChunkMeta] | None = self._perform("chunks", self._service.chunks, digest)
        return found

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there; each piece read of it is a `reader.read`."""
        reader = self._perform("open_read", self._service.open_read, digest)
        return None if reader is None else _Reader(reader, digest, self._perform, self._piece)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        return _Writer(self._perform("open_write", self._service.open_write), self._perform)

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return the capability of the service behind, failing as this one does."""
        found = self._service.capability(kind) if self._capabilities else None
        return None if found is None else _guarded(kind, found, self._perform, self.meet)

    def close(self) -> None:
        """Let go of all who wait, and close the service behind."""
        self.faults.release()
        self._service.close()


class _Reader(PieceReader):
    def __init__(self, reader: BlobReader, digest: B3Digest, perform: _Perform, piece: int) -> None:
        self._most = piece
        self._reader = reader
        self._digest = digest
        self._perform = perform

    @property
    def size(self) -> int:
        return self._reader.size

    def piece_at(self, position: int) -> memoryview:
        return memoryview(self._perform("reader.read", self._read, self._digest, position))

    def _read(self, _: B3Digest, position: int) -> bytes:
        self._reader.seek(position)
        return self._reader.read(self._most)

    def close(self) -> None:
        self._reader.close()
        super().close()


class _Writer(BlobWriter):
    def __init__(self, writer: BlobWriter, perform: _Perform) -> None:
        self._writer = writer
        self._perform = perform
        self._hasher = blake3()
        self._forgotten: B3Digest | None = None

    def write(self, data: Buffer, /) -> int:
        view = byte_view(data)
        self._perform("writer.write", self._writer.write, view)
        self._hasher.update(view)
        return view.nbytes

    def close(self) -> B3Digest:
        if self._forgotten is not None:
            return self._forgotten
        digest: B3Digest = self._perform("writer.close", self._writer.close, forgotten=self._forget)
        return digest

    def _forget(self) -> B3Digest:
        self._writer.abort()
        self._forgotten = B3Digest(self._hasher.digest())
        return self._forgotten

    def abort(self) -> None:
        self._writer.abort()


def _guarded(kind: Callable[..., P], found: P, perform: _Perform, meet: Callable[[str], None]) -> P:
    """Return an object of the class *kind* whose members are those of *found*, with faults."""

    def member(name: str) -> property:
        def get(_: object) -> Any:
            value = getattr(found, name)
            if not callable(value):
                meet(name)
                return value
            return lambda *args, **kwargs: perform(name, value, *args, **kwargs)

        return property(get)

    members = {name: member(name) for name in dir(kind) if not name.startswith("_")}
    made: Callable[[], P] = type("Guarded", (kind,), members)  # type: ignore[arg-type]
    return made()
