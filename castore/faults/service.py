"""A service that meets faults, fails when told to, and remembers what it was asked."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from blake3 import blake3

from castore.contract.blobs import Answer, BlobReader, BlobService, BlobWriter, ChunkMeta
from castore.contract.capabilities import ChunkSource, Durable
from castore.contract.directories import DirectoryService
from castore.contract.inputs import InputFile
from castore.contract.operations import (
    OPERATIONS,
    READER_READ,
    WRITER_CLOSE,
    WRITER_FILL,
    WRITER_WRITE,
    Operation,
)
from castore.digest import B3Digest
from castore.errors import CastoreError, UnavailableError
from castore.faults.injecting import Faults
from castore.faults.plan import FaultPlan
from castore.streams.readers import BytesReader, PieceReader
from castore.streams.writers import GuardedWriter
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.forwarding import Around, forwarded_capability, forwarded_iterator

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

_MOST: Final = 100_000
"""How many calls are remembered."""


class Faulty:
    """What faulty services of any kind have: what they fail at, and what they were asked."""

    def __init__(
        self,
        failing: Iterable[str] = (),
        *,
        instance: str = "faulty",
        plan: FaultPlan | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._instance = instance
        self.failing = set(failing)
        self.calls: list[str] = []
        self.faults = Faults(plan or FaultPlan(), instance=instance, sleep=sleep)

    def meet(self, operation: str) -> None:
        """Note the operation, and raise if it is to fail."""
        self.calls.append(str(operation))
        if len(self.calls) > 2 * _MOST:
            del self.calls[:_MOST]
        if operation in self.failing:
            raise UnavailableError(self._instance, f"told to fail at {operation}")

    def _around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.meet(operation)
        perform: Any = self.faults.perform
        answer: T = perform(operation, call, *args, **kwargs)
        return answer


class FaultyService(Faulty, BlobService):
    """Passes everything on to *service*, except what is in `failing`: that raises `UnavailableError`.

    What does not fail so meets the faults of *plan*, by which nothing goes wrong unless it says so. It has
    the capabilities of *service*, which fail alike, by the names of their methods; with *capabilities* False
    it has none, as a stranger's smallest service. *sleep* is called with a number of seconds in place of
    waiting. Readers give *piece* bytes at once.

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
        super().__init__(failing, instance=instance, plan=plan, sleep=sleep)
        self._piece = piece
        self._service = service
        self._capabilities = capabilities
        self.high_latency = service.high_latency

    def has(self, digest: B3Digest) -> bool:
        """Ask the service behind."""
        return self._around(OPERATIONS["has"], self._service.has, digest)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service behind."""
        return self._around(OPERATIONS["missing"], self._service.missing, set(digests))

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Ask the service behind."""
        return self._around(OPERATIONS["chunks"], self._service.chunks, digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there; each piece read of it is a `reader.read`."""
        reader = self._around(OPERATIONS["open_read"], self._service.open_read, digest)
        return None if reader is None else _Reader(reader, digest, self._around, self._piece)

    def open_write(self) -> BlobWriter:
        """Start a blob there."""
        writer = self._around(OPERATIONS["open_write"], self._service.open_write)
        return _Writer(writer, self)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs: by their chunks, or as the service behind does."""
        if self.capability(ChunkSource) is not None:
            yield from super().read_many(digests)
            return
        wanted = dict.fromkeys(digests)
        read_many = self._service.read_many
        try:
            for digest, answer in forwarded_iterator(
                OPERATIONS["read_many"], self._around, read_many, list(wanted)
            ):
                wanted.pop(digest, None)
                yield digest, self._met_answer(answer, digest)
        except CastoreError as error:
            yield from ((digest, error) for digest in wanted)

    def _met_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        if isinstance(answer, BlobReader):
            return _Reader(answer, digest, self._around, self._piece)
        if not isinstance(answer, bytes):
            return answer
        try:
            with _Reader(BytesReader(answer), digest, self._around, self._piece) as reader:
                return reader.read()
        except CastoreError as error:
            return error

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service behind, failing as this one does."""
        found = self._service.capability(kind) if self._capabilities else None
        if found is None:
            return None
        if isinstance(found, Durable) and kind is Durable:
            self.meet("durability")
        return forwarded_capability(kind, found, self._around)

    def close(self) -> None:
        """Let go of all who wait, and close the service behind."""
        self.faults.release()
        self._service.close()


class FaultyDirectoryService(Faulty, WrapperDirectoryService):
    """Does to a *service* of directories what `FaultyService` does to one of blobs."""

    def __init__(
        self,
        service: DirectoryService,
        failing: Iterable[str] = (),
        *,
        instance: str = "faulty",
        plan: FaultPlan | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        Faulty.__init__(self, failing, instance=instance, plan=plan, sleep=sleep)
        WrapperDirectoryService.__init__(self, service, name=instance)

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Meet a fault, or call."""
        return self._around(operation, call, *args, **kwargs)

    def close(self) -> None:
        """Let go of all who wait, and close the service behind."""
        self.faults.release()
        self.inner.close()


class _Reader(PieceReader):
    def __init__(self, reader: BlobReader, digest: B3Digest, around: Around, piece: int) -> None:
        self._most = piece
        self._reader = reader
        self._digest = digest
        self._around = around

    @property
    def size(self) -> int:
        return self._reader.size

    def piece_at(self, position: int) -> memoryview:
        return memoryview(self._around(READER_READ, self._read, self._digest, position))

    def _read(self, _: B3Digest, position: int) -> bytes:
        self._reader.seek(position)
        return self._reader.read(self._most)

    def close(self) -> None:
        self._reader.close()
        super().close()


class _Writer(GuardedWriter):
    def __init__(self, writer: BlobWriter, service: FaultyService) -> None:
        self._writer = writer
        self._service = service
        self._hasher = blake3()

    def _take(self, view: memoryview) -> None:
        self._service._around(WRITER_WRITE, self._writer.write, view)  # noqa: SLF001 - one thing in two classes
        self._hasher.update(view)

    def fill(self, source: InputFile) -> int:
        # The bytes go through `write`, where they can be damaged.
        return self._service._around(WRITER_FILL, super().fill, source)  # noqa: SLF001 - as above

    def _finish(self) -> B3Digest:
        self._service.meet(WRITER_CLOSE)
        named: B3Digest = self._service.faults.perform(
            WRITER_CLOSE, self._writer.close, forgotten=self._forget
        )
        return named

    def _forget(self) -> B3Digest:
        self._writer.abort()
        return B3Digest(self._hasher.digest())

    def _discard(self) -> None:
        self._writer.abort()
