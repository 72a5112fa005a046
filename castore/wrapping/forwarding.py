"""Readers, writers and capabilities that pass everything on, each operation through one function.

That function, an `Around`, is called with the operation (a name that knows more of itself, see
`castore.contract.operations`), what to call, and its arguments; it calls that and returns what came of it, or
does anything else.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from itertools import chain, islice
from typing import Any, BinaryIO, ParamSpec, Protocol, TypeVar, cast

from castore.contract.blobs import BlobReader, BlobWriter
from castore.contract.capabilities import ChunkStore
from castore.contract.inputs import InputFile
from castore.contract.operations import (
    READER_READ,
    WRITER_CLOSE,
    WRITER_FILL,
    WRITER_WRITE,
    Operation,
    as_lists,
    operations_of,
)
from castore.digest import B3Digest
from castore.streams.readers import FileReader, PieceReader
from castore.streams.writers import GuardedWriter

P = ParamSpec("P")
T = TypeVar("T")


class Around(Protocol):
    """Does an operation by calling what it is given, once, more often, or not at all."""

    def __call__(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what came of the operation."""
        ...


class ForwardingReader(PieceReader):
    """A reader over the pieces of another reader, which it closes with itself.

    Each new piece is a `reader.read`, called with the position. The last piece stays at hand, uncopied, so
    that small reads cost the same however many such readers stand before the blob.
    """

    def __init__(self, reader: BlobReader, around: Around) -> None:
        self._pieces = pieces_of(reader)
        self._holds = self._pieces._holds  # noqa: SLF001 - of a reader about one beneath
        self._around = around
        self._size = reader.size
        self._held = memoryview(b"")
        self._held_at = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

    @property
    def verified(self) -> bool:
        """Whether the whole blob was read, and found right, by the reader beneath."""
        return self._pieces.verified

    def piece_at(self, position: int) -> memoryview:
        """Return the bytes held from *position* on; get a piece there if there are none."""
        offset = position - self._held_at
        if not 0 <= offset < len(self._held):
            # Let go first: the piece is valid no longer than until the next one is asked for.
            self._held = memoryview(b"")
            self._held = self._next_piece(position)
            self._held_at = position
            offset = 0
        return self._held[offset:] if offset else self._held

    def expect(self, begin: int, end: int) -> None:
        """Tell the reader beneath."""
        self._pieces.expect(begin, end)

    def _next_piece(self, position: int) -> memoryview:
        return self._around(READER_READ, self._pieces.piece_at, position)

    def close(self) -> None:
        """Close the reader beneath."""
        if not self.closed:
            self._held = memoryview(b"")
            self._pieces.close()
        super().close()


class ForwardingWriter(GuardedWriter):
    """Passes bytes on to another writer; `abort` goes by itself.

    Its operations are `writer.write`, called with the bytes, `writer.fill`, with what gives some, and
    `writer.close`.
    """

    def __init__(self, writer: BlobWriter, around: Around) -> None:
        self._writer = writer
        self._around = around

    def _take(self, view: memoryview) -> None:
        self._around(WRITER_WRITE, self._writer.write, view)

    def fill(self, source: InputFile) -> int:
        """Let the writer within take bytes of *source* in its own way."""
        self._require_open("write")
        count = self._around(WRITER_FILL, self._writer.fill, source)
        self._written += count
        return count

    def _finish(self) -> B3Digest:
        return self._around(WRITER_CLOSE, self._writer.close)

    def _discard(self) -> None:
        self._writer.abort()


def pieces_of(reader: BlobReader) -> PieceReader:
    """Return *reader* as one of pieces: itself if it is one, so that nothing is copied."""
    return reader if isinstance(reader, PieceReader) else FileReader(cast("BinaryIO", reader), reader.size)


def forwarded_capability(
    kind: Callable[..., T],
    found: T,
    around: Around,
    classes: Callable[[Callable[..., Any]], type[Any]] | None = None,
) -> T:
    """Return an object of the class *kind*, and of no other, whose methods are those of *found*.

    Each call of a method is an operation, as its row in `castore.contract.operations` says, or that of its
    class. Properties, attributes and what asks for no work are passed on as they are.

    *classes* returns the class of such an object, if not `forwarding_class`, also for what a method leads to.
    """
    made = object.__new__((classes or forwarding_class)(kind))
    made._found = found
    made._around = around
    made._classes = classes
    return cast("T", made)


