"""Readers, writers and capabilities that pass everything on, each operation through one function.

That function, an `Around`, is called with the name of the operation, what to call, and its arguments; it
calls that and returns what came of it, or does anything else. The names are those of the methods of
`BlobService` and of the capabilities; those of readers and writers are `reader.read`, `writer.write`, `writer.fill`
and `writer.close`.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from typing import Any, BinaryIO, Final, ParamSpec, Protocol, TypeVar, cast

from castore.contract.blobs import BlobReader, BlobWriter
from castore.digest import B3Digest
from castore.streams.readers import FileReader, PieceReader
from castore.streams.writers import GuardedWriter

P = ParamSpec("P")
T = TypeVar("T")

_LOCAL: Final = frozenset({"chunk_bound", "chunk_key", "on_evict"})
"""What asks for no work of the service: it is passed on as it is, like the properties of a capability."""


class Around(Protocol):
    """Does the operation of a name by calling what it is given, once, more often, or not at all."""

    def __call__(self, operation: str, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what came of the operation."""
        ...


class ForwardingReader(PieceReader):
    """A reader over the pieces of another reader, which it closes with itself.

    Each new piece is a `reader.read`, called with the position. The last piece stays at hand, uncopied, so
    that small reads cost the same however many such readers stand before the blob.
    """

    def __init__(self, reader: BlobReader, around: Around) -> None:
        self._pieces = pieces_of(reader)
        self._around = around
        self._size = reader.size
        self._held = memoryview(b"")
        self._held_at = 0

    @property
    def size(self) -> int:
        """The size of the blob in bytes."""
        return self._size

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
        return self._around("reader.read", self._pieces.piece_at, position)

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
        self._around("writer.write", self._writer.write, view)

    def fill(self, readinto: Callable[[memoryview], int]) -> int:
        """Let the writer within take bytes from *readinto* in its own way."""
        self._require_open("write")
        count = self._around("writer.fill", self._writer.fill, readinto)
        self._written += count
        return count

    def _finish(self) -> B3Digest:
        return self._around("writer.close", self._writer.close)

    def _discard(self) -> None:
        self._writer.abort()


def pieces_of(reader: BlobReader) -> PieceReader:
    """Return *reader* as one of pieces: itself if it is one, so that nothing is copied."""
    return reader if isinstance(reader, PieceReader) else FileReader(cast("BinaryIO", reader), reader.size)


def forwarded_capability(kind: Callable[..., T], found: T, around: Around) -> T:
    """Return an object of the class *kind*, and of no other, whose methods are those of *found*.

    Each call of a method is an operation of its name, except those that ask for no work. Properties are
    passed on as they are. What a method is annotated to return decides how it is called: an iterator as by
    `forwarded_iterator`; a context is an operation up to its entering.
    """
    made = object.__new__(_passing_class(kind))
    made._found = found
    made._around = around
    return cast("T", made)


def forwarded_iterator(
    operation: str, around: Around, call: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
) -> Iterator[T]:
    """Yield what *call* yields; from its beginning to the first item it is one operation.

    Each time that this is tried there is a new iterator. What is raised later is raised as it is.
    """
    first, rest = around(operation, partial(_begin, call), *args, **kwargs)
    yield from first
    yield from rest


@cache
def _passing_class(kind: type) -> type[Any]:
    names = {name for name in dir(kind) if not name.startswith("_")}
    names |= getattr(kind, "__abstractmethods__", frozenset())
    members = {name: _member(name, inspect.getattr_static(kind, name)) for name in names}
    return type(f"Passing{kind.__name__}", (kind,), {"__module__": __name__, **members})


def _member(name: str, declared: object) -> Any:
    if name in _LOCAL or not inspect.isfunction(declared):
        return property(lambda self: getattr(self._found, name))
    returned = str(declared.__annotations__.get("return", "")).partition("[")[0].rpartition(".")[2]
    match returned:
        case "Iterator" | "Iterable" | "Generator":
            return _iterating(name)
        case "AbstractContextManager" | "ContextManager":
            return _entering(name)
        case _:
            takes_iterable = any("Iterable" in str(kind) for kind in declared.__annotations__.values())
            return _calling_with_lists(name) if takes_iterable else _calling(name)


def _calling(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._around(name, getattr(self._found, name), *args, **kwargs)

    return call


def _calling_with_lists(name: str) -> Callable[..., Any]:
    """Return what can call several times, too, with an iterator, which can be gone through once."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        lists = [list(each) if isinstance(each, Iterator) else each for each in args]
        return self._around(name, getattr(self._found, name), *lists, **kwargs)

    return call


def _iterating(name: str) -> Callable[..., Iterator[Any]]:
    def iterate(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return forwarded_iterator(name, self._around, getattr(self._found, name), *args, **kwargs)

    return iterate


def _begin(method: Callable[..., Iterator[T]], *args: Any, **kwargs: Any) -> tuple[list[T], Iterator[T]]:
    iterator = iter(method(*args, **kwargs))
    return list(islice(iterator, 1)), iterator


def _entering(name: str) -> Callable[..., Any]:
    @contextlib.contextmanager
    def enter(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            manage = partial(_enter, stack, getattr(self._found, name))
            yield self._around(name, manage, *args, **kwargs)

    return enter


def _enter(stack: contextlib.ExitStack, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return stack.enter_context(method(*args, **kwargs))
