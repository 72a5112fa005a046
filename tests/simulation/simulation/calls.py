"""What is asked of the services of a simulated graph, and what they say: each edge of it is listened to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal, ParamSpec, Protocol, TypeVar

import attrs

from castore.contract.blobs import BlobReader, BlobService
from castore.contract.operations import OPERATIONS, Operation
from castore.digest import B3Digest
from castore.errors import BatchError, CastoreError, CorruptBlobError, UnavailableError, UnsupportedError
from castore.streams.readers import BytesReader
from castore.wrapping.forwarding import ForwardingReader
from castore.wrapping.wrapper import WrapperService
from simulation.contents import TRUTH

P = ParamSpec("P")
T = TypeVar("T")

QUESTIONS: Final = frozenset(
    row for row in OPERATIONS.values() if row.tells is not None and not row.writes
) | {"reader.read"}
"""The operations that ask for blobs or chunks, each of which is a hit or a miss."""

WRITES: Final = frozenset(row for row in OPERATIONS.values() if row.writes)
"""The operations that may change something."""

CLAIMS: Final = frozenset(row for row in WRITES if row.tells == "found")
"""The operations that write, and tell of which things they found."""

REPEATED: Final = frozenset(
    row for row in OPERATIONS.values() if row.repeatable and row.yields is None and row.capability is not None
)
"""The operations that may be done again, as they were."""

ITEM_BY_ITEM: Final = frozenset(
    row for row in OPERATIONS.values() if row.items is not None and (row.receives or row.writes)
)
"""The operations that tell of each item by itself what is wrong with it."""

Said = Literal["pending", "hit", "wrong", "miss", "corrupt", "unavailable", "unsupported", "error"]
"""What came of a call. `wrong` is a hit whose bytes are not those of the blob."""

_CURRENT: Final[ContextVar[Calls | None]] = ContextVar("castore_simulation_calls", default=None)


@attrs.define(eq=False)
class Call:
    """One operation, or item of one, that the node *owner* asks of *node*; the user's name is empty."""

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
    batch: list[Call] = attrs.field(factory=list, repr=False)
    """All items that were asked for together, this one among them."""

    @property
    def leads(self) -> bool:
        """Whether it stands for its batch: one of them does."""
        return not self.batch or self.batch[0] is self

    @property
    def own(self) -> list[Call]:
        """What the node itself asked of its children."""
        return [sub for sub in self.subs if sub.owner == self.node]

    def __str__(self) -> str:
        about = f" {self.digest.hex()[:6]}" if self.digest is not None else ""
        return f"{self.owner or 'user'}>{self.node}.{self.operation}{about}: {self.said}"


class Calls:
    """The items of one call, to which what is asked meanwhile is added."""

    def __init__(self, entries: list[Call]) -> None:
        self.entries = entries
        self._by_digest = {entry.digest: entry for entry in entries}

    def of(self, digest: B3Digest | None) -> Call:
        """Return the item that something about *digest* is asked for."""
        return self._by_digest.get(digest, self.entries[0])


class Listener(Protocol):
    """Hears of calls."""

    def now(self) -> float:
        """Return the time."""

    def begins(self, call: Call, above: Call | None) -> None:
        """Hear of a call that begins, asked by another or the user."""

    def ends(self, call: Call, above: Call | None) -> None:
        """Hear what came of it."""


class Tap(WrapperService):
    """Stands on an edge, passes everything on, and tells *listener*, of each item of a batch by itself."""

    def __init__(self, inner: BlobService, owner: str, node: str, listener: Listener) -> None:
        super().__init__(inner, name=node)
        self._owner = owner
        self._listener = listener

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call, and tell of it."""
        items = None if operation.items is None else operation.argument(operation.items, args, kwargs)
        if items is not None:
            about: Iterable[B3Digest | None] = sorted(items) or [None]
        else:
            about = [args[0] if args and isinstance(args[0], B3Digest) else None]
        return self.watched(operation, about, call, *args, **kwargs)

    def watched(
        self,
        operation: Operation,
        about: Iterable[B3Digest | None],
        call: Callable[P, T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call, and tell of it as one about some digests."""
        listener = self._listener
        around = _CURRENT.get()
        argument = args[-1] if args else None
        began = listener.now()
        entries = [Call(self._owner, self.name, operation, digest, began, argument) for digest in about]
        above = {entry: None if around is None else around.of(entry.digest) for entry in entries}
        for entry in entries:
            entry.batch = entries
            parent = above[entry]
            if parent is not None:
                parent.subs.append(entry)
        token = _CURRENT.set(Calls(entries))
        for entry in entries:
            listener.begins(entry, above[entry])
        try:
            value = call(*args, **kwargs)
            for entry in entries:
                _note_answer(entry, operation, value)
        except BaseException as error:
            for entry in entries:
                _note_error(entry, error)
            raise
        finally:
            _CURRENT.reset(token)
            ended = listener.now()
            for entry in entries:
                entry.ended = ended
            for entry in entries:
                listener.ends(entry, above[entry])
            for entry in entries:
                entry.subs, entry.value = [], None if entry.operation == "open_write" else entry.value
        return value

    def wrap_reader(self, reader: BlobReader, digest: B3Digest) -> BlobReader:
        """Return a reader whose pieces are listened to; one over memory is looked at when it is opened."""
        if type(reader) is BytesReader:
            return reader
        return ForwardingReader(reader, _About(self, digest))


def _note_answer(entry: Call, operation: Operation, answer: Any) -> None:
    if operation.items is None or entry.digest is None:
        entry.value = answer
        entry.said = _said_of(entry, answer)
        return
    if operation.tells is None:
        entry.said = "hit"
    elif isinstance(answer, Mapping):
        entry.value = answer.get(entry.digest)
        wrong = isinstance(entry.value, CastoreError)
        entry.said = _said_by(entry.value) if wrong else _said_of(entry, entry.value)
    else:
        entry.said = "hit" if (entry.digest in answer) is (operation.tells == "found") else "miss"


def _note_error(entry: Call, error: BaseException) -> None:
    if isinstance(error, BatchError):
        fault = error.faults.get(entry.digest) if entry.digest is not None else None
        # What a claim leaves out is not there to be claimed.
        left_out = "miss" if entry.operation in CLAIMS else _said_by(error)
        entry.said = "hit" if entry.digest in error.done else left_out if fault is None else _said_by(fault)
    else:
        entry.said = _said_by(error)


class _About:
    def __init__(self, tap: Tap, digest: B3Digest) -> None:
        self._tap = tap
        self._digest = digest

    def __call__(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._tap.watched(operation, [self._digest], call, *args, **kwargs)


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
    truth = TRUTH.get(call.digest) if call.digest is not None else None
    if truth is None:
        return False
    match call.operation:
        case "get_chunks":
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
