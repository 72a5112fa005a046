"""What is known of each operation: one row for each method of the contract and of each capability.

Forwarding, retry, limits, breakers, metrics, faults and simulation read these rows, and keep no names of
their own. An `Operation` is the name of a method, as text, and has the row as attributes.

A stranger's capability brings its rows along, as an attribute of its class::

    class Undeleter(ABC):
        OPERATIONS = (Operation("undelete", repeatable=True),)

        @abstractmethod
        def undelete(self, digest): ...

Without a row a method is forwarded as one operation that may not be repeated.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import cache, partialmethod
from typing import Any, Final, Literal, Self

from castore.buffers import byte_view
from castore.contract.blobs import BlobService
from castore.contract.capabilities import (
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
    SharedPlace,
)
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    KeptInBlobs,
)
from castore.contract.upkeep import Evictable, Inventory, Pinning, Sweepable
from castore.errors import CastoreError


class Operation(str):
    """The name of an operation, with what is known of it as attributes."""

    capability: type | None = None
    """The class that it is a method of; `None` for the reads of a reader and the writes of a writer, whose
    names have a dot."""
    repeatable: bool = False
    """Whether it does no harm, and answers the same, if it has been done already without that the answer
    arrived."""
    writes: bool = False
    """Whether it changes what is stored, or prepares to."""
    question: bool = False
    """Whether it asks, and moves and changes nothing."""
    sends: str | None = None
    """The argument whose bytes are sent: a buffer, a mapping to buffers, or directories."""
    counts: bool = False
    """Whether the answer is how many bytes were sent."""
    receives: bool = False
    """Whether the answer has bytes: a buffer, or a mapping to buffers or directories."""
    yields: Literal["iterator", "context", "store"] | None = None
    """What the answer leads to that does more work: an iterator, or a context; a `store` is a context whose
    value is a `ChunkStore` that is to be wrapped alike."""
    iterables: tuple[str, ...] = ()
    """The arguments that may be iterators, which can be gone through once."""
    items: str | None = None
    """The argument that has the items of a batch. The call may be made for some of them at a time: its
    answers are `None`, or sets, mappings or lists that are put together."""
    tells: Literal["itself", "found", "absent"] | None = None
    """What the answer tells of presence: `itself` is `None` or false for what is absent; else it has the
    items that are `found`, or those that are `absent`."""
    buffered: bool = False
    """Whether it may succeed without that anything was asked of the service."""
    idle: bool = False
    """Whether it asks for no work at all, and is passed on as it is."""
    declared: bool = True
    """Whether somebody has said anything of it."""

    _places: Mapping[str, int]

    def __new__(cls, name: str, capability: type | None = None, **facts: Any) -> Self:
        """Make the row of the method *name*; *facts* are attributes of this class."""
        unknown = [fact for fact in facts if not hasattr(cls, fact) or hasattr(str, fact)]
        if unknown:
            raise TypeError(f"nothing called {', '.join(unknown)} can be said of an operation")
        self = super().__new__(cls, name)
        self.capability = capability
        self._places = _places(capability, name)
        self.facts = facts
        for fact, value in facts.items():
            setattr(self, fact, value)
        return self

    facts: Mapping[str, Any]
    """What was said of it."""

    def of(self, capability: type) -> Operation:
        """Return the same row for a method of *capability*."""
        return Operation(self, capability, **self.facts)

    def argument(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the argument *name* of a call, `None` if it was left out."""
        place = self._places.get(name, 0)
        return args[place] if place < len(args) else kwargs.get(name)

    def with_argument(
        self, name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with *value* in place of the argument *name*."""
        place = self._places.get(name, 0)
        if place < len(args):
            return (*args[:place], value, *args[place + 1 :]), dict(kwargs)
        return tuple(args), {**kwargs, name: value}

    def count_items(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
        """Return how many items a call is about; 1 for what is no batch."""
        if self.items is None:
            return 1
        items = self.argument(self.items, args, kwargs)
        return len(items) if isinstance(items, Sized) else 1

    def bytes_sent(self, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any = None) -> int:
        """Return how many bytes a call sends; where its *answer* is needed to know that, has sent."""
        if self.counts:
            return answer or 0
        return 0 if self.sends is None else size_of(self.argument(self.sends, args, kwargs))

    def count_found(self, args: Sequence[Any], kwargs: Mapping[str, Any], answer: Any) -> tuple[int, int]:
        """Return of how many things the answer tells that they are there, and that they are absent."""
        if self.tells is None:
            return 0, 0
        if self.tells == "itself":
            return (0, 1) if answer is None or answer is False else (1, 0)
        asked, named = self.count_items(args, kwargs), len(answer)
        return (named, asked - named) if self.tells == "found" else (asked - named, named)

    def bytes_received(self, answer: Any) -> int:
        """Return how many bytes have come as the answer of a call."""
        return size_of(answer) if self.receives else 0


@cache
def _places(capability: type | None, name: str) -> Mapping[str, int]:
    method = None if capability is None else getattr(capability, name, None)
    if not inspect.isfunction(method):
        return {}
    return {name: place for place, name in enumerate(list(inspect.signature(method).parameters)[1:])}


def size_of(value: Any) -> int:
    """Return how many bytes there are in a buffer, a directory, or in several; errors have none."""
    # The most usual first: this is done for each piece that is read or written.
    if type(value) is bytes:
        return len(value)
    if type(value) is memoryview:
        return value.nbytes
    if type(value) is not dict and type(encoded := getattr(value, "encoded", None)) is bytes:
        return len(encoded)  # of a directory
    if type(value) is dict or isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    if type(value) in COLLECTIONS:
        return sum(map(size_of, value))
    return 0 if value is None or isinstance(value, CastoreError) else byte_view(value).nbytes


READER_READ: Final = Operation("reader.read", repeatable=True, receives=True)
"""A piece of a blob, called with the position."""
WRITER_WRITE: Final = Operation("writer.write", writes=True, sends="data", buffered=True)
"""Called with the bytes."""
WRITER_FILL: Final = Operation("writer.fill", writes=True, counts=True, buffered=True)
"""Called with an `InputFile`, of which the writer takes some bytes; the answer is how many."""
WRITER_CLOSE: Final = Operation("writer.close", writes=True)

_ROWS: Final = (
    READER_READ,
    WRITER_WRITE,
    WRITER_FILL,
    WRITER_CLOSE,
    Operation("has", BlobService, repeatable=True, question=True, tells="itself"),
    Operation(
        "missing",
        BlobService,
        repeatable=True,
        question=True,
        iterables=("digests",),
        items="digests",
        tells="absent",
    ),
    Operation("chunks", BlobService, repeatable=True, question=True, tells="itself"),
    Operation("open_read", BlobService, repeatable=True, tells="itself"),
    Operation(
        "read_many", BlobService, repeatable=True, yields="iterator", iterables=("digests",), items="digests"
    ),
    Operation("open_write", BlobService, writes=True, repeatable=True, buffered=True),
    Operation("list_blobs", BlobLister, repeatable=True, yields="iterator"),
    Operation("complete", BlobLister, repeatable=True, yields="iterator"),
    # What removes is not repeated: the second answer could be about what the first attempt has done.
    Operation("delete", BlobDeleter, writes=True),
    Operation(
        "find_chunks",
        ChunkSource,
        repeatable=True,
        question=True,
        iterables=("digests",),
        items="digests",
        tells="found",
    ),
    Operation("get_chunks", ChunkSource, repeatable=True, receives=True, items="sizes", tells="found"),
    Operation("chunk_key", ChunkSource, idle=True),
    Operation("new_chunker", ChunkStore, idle=True),
    Operation(
        "claim",
        ChunkStore,
        writes=True,
        repeatable=True,
        iterables=("digests",),
        items="digests",
        tells="found",
    ),
    Operation("claim_blobs", ChunkStore, writes=True, repeatable=True, items="blobs", tells="found"),
    Operation("put_chunks", ChunkStore, writes=True, repeatable=True, sends="chunks", items="chunks"),
    Operation("put_indexes", ChunkStore, writes=True, repeatable=True, items="blobs"),
    Operation("lease", ChunkStore, writes=True, repeatable=True, yields="store"),
    Operation(
        "get_frames",
        FrameStore,
        repeatable=True,
        receives=True,
        iterables=("digests",),
        items="digests",
        tells="found",
    ),
    Operation("put_frames", FrameStore, writes=True, repeatable=True, sends="frames", items="frames"),
    Operation("on_evict", EvictionEvents, idle=True),
    Operation("try_alone", SharedPlace, writes=True, repeatable=True, yields="context", items="digests"),
    Operation("find_unflushed", SharedPlace, repeatable=True, receives=True, items="sizes", tells="found"),
    Operation("list_items", Inventory, repeatable=True, yields="iterator"),
    Operation("list_items_in", Inventory, repeatable=True, yields="iterator"),
    Operation("set_aside", Inventory, writes=True),
    Operation("sweep", Sweepable, writes=True, yields="iterator", iterables=("items",)),
    Operation("leased_since", Sweepable, repeatable=True, question=True),
    Operation("stored_items", Evictable, repeatable=True, yields="iterator"),
    Operation(
        "find_items",
        Evictable,
        repeatable=True,
        question=True,
        iterables=("digests",),
        items="digests",
        tells="found",
    ),
    Operation(
        "residue_of", Evictable, repeatable=True, question=True, iterables=("digests",), items="digests"
    ),
    Operation("chunk_bound", Evictable, idle=True),
    Operation("remove", Evictable, writes=True, iterables=("items",)),
    Operation("make_state_folder", Evictable, writes=True, repeatable=True),
    Operation("flush", Evictable, writes=True, repeatable=True),
    Operation("free_bytes", Evictable, repeatable=True, question=True),
    Operation("pin", Pinning, writes=True, repeatable=True, yields="context", items="digests"),
)

CAPABILITIES: Final = (
    BlobLister,
    BlobDeleter,
    ChunkSource,
    ChunkStore,
    FrameStore,
    EvictionEvents,
    SharedPlace,
    Durable,
    Inventory,
    Sweepable,
    Evictable,
    Pinning,
)
"""The classes of castore's own capabilities."""

DIRECTORY_CAPABILITIES: Final = (AnyDirectory, Complete, DirectoryLister, KeptInBlobs)
"""Those that only services of directories have."""

OPERATIONS: Final[Mapping[str, Operation]] = {row: row for row in _ROWS}
"""The rows of castore's own operations, by their names."""


GET_MANY: Final = Operation(
    "get_many",
    DirectoryService,
    repeatable=True,
    receives=True,
    iterables=("digests",),
    items="digests",
    tells="found",
)
MISSING: Final = Operation(
    "missing",
    DirectoryService,
    repeatable=True,
    question=True,
    iterables=("digests",),
    items="digests",
    tells="absent",
)
# It has no `items`: some services need all of a tree at once.
PUT_MANY: Final = Operation("put_many", DirectoryService, writes=True, repeatable=True, sends="directories")
CLOSURE: Final = Operation("closure", DirectoryService, repeatable=True, yields="iterator")
OPEN_TREE: Final = Operation("open_write", DirectoryService, writes=True, repeatable=True, buffered=True)
TREE_PUT: Final = Operation("writer.put", writes=True, sends="directory", buffered=True)
"""A directory that is given to the writer of a tree."""
TREE_GRAFT: Final = Operation("writer.graft", writes=True, buffered=True)
"""One that is there already."""

DIRECTORY_OPERATIONS: Final[Mapping[str, Operation]] = {
    row: row
    for row in (
        GET_MANY,
        MISSING,
        PUT_MANY,
        CLOSURE,
        OPEN_TREE,
        TREE_PUT,
        TREE_GRAFT,
        WRITER_CLOSE,
        Operation("list_directories", DirectoryLister, repeatable=True, yields="iterator"),
    )
}
"""The rows of the operations on services of directories, and of their capabilities, by their names."""


def operations_of(capability: type) -> Mapping[str, Operation]:
    """Return the rows of the methods of a capability by their names, those of its bases among them.

    A method that nobody has said anything of has a row that says nothing. Members that are no methods, and
    helpers that are made of other methods once and for all (`typing.final`), have none.
    """
    return _rows_of(capability)


@cache
def _rows_of(capability: type) -> Mapping[str, Operation]:
    declared = {
        row: row.of(base)
        for base in reversed(capability.__mro__)
        for row in base.__dict__.get("OPERATIONS", ())
    }
    rows = {}
    for name in dir(capability):
        member = inspect.getattr_static(capability, name)
        if name.startswith("_") or not _is_method(member) or getattr(member, "__final__", False):
            continue
        known = (declared.get(name), OPERATIONS.get(name), DIRECTORY_OPERATIONS.get(name))
        own = next((row for row in known if row is not None and _is_of(row, capability)), None)
        rows[name] = Operation(name, capability, declared=False) if own is None else own
    return rows


def _is_of(row: Operation, capability: type) -> bool:
    return row.capability is None or issubclass(capability, row.capability)


def _is_method(member: object) -> bool:
    # Not every decorator returns a function.
    if isinstance(member, type):
        return False
    return callable(member) or isinstance(member, partialmethod | classmethod)


COLLECTIONS: Final = frozenset({set, frozenset, dict, list, tuple})
"""Types whose objects have a size, and can be gone through again."""


def as_lists(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call that may be done again: iterators, which one call uses up, as lists."""
    if not kwargs and len(args) == 1 and type(args[0]) in COLLECTIONS:
        return args, kwargs
    return (
        [list(each) if isinstance(each, Iterator) else each for each in args],
        {name: list(each) if isinstance(each, Iterator) else each for name, each in kwargs.items()},
    )
