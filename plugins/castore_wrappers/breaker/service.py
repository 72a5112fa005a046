"""A service that is left alone while it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from castore import B3Digest, BlobReader, BlobService, CastoreError, SourceError, UnavailableError
from castore.contract.blobs import Answer
from castore.contract.directories import DirectoryService
from castore.contract.operations import Operation
from castore.errors import BatchError
from castore.format.directories import Directory
from castore.streams.readers import BytesReader
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.wrapper import WrapperService, Wrapping
from castore_wrappers.batches import unavailable_in
from castore_wrappers.breaker.circuit import STATES, Circuit, State, Verdict
from castore_wrappers.kinds import S

P = ParamSpec("P")
T = TypeVar("T")

_log: Final = logging.getLogger("castore_wrappers.breaker")


class Breaking(Wrapping[S]):
    """Passes everything on to *inner*, until it was unavailable *failures* times in a row.

    Then every operation raises `UnavailableError` at once, for *open_for* seconds; after that one request
    is let through. If *inner* answers it, all is as before; else it is left alone for another *open_for*.
    That a blob is absent or corrupt is an answer. A call for many has failed if none of them was answered.

    Arguments:
        inner: The service that may fail.
        failures: How many in a row are too many, 1 or more.
        open_for: In seconds.
        name: The name of this instance.
        clock: Returns a time in seconds that never goes back.
    """

    def __init__(
        self,
        inner: S,
        *,
        failures: int = 5,
        open_for: float = 30.0,
        name: str = "breaker",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner, name=name)
        self._circuit = Circuit(failures, open_for, clock)
        self._failures = failures
        self._last = ""

    @property
    def state(self) -> State:
        """`closed`: requests go through; `open`: they are refused; `half-open`: one is let through."""
        return self._circuit.state

    def gauges(self) -> Mapping[str, float]:
        """Return which of its three states it is in."""
        state = self.state
        return {f"is_{name.replace('-', '_')}": float(name == state) for name in STATES}

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, unless the service is left alone; take note of what came of it."""
        era = self._circuit.enter()
        if era is None:
            raise self._refusal()
        try:
            result = call(*args, **kwargs)
        except UnavailableError as error:
            if isinstance(error, BatchError) and _is_answered(operation, error, args, kwargs):
                self._note(era, Verdict.ANSWERED)
            else:
                self._note_failure(era, error)
            raise
        except SourceError:
            self._note(era, Verdict.UNKNOWN)
            raise
        except CastoreError:
            self._note(era, Verdict.ANSWERED)
            raise
        except BaseException:
            self._note(era, Verdict.UNKNOWN)
            raise
        failure = None if operation.items is None else _failure_of(operation, args, kwargs, result)
        if failure is not None:
            self._note_failure(era, failure)
        else:
            # Of items that come one by one each tells by itself.
            silent = operation.buffered or (operation.yields == "iterator" and operation.items is not None)
            self._note(era, Verdict.UNKNOWN if silent else Verdict.ANSWERED)
        return result

    def _note(self, era: int, verdict: Verdict) -> None:
        if self._circuit.leave(era, verdict):
            _log.info("`%s`: it answers again", self.name)

    def _note_failure(self, era: int, error: UnavailableError) -> None:
        # Its words only: the error itself would keep all that its traceback refers to.
        self._last = error.message
        if self._circuit.leave(era, Verdict.FAILED):
            _log.warning("`%s`: left alone after %d failures in a row: %s", self.name, self._failures, error)

    def _refusal(self) -> UnavailableError:
        return UnavailableError(
            self.name, f"left alone for {self._circuit.remaining:.3g} s more, after: {self._last}"
        )


class BreakerService(Breaking[BlobService], WrapperService):
    """Leaves a service of blobs alone while it fails."""

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs, until the service is left alone: then the others are not asked for."""
        wanted = dict.fromkeys(digests)
        for digest, answer in super().read_many(list(wanted)):
            wanted.pop(digest, None)
            yield digest, answer
            if isinstance(answer, UnavailableError) and self.state == "open":
                break
        yield from ((digest, self._refusal()) for digest in wanted)

    def wrap_answer(self, answer: Answer, digest: B3Digest) -> Answer:
        """Take note of an answer that came by itself."""
        era = self._circuit.enter()
        if era is not None:
            if isinstance(answer, UnavailableError):
                self._note_failure(era, answer)
            else:
                self._note(era, Verdict.ANSWERED)
        return super().wrap_answer(answer, digest)

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader that counts as well; bytes that are in memory do not fail any more."""
        return reader if type(reader) is BytesReader else super().wrap_reader(reader, digest)


class BreakerDirectoryService(Breaking[DirectoryService], WrapperDirectoryService):
    """Leaves a service of directories alone while it fails."""

    def wrap_closure(self, directories: Iterator[Directory], root: B3Digest) -> Iterator[Directory]:  # noqa: ARG002 - as declared
        """Take note of a tree that breaks."""
        try:
            yield from directories
        except UnavailableError as error:
            era = self._circuit.enter()
            if era is not None:
                self._note_failure(era, error)
            raise


def _is_answered(operation: Operation, error: BatchError, args: Any, kwargs: Any) -> bool:
    """Tell whether a batch that was done in part was answered in part."""
    lost = len(unavailable_in(error.faults))
    if error.done or lost < len(error.faults):
        return True
    # What a claim leaves out is not there.
    return operation.tells is not None and 0 < lost < operation.count_items(args, kwargs)


def _failure_of(operation: Operation, args: Any, kwargs: Any, answer: Any) -> UnavailableError | None:
    """Return the error of an answer in which no item was answered."""
    if not operation.receives or operation.items is None or not answer:
        return None
    lost = unavailable_in(answer)
    return next(iter(lost.values())) if len(lost) >= operation.count_items(args, kwargs) else None
