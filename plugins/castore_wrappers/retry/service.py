"""A service that is asked again when it was unavailable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, Final, ParamSpec, TypeVar, cast

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    MissingDirectoryError,
    RefService,
    UnavailableError,
)
from castore.contract.blobs import Answer
from castore.contract.directories import DirectoryService
from castore.contract.operations import Operation
from castore.errors import BatchError
from castore.format.directories import Directory
from castore.streams.readers import BytesReader
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.refs import WrapperRefService
from castore.wrapping.wrapper import WrapperService, Wrapping
from castore_wrappers.batches import Batch, alike, comes_in_parts, unavailable_in
from castore_wrappers.kinds import S
from castore_wrappers.retry.patience import Patience, Policy
from castore_wrappers.retry.reading import ResumingReader
from castore_wrappers.retry.writing import ReplayingWriter

P = ParamSpec("P")
T = TypeVar("T")

_DEFAULT: Final = Policy()
_REPLAY: Final = 4 << 20


class Retrying(Wrapping[S]):
    """Asks *inner* again while it is unavailable, if an operation may be repeated.

    Of a call for many, only what was unavailable is asked for again. A list is tried again until it has
    begun.

    Arguments:
        inner: The service to ask.
        policy: How often, and how long.
        name: The name of this instance.
        clock: Returns a time in seconds that never goes back.
        sleep: Waits so many seconds; what it returns is true if nobody is to wait any more. By default
            that is so after `close`.
        dice: Where the chance in the waits comes from.
    """

    def __init__(
        self,
        inner: S,
        policy: Policy = _DEFAULT,
        *,
        name: str = "retry",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        super().__init__(inner, name=name)
        self._patience = Patience(policy, name, clock=clock, sleep=sleep, dice=dice)

    def gauges(self) -> Mapping[str, float]:
        """Return how many attempts were made again, and how often all of them failed."""
        return {"repeated": self._patience.repeated, "given_up": self._patience.given_up}

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, and again while it is unavailable, if it may be called again."""
        if not operation.repeatable:
            return call(*args, **kwargs)
        started = self._patience.clock()
        in_parts = comes_in_parts(operation)
        try:
            answer: Any = call(*args, **kwargs)
        except UnavailableError as error:
            if not in_parts:
                return self._patience.go_on(error, started, lambda _: call(*args, **kwargs))
            batch = Batch(operation, call, args, kwargs)
            batch.fail(batch.items, error)
            return cast("T", self._go_on(batch, error, started))
        lost = unavailable_in(answer) if in_parts and operation.receives else None
        if lost:
            batch = Batch(operation, call, args, kwargs)
            batch.take(batch.items, answer)
            answer = self._go_on(batch, alike(next(iter(lost.values()))), started)
        return cast("T", answer)

    def _go_on(self, batch: Batch, error: UnavailableError, started: float) -> Any:
        """Return the answer to a batch of which the first attempt met *error*."""
        attempts = 1

        def again(number: int) -> None:
            nonlocal attempts
            attempts = number + 1
            left = batch.unavailable
            try:
                batch.make(left)
            except UnavailableError as error:
                batch.fail(left, error)
                raise
            for fault in batch.unavailable.values():
                raise alike(fault)

        try:
            self._patience.go_on(error, started, again)
        except UnavailableError as last:
            if not batch.anything_known or (last is error and isinstance(error, BatchError)):
                raise
            if attempts > 1:
                batch.faults.update({
                    item: UnavailableError(self.name, f"{attempts} attempts failed; the last: {fault}")
                    for item, fault in batch.unavailable.items()
                })  # fmt: skip
        finally:
            # As in `Patience.go_on`.
            del error
        return batch.result(self.name)

    def close(self) -> None:
        """Wake those who wait to try again: they get the error that they have."""
        self._patience.end()


class RetryService(Retrying[BlobService], WrapperService):
    """Asks a service of blobs again.

    A read that breaks goes on where it was. A blob that is written is begun again if it is no longer than
    *replay* bytes: so many are kept; a file is read again. The other arguments are those of `Retrying`.
    """

    def __init__(
        self, inner: BlobService, policy: Policy = _DEFAULT, *, replay: int = _REPLAY, **rest: Any
    ) -> None:
        super().__init__(inner, policy, **rest)
        self._replay = replay

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader that goes on where it broke; bytes that are in memory do not fail any more."""
        if type(reader) is BytesReader:
            return reader
        return ResumingReader(reader, digest, self.inner.open_read, self._patience, self.around)

    def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        """Open a blob that was unavailable once more, by itself."""
        if isinstance(answer, UnavailableError):
            return self.open_read(digest)
        return super().wrap_answer(answer, digest)

    def open_write(self) -> BlobWriter:
        """Start a blob that can be begun again."""
        return ReplayingWriter(self.inner.open_write, self._replay, self._patience)


class RetryDirectoryService(Retrying[DirectoryService], WrapperDirectoryService):
    """Asks a service of directories again; a tree that breaks goes on where it was."""

    def wrap_closure(self, directories: Iterator[Directory], root: B3Digest) -> Iterator[Directory]:
        """Begin a tree anew where it breaks, and pass over what has come of it."""
        come: set[B3Digest] = set()
        while True:
            started = self._patience.clock()
            try:
                for directory in directories:
                    if directory.digest not in come:
                        come.add(directory.digest)
                        yield directory
            except UnavailableError as error:
                first, rest = self._patience.go_on(error, started, partial(self._begin_again, come, root))
                directories = chain(first, rest)
            else:
                return

    def _begin_again(
        self, come: Collection[B3Digest], root: B3Digest, _: int
    ) -> tuple[list[Directory], Iterator[Directory]]:
        """Return what has not come of a tree: one directory, so that there is progress, and the rest."""
        found = self.inner.closure(root)
        if found is None:
            raise MissingDirectoryError(root)
        rest = (directory for directory in found if directory.digest not in come)
        return list(islice(rest, 1)), rest


class RetryRefService(Retrying[RefService], WrapperRefService):
    """Asks a service of refs again; the arguments are those of `Retrying`."""
