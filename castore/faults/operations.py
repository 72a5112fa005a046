"""What can go wrong with each operation, beside taking long and failing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

READS: Final = frozenset({
    "has", "open_read", "reader.read", "chunks", "missing", "has_chunk", "get_chunk", "get_frame",
    "list_blobs", "list_items", "held_since",
})  # fmt: skip
"""The operations of a service that read."""

WRITES: Final = frozenset({
    "open_write", "writer.write", "writer.close", "claim_chunk", "hold", "put_chunk", "put_frame",
    "put_index", "put_indexes", "delete", "set_aside", "sweep",
})  # fmt: skip
"""The operations of a service that write."""

OBJECT_READS: Final = frozenset({"get", "exists", "list", "held_since"})
"""The operations of an object store that read."""

OBJECT_WRITES: Final = frozenset({"put", "settle", "claim", "hold", "sweep", "set_aside"})
"""The operations of an object store that write."""

RESULT: Final = -1
"""Stands for the result where the number of an argument is asked for."""


@attrs.frozen
class Operation:
    """What can go wrong with an operation."""

    forgotten: Callable[..., object] | None = None
    """Returns, of its arguments, what it answers when it has forgotten; `None` if it cannot forget."""
    data: int | None = None
    """The number of the argument, from 0, that has bytes which can be damaged, or `RESULT`."""
    damages: tuple[str, ...] = ("truncate", "flip")
    """What can happen to the bytes."""
    checked: bool = False
    """Whether it is one that finds damage, and says so."""
    lists: bool = False
    """Whether it returns an iterator of which things can be left out."""

    def can(self, kind: str) -> bool:
        """Tell whether a fault of this kind can happen to it."""
        match kind:
            case "forget":
                return self.forgotten is not None
            case "truncate" | "flip":
                return self.data is not None and kind in self.damages
            case "corrupt":
                return self.checked
            case "partial":
                return self.lists
        return True


def _nothing(*_: Any) -> None:
    return None


def _no(*_: Any) -> bool:
    return False


def _yes(*_: Any) -> bool:
    return True


def operation(name: str) -> Operation:
    """Return what can go wrong with the operation of this name."""
    return _OPERATIONS.get(name, _PLAIN)


_PLAIN: Final = Operation()
_OPERATIONS: Final[Mapping[str, Operation]] = {
    "has": Operation(_no),
    "missing": Operation(set),
    "chunks": Operation(_nothing, checked=True),
    # A blob that was cut short looks whole; bits are turned where its bytes come out.
    "open_read": Operation(_nothing, RESULT, ("truncate",), checked=True),
    "reader.read": Operation(None, RESULT, ("flip",), checked=True),
    "writer.write": Operation(None, 0),
    # What a writer that forgets returns only the writer can tell.
    "writer.close": Operation(_nothing),
    "list_blobs": Operation(lists=True),
    "list_items": Operation(lists=True),
    "delete": Operation(_yes),
    "has_chunk": Operation(_no),
    "claim_chunk": Operation(_no),
    "get_chunk": Operation(_nothing, RESULT, checked=True),
    "put_chunk": Operation(_nothing, 1),
    "put_index": Operation(_nothing),
    "put_indexes": Operation(_nothing),
    "get_frame": Operation(_nothing, RESULT),
    "put_frame": Operation(_nothing, 1),
    "get": Operation(_nothing, RESULT),
    "exists": Operation(_no),
    "claim": Operation(_no),
    "put": Operation(_nothing, 1),
    "settle": Operation(_nothing, 0),
    "list": Operation(lists=True),
}