def forwarded_iterator(
    operation: Operation,
    around: Around,
    call: Callable[P, Iterator[T]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Iterator[T]:
    """Yield what *call* yields; from its beginning to the first item it is one operation.

    Each time that this is tried there is a new iterator. What is raised later is raised as it is.
    """
    first, rest = around(operation, partial(_begin, call), *args, **kwargs)
    yield from first
    yield from rest


@cache
def forwarding_class(kind: Callable[..., Any]) -> type[Any]:
    """Return a subclass of *kind* whose methods are those of its `_found`, each called by its `_around`."""
    assert isinstance(kind, type)
    names = {name for name in dir(kind) if not name.startswith("_") and name != "OPERATIONS"}
    names |= getattr(kind, "__abstractmethods__", frozenset())
    rows = operations_of(kind)
    members = {
        name: _method(rows[name]) if name in rows and not rows[name].idle else _attribute(name)
        for name in names
        # What is made of other methods once and for all is made of those here.
        if not getattr(inspect.getattr_static(kind, name), "__final__", False)
    }
    return type(f"Forwarding{kind.__name__}", (kind,), {"__module__": __name__, **members})


def _attribute(name: str) -> property:
    return property(lambda self: getattr(self._found, name))


def _method(row: Operation) -> Callable[..., Any]:
    if not row.declared:
        return _calling_with_care(row)
    match row.yields:
        case "iterator":
            return _iterating(row)
        case "context" | "store":
            return _entering(row)
    return _calling_with_lists(row) if row.iterables and row.repeatable else _calling(row)


def _calling(row: Operation) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._around(row, getattr(self._found, row), *args, **kwargs)

    return call


def _calling_with_lists(row: Operation) -> Callable[..., Any]:
    """Return what can call several times, too, with an iterator, which can be gone through once."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        lists, named = as_lists(args, kwargs)
        return self._around(row, getattr(self._found, row), *lists, **named)

    return call


def _calling_with_care(row: Operation) -> Callable[..., Any]:
    """Return what calls a method of which nothing is known; an iterator or a context begins within."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(self._found, row)
        if inspect.isgeneratorfunction(method):
            return forwarded_iterator(row, self._around, method, *args, **kwargs)
        if inspect.isgeneratorfunction(inspect.unwrap(method)):  # as `contextlib.contextmanager` makes one
            return _entering(row)(self, *args, **kwargs)
        return self._around(row, partial(_begun, method), *args, **kwargs)

    return call


def _begun(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    answer = method(*args, **kwargs)
    return chain(list(islice(answer, 1)), answer) if isinstance(answer, Iterator) else answer


def _iterating(row: Operation) -> Callable[..., Iterator[Any]]:
    def iterate(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        lists, named = as_lists(args, kwargs) if row.repeatable else (args, kwargs)
        return forwarded_iterator(row, self._around, getattr(self._found, row), *lists, **named)

    return iterate


def _begin(method: Callable[..., Iterator[T]], *args: Any, **kwargs: Any) -> tuple[list[T], Iterator[T]]:
    iterator = iter(method(*args, **kwargs))
    return list(islice(iterator, 1)), iterator


def _entering(row: Operation) -> Callable[..., Any]:
    @contextlib.contextmanager
    def enter(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            entry = Entering(stack, getattr(self._found, row))
            entered = self._around(row, entry, *args, **kwargs)
            if row.yields == "store":
                entered = forwarded_capability(ChunkStore, entered, self._around, self._classes)
            yield entered

    return enter


class Entering:
    """Enters a context when it is called, on *stack*, which leaves it."""

    def __init__(
        self, stack: contextlib.ExitStack, method: Callable[..., AbstractContextManager[Any]]
    ) -> None:
        self.stack = stack
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Enter the context, and return its value."""
        return self.stack.enter_context(self._method(*args, **kwargs))

    def release(self) -> None:
        """Leave the context, if whoever called has given up before it was entered."""
        self.stack.close()
