"""A service that is asked again when it was unavailable."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, UnavailableError
from castore.contract.inputs import InputFile
from castore.streams.readers import BytesReader
from castore.wrapping.wrapper import WrapperService
from castore_wrappers.retry.patience import Patience, Policy
from castore_wrappers.retry.reading import ResumingReader
from castore_wrappers.retry.writing import ReplayingWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

P = ParamSpec("P")
T = TypeVar("T")

_REPEATED: Final = frozenset({
    "has", "open_read", "chunks", "missing", "list_blobs", "list_items", "held_since", "hold",
    "has_chunk", "get_chunk", "claim_chunk", "claim_chunks", "claim_blob", "claim_indexes",
    "put_chunk", "put_index", "put_indexes", "get_frame", "put_frame",
})  # fmt: skip
"""What does no harm, and answers the same, if it has been done already without that the answer arrived.

Not so what removes: the second answer could be about what the first attempt has done. Of the capabilities of
strangers it is not known. A list is tried again until it has begun.
"""

_DEFAULT: Final = Policy()
_REPLAY: Final = 4 << 20


class RetryService(WrapperService):
    """Asks *inner* again while it is unavailable.

    A read that breaks goes on where it was. A blob that is written is begun again if it is no longer than
    *replay* bytes: so many are kept.

    Arguments:
        inner: The service to ask.
        policy: How often, and how long.
        replay: In bytes.
        name: The name of this instance.
        clock: Returns a time in seconds that never goes back.
        sleep: Waits so many seconds; what it returns is true if nobody is to wait any more. By default
            that is so after `close`.
        dice: Where the chance in the waits comes from.
    """

    def __init__(
        self,
        inner: BlobService,
        policy: Policy = _DEFAULT,
        *,
        replay: int = _REPLAY,
        name: str = "retry",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        super().__init__(inner, name=name)
        self._replay = replay
        self._patience = Patience(policy, name, clock=clock, sleep=sleep, dice=dice)

    def gauges(self) -> Mapping[str, float]:
        """Return how many attempts were made again, and how often all of them failed."""
        return {"repeated": self._patience.repeated, "given_up": self._patience.given_up}

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, and again while it is unavailable, if it may be called again."""
        if operation not in _REPEATED:
            return call(*args, **kwargs)
        # What `run` does, without making a call of one's own for the usual case.
        started = self._patience.clock()
        try:
            return call(*args, **kwargs)
        except UnavailableError as error:
            return self._patience.go_on(error, started, lambda _: call(*args, **kwargs))

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader that goes on where it broke; bytes that are in memory do not fail any more."""
        if type(reader) is BytesReader:
            return reader
        return ResumingReader(reader, digest, self.inner.open_read, self._patience, self.around)

    def open_write(self) -> BlobWriter:
        """Start a blob that can be begun again."""
        return ReplayingWriter(self.inner.open_write, self._replay, self._patience)

    def write(self, data: Buffer) -> B3Digest:
        """Store *data*, which is at hand and need not be kept, whatever its size."""
        return self._patience.run(partial(self.inner.write, data))

    def put_source(self, source: InputFile, progress: Callable[[int], object] | None = None) -> B3Digest:
        """Store a file; one that can be read again need not be kept, whatever its size."""
        if source.size is None:
            return super().put_source(source, progress)
        told = _Progress(progress)

        def again(_: int) -> B3Digest:
            source.rewind()
            told.begin_again()
            return self.inner.put_source(source, told)

        return self._patience.run(partial(self.inner.put_source, source, told), again)

    def close(self) -> None:
        """Wake those who wait to try again: they get the error that they have."""
        self._patience.end()


class _Progress:
    """Tells what is done, and not what is done again."""

    def __init__(self, tell: Callable[[int], object] | None) -> None:
        self._tell = tell
        self._done = 0
        self._told = 0

    def begin_again(self) -> None:
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done += count
        news = self._done - self._told
        if news > 0:
            self._told = self._done
            if self._tell is not None:
                self._tell(news)
