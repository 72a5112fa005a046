"""What is asked of the services of a simulated graph, and what they say: each edge of it is listened to."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

import attrs

from castore.contract.blobs import BlobReader, BlobService
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, UnavailableError, UnsupportedError
from castore.streams.readers import BytesReader
from castore.wrapping.forwarding import ForwardingReader
from castore.wrapping.wrapper import WrapperService
from simulation.contents import TRUTH

P = ParamSpec("P")
T = TypeVar("T")

QUESTIONS: Final = frozenset({"has", "open_read", "chunks", "has_chunk", "get_chunk", "reader.read"})
"""The operations that ask for one blob or chunk, and are a hit or a miss."""

WRITES: Final = frozenset({
    "open_write", "writer.write", "writer.fill", "writer.close",
    "put_chunk", "put_index", "put_indexes", "delete", "claim_chunk", "claim_blob", "hold",
})  # fmt: skip
"""The operations that may change something."""

Said = Literal["pending", "hit", "wrong", "miss", "corrupt", "unavailable", "unsupported", "error"]
"""What came of a call. `wrong` is a hit whose bytes are not those of the blob."""

_CURRENT: Final[ContextVar[Call | None]] = ContextVar("castore_simulation_call", default=None)


@attrs.define(eq=False)
class Call:
    """One operation that the node *owner* asks of the node *node*; the user's name is empty."""

    owner: str
    node: str
    operation: str
    digest: B3Digest | None
    began: float
    argument: Any = None
    ended: float = -1.0
    said: Said = "pending"
    value: Any = None
    subs: list[Call] = attrs.field(factory=list)
    """What was asked meanwhile, for it."""
    note: Any = None
    """For the rules of the node."""

    @property
    def own(self) -> list[Call]:
        """What the node itself asked of its children."""
        return [sub for sub in self.subs if sub.owner == self.node]

    def __str__(self) -> str:
        about = f" {self.digest.hex()[:6]}" if self.digest is not None else ""
        return f"{self.owner or 'user'}>{self.node}.{self.operation}{about}: {self.said}"


class Listener(Protocol):
    """Hears of calls."""

    def now(self) -> float:
        """Return the time."""

    def begins(self, call: Call, above: Call | None) -> None:
        """Hear of a call that begins, asked by another or the user."""

    def ends(self, call: Call, above: Call | None) -> None:
        """Hear what came of it."""


class Tap(WrapperService):
    """Stands on an edge, passes everything on, and tells *listener*."""

    def __init__(self, inner: BlobService, owner: str, node: str, listener: Listener) -> None:
        super().__init__(inner, name=node)
        self._owner = owner
        self._listener = listener

    def around(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, and tell of it."""
        about = args[0] if args and isinstance(args[0], B3Digest) else None
        return self.watched(operation, about, call, *args, **kwargs)

    def watched(
        self,
        operation: str,
        about: B3Digest | None,
        call: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call, and tell of it as one about a digest."""
        listener = self._listener
        above = _CURRENT.get()
        argument = args[-1] if args else None
        entry = Call(self._owner, self.name, operation, about, listener.now(), argument)
        if above is not None:
            above.subs.append(entry)
        token = _CURRENT.set(entry)
        listener.begins(entry, above)
        try:
            value = call(*args, **kwargs)
            entry.value = value
            entry.said = _said_of(entry, value)
        except BaseException as error:
            entry.said = _said_by(error)
            raise
        finally:
            _CURRENT.reset(token)
            entry.ended = listener.now()
            listener.ends(entry, above)
            entry.subs, entry.value = [], None if entry.operation == "open_write" else entry.value
        return value

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader whose pieces are listened to; one over memory is looked at when it is opened."""
        if type(reader) is BytesReader:
            return reader
        return ForwardingReader(reader, _About(self, digest))


class _About:
    def __init__(self, tap: Tap, digest: B3Digest) -> None:
        self._tap = tap
        self._digest = digest

    def __call__(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._tap.watched(operation, self._digest, call, *args, **kwargs)


def _said_by(error: BaseException) -> Said:
    match error:
        case CorruptBlobError():
            return "corrupt"
        case UnavailableError():
            return "unavailable"
        case UnsupportedError():
            return "unsupported"
    return "error"


def _said_of(call: Call, value: Any) -> Said:
    if value is None or value is False:
        return "miss"
    return "wrong" if call.operation in QUESTIONS and not _is_right(call, value) else "hit"


def _is_right(call: Call, value: Any) -> bool:
    if call.operation in ("has", "has_chunk"):
        return True
    truth = TRUTH.get(call.digest) if call.digest is not None else None
    if truth is None:
        return False
    match call.operation:
        case "get_chunk":
            return bool(value == truth)
        case "reader.read":
            position = call.argument
            return bool(value == truth[position : position + len(value)])
        case "open_read":
            if type(value) is BytesReader:
                return value.size == len(truth) and (not truth or value.piece_at(0) == truth)
            return bool(value.size == len(truth))
        case "chunks":
            parts = [TRUTH.get(meta.digest, b"") for meta in value]
            fits = all(len(part) == meta.size for part, meta in zip(parts, value, strict=True))
            return not parts or (fits and b"".join(parts) == truth)
    return True
