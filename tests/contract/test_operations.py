"""The table of operations: each method has a row, and each row says what is true of its method."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import pytest

from castore import B3Digest, BlobService, UnavailableError
from castore.contract import capabilities, upkeep
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore, FrameStore
from castore.contract.operations import (
    CAPABILITIES,
    OPERATIONS,
    WRITER_FILL,
    WRITER_WRITE,
    Operation,
    as_lists,
    operations_of,
)
from castore.testing import BLOB_B, HELLO

KINDS: Final = (BlobService, *CAPABILITIES)
A: Final = HELLO.digest
B: Final = BLOB_B.digest


def methods_of(kind: type) -> set[str]:
    """Return the names of the public methods of a class that are no helpers made of others."""
    members = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    return {
        name
        for name, member in members.items()
        if inspect.isfunction(member) and not getattr(member, "__final__", False)
    }


def test_the_capabilities_are_all_that_there_are() -> None:
    classes = {
        value
        for module in (capabilities, upkeep)
        for value in vars(module).values()
        if inspect.isclass(value) and inspect.isabstract(value) and value.__module__ == module.__name__
    }
    assert set(CAPABILITIES) == classes


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_method_has_a_row(kind: type) -> None:
    """Of the service all but `capability` and `close`, which are not about what is stored."""
    rows = operations_of(kind)
    own = methods_of(kind) - ({"capability", "close"} if kind is BlobService else set())
    assert {name for name, row in rows.items() if row.declared} == own
    for name in own:
        row = OPERATIONS[name]
        assert rows[name] is row
        assert row.capability is not None
        assert name in vars(row.capability)


def test_a_row_names_arguments_that_there_are() -> None:
    """And says of the method nothing that cannot be."""
    for row in OPERATIONS.values():
        if row.capability is None:
            continue
        parameters = inspect.signature(getattr(row.capability, row)).parameters
        named = {*row.iterables, *(name for name in (row.sends, row.items) if name is not None)}
        assert (row, named - parameters.keys()) == (row, set())
        assert not (row.question and (row.writes or row.sends or row.receives or row.yields)), row
        assert not (row.idle and row.facts.keys() - {"idle"}), row
        assert not (row.tells in {"found", "absent"} and row.items is None), row
        once = {name for name, one in parameters.items() if str(one.annotation).startswith("Iterable")}
        assert (row, set(row.iterables)) == (row, once)


def test_arguments_are_found_by_place_and_by_name() -> None:
    """Also one that was left out; what stands in place of it stands there."""
    row = OPERATIONS["find_items"]
    for args, kwargs in (
        (("chunk", [1]), {}),
        (("chunk",), {"digests": [1]}),
        ((), {"kind": "chunk", "digests": [1]}),
    ):
        assert row.argument("digests", args, kwargs) == [1]
        changed, named = row.with_argument("digests", [2, 3], args, kwargs)
        assert row.argument("digests", changed, named) == [2, 3]
        assert row.argument("kind", changed, named) == "chunk"
        assert row.count_items(changed, named) == 2
    assert OPERATIONS["lease"].argument("brief", (), {}) is None


@pytest.mark.parametrize(
    ("row", "args", "answer", "sent", "received", "told"),
    [
        (OPERATIONS["put_chunks"], ({A: HELLO.data, B: b""},), None, 12, 0, (0, 0)),
        (OPERATIONS["get_chunks"], ({A: None, B: None},), {A: b"123"}, 0, 3, (1, 1)),
        (OPERATIONS["get_frames"], ([A],), {A: UnavailableError("x", "y")}, 0, 0, (1, 0)),
        (OPERATIONS["claim"], ([A, B],), {A}, 0, 0, (1, 1)),
        (OPERATIONS["missing"], ({A, B},), {A}, 0, 0, (1, 1)),
        (OPERATIONS["has"], (A,), False, 0, 0, (0, 1)),
        (OPERATIONS["chunks"], (A,), (), 0, 0, (1, 0)),
        (WRITER_WRITE, (memoryview(bytes(8)).cast("I"),), 8, 8, 0, (0, 0)),
        (WRITER_FILL, ("a file",), 99, 99, 0, (0, 0)),
    ],
)  # fmt: skip
def test_what_is_counted(
    row: Operation, args: tuple[Any, ...], answer: Any, sent: int, received: int, told: tuple[int, int]
) -> None:
    """Bytes that go there and come from there, and what the answer tells of presence."""
    assert row.bytes_sent(args, {}, answer) == sent
    assert row.bytes_received(answer) == received
    assert row.count_found(args, {}, answer) == told


def test_a_stranger_brings_rows_along() -> None:
    """They are told of its methods, those of its bases among them, and of no others."""

    class Undoing:
        OPERATIONS = (Operation("undo", repeatable=True, receives=True),)

        def undo(self) -> bytes:
            return b""

        def redo(self) -> None: ...

        def delete(self, digest: B3Digest) -> bool:
            return False

    class More(Undoing, BlobDeleter):
        OPERATIONS = (Operation("redo", writes=True),)

        delete = Undoing.delete  # type: ignore[assignment]

    rows = operations_of(Undoing)
    assert rows["undo"].facts == {"repeatable": True, "receives": True}
    assert rows["undo"].capability is Undoing
    assert [rows[name].declared for name in ("undo", "redo", "delete")] == [True, False, False]
    assert [operations_of(More)[name].declared for name in ("undo", "redo", "delete")] == [True] * 3


@pytest.mark.parametrize("fact", ["repeats", "upper", "__len__"])
def test_a_row_with_a_slip_of_the_pen_is_refused(fact: str) -> None:
    with pytest.raises(TypeError, match=fact):
        Operation("x", None, **{fact: True})


def test_what_can_be_gone_through_once_becomes_a_list() -> None:
    """All else stays what it is."""
    args, kwargs = as_lists((iter([1]), {2}, "x"), {"digests": (each for each in [3])})
    assert (args, kwargs) == ([[1], {2}, "x"], {"digests": [3]})


@pytest.mark.parametrize("kind", [ChunkSource, ChunkStore, FrameStore], ids=lambda kind: kind.__name__)
def test_single_forms_are_made_of_those_for_many(kind: type) -> None:
    """Once and for all, so that none has a row of its own."""
    single: list[Callable[..., Any]] = [
        member for member in vars(kind).values() if getattr(member, "__final__", False)
    ]
    assert all(member.__name__ not in OPERATIONS for member in single)
    assert bool(single) == (kind is not FrameStore)
