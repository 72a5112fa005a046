"""The words in which clauses state facts, and the data that they state them about."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.upkeep import Inventory, StoredItem
from castore.digest import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.testing.clause import AnyService, ContractError

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

_SHOWN: Final = 60

# -- stating facts --


def expect(what: str, got: object, expected: object) -> None:
    """Raise `ContractError` unless *what*, which is *got*, equals *expected*."""
    __tracebackhide__ = True
    if got != expected or isinstance(got, bool) != isinstance(expected, bool):
        raise ContractError(
            None, f"{what} to be {_shown(expected)}", _shown(got) + _difference(got, expected)
        )


def expect_that(holds: object, expected: str, got: object) -> None:
    """Raise `ContractError`, with *expected* in words, unless *holds* is true."""
    __tracebackhide__ = True
    if not holds:
        raise ContractError(None, expected, got if isinstance(got, str) else _shown(got))


def expect_raises(what: str, kinds: type[E] | tuple[type[E], ...], call: Callable[[], object]) -> E:
    """Return the error of one of *kinds* that *call* raises; raise `ContractError` if it does not."""
    __tracebackhide__ = True
    names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        result = call()
    except kinds as error:
        return error
    except Exception as error:
        raise ContractError(None, f"{what} to raise {names}", repr(error)) from error
    raise ContractError(None, f"{what} to raise {names}", _shown(result))


def reader_of(service: BlobService, digest: B3Digest) -> BlobReader:
    """Open a blob that must be there."""
    __tracebackhide__ = True
    reader = service.open_read(digest)
    if reader is None:
        raise ContractError(None, f"open_read({digest}) to open what was stored", "None")
    return reader


def expect_stored(service: BlobService, digest: B3Digest, data: bytes) -> None:
    """Raise `ContractError` unless the blob *digest* is there with the bytes *data*."""
    __tracebackhide__ = True
    expect(f"has({digest})", service.has(digest), True)
    expect(f"missing() of {digest}", service.missing([digest]), set())
    with reader_of(service, digest) as reader:
        expect(f"open_read({digest}).read()", reader.read(), data)


def expect_absent(service: BlobService, digest: B3Digest) -> None:
    """Raise `ContractError` if there is a blob or chunk of *digest*."""
    __tracebackhide__ = True
    expect(f"has({digest})", service.has(digest), False)
    expect(f"missing() of {digest}", service.missing([digest]), {digest})
    expect(f"open_read({digest})", service.open_read(digest), None)
    expect(f"chunks({digest})", service.chunks(digest), None)


def capability_of(service: AnyService, kind: Callable[..., T]) -> T:
    """Return a capability that the service has, by the `needs` of the clause."""
    __tracebackhide__ = True
    found = service.capability(kind)
    if found is None:
        raise ContractError(None, f"capability({kind}) to be the same each time", "None")
    return found


def items_of(service: BlobService, *digests: B3Digest) -> list[StoredItem]:
    """Return what an inventory lists of *digests*."""
    return [item for item in capability_of(service, Inventory).list_items() if item.digest in digests]


def now_by(service: BlobService) -> float:
    """Return the time by the clock of the store: that of what is put into it now; 0 if it does not tell."""
    items = items_of(service, service.write(fresh()))
    return min((item.modified for item in items if item.modified is not None), default=0.0)


# -- making data --

_numbers: Final = itertools.count()


def fresh(size: int = 64) -> bytes:
    """Return *size* bytes, 16 or more, that no service has, not even one that was in use before."""
    seed = os.urandom(12) + next(_numbers).to_bytes(4, "big")
    return seed + random.Random(seed).randbytes(size - len(seed))


def absent() -> B3Digest:
    """Return a digest that no service has."""
    return B3Digest.of(fresh())


def fresh_directory() -> Directory:
    """Return a directory of one file that no service has."""
    return Directory({b"file": FileNode(absent(), 1)})


def fresh_tree() -> list[Directory]:
    """Return the directories of a tree that no service has, the leaves first, two of them in two places."""
    empty, leaf = Directory(), fresh_directory()
    inner = Directory({b"a": leaf.node, b"b": leaf.node, b"empty": empty.node})
    other = Directory({b"inner": inner.node, b"file": FileNode(absent(), 2, executable=True)})
    return [empty, leaf, inner, other, Directory({b"1": other.node, b"2": inner.node, b"3": empty.node})]


def named(*parts: bytes) -> dict[B3Digest, bytes]:
    """Return *parts* by their digests, in order, as they are put together."""
    return {B3Digest.of(part): part for part in parts}


def metas_of(parts: Iterable[bytes]) -> list[ChunkMeta]:
    """Return *parts* as the chunks of a blob."""
    return [ChunkMeta(B3Digest.of(part), len(part)) for part in parts]


def in_threads(count: int, call: Callable[[int], T]) -> list[T]:
    """Return what *call* returns for each number below *count*, called by as many threads at once."""
    barrier = threading.Barrier(count, timeout=60)

    def run(number: int) -> T:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# -- showing values --


def _shown(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)) and not isinstance(value, B3Digest):
        text = repr(bytes(value[:_SHOWN]))
        return f"{text} ({len(value)} bytes)" if len(value) <= _SHOWN else f"{text}... ({len(value)} bytes)"
    text = str(value) if isinstance(value, B3Digest) else repr(value)
    return text if len(text) <= 4 * _SHOWN else text[: 4 * _SHOWN] + "..."


def _difference(got: object, expected: object) -> str:
    if not (isinstance(got, bytes) and isinstance(expected, bytes)) or isinstance(got, B3Digest):
        return ""
    pairs = enumerate(zip(got, expected, strict=False))
    place = next((at for at, (one, other) in pairs if one != other), min(len(got), len(expected)))
    return f", which differs first at byte {place}"
