"""What can go wrong with each operation, beside taking long and failing: told by the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import attrs

from castore.contract.operations import OPERATIONS, Operation

OBJECT_READS: Final = frozenset({"get", "exists", "list", "leased_since"})
"""The operations of an object store that read."""

OBJECT_WRITES: Final = frozenset({"put", "flush", "claim", "lease", "sweep", "set_aside"})
"""The operations of an object store that write."""

WRITES: Final = frozenset(str(row) for row in OPERATIONS.values() if row.writes and not row.idle)
"""The operations of a service that write, or prepare a write."""

READS: Final = frozenset(str(row) for row in OPERATIONS.values() if not row.writes and not row.idle)
"""The operations of a service that read."""

RESULT: Final = -1
"""Stands for the result where the number of an argument is asked for."""


@attrs.frozen
class Risks:
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


def risks_of(name: str) -> Risks:
    """Return what can go wrong with the operation of this name, of a service or of an object store."""
    if name in _OF_OBJECTS:
        return _OF_OBJECTS[name]
    row = OPERATIONS.get(name)
    return _PLAIN if row is None else _risks(row)


@cache
def _risks(row: Operation) -> Risks:
    # A blob that was cut short looks whole; bits are turned where its bytes come out.
    damages: tuple[str, ...] = ("flip",) if row == "reader.read" else ("truncate", "flip")
    if row == "open_read":
        return Risks(_nothing, RESULT, ("truncate",), checked=True)
    return Risks(
        forgotten=_forgotten(row),
        data=RESULT if row.receives else 0 if row.sends else None,
        damages=damages,
        checked=row.receives or row == "chunks",
        lists=row.yields == "iterator",
    )


def _forgotten(row: Operation) -> Callable[..., object] | None:
    """Return what answers as a service that has forgotten what it is asked for, or drops what it is given."""
    if row.yields is not None or row.buffered or row == "reader.read":
        return None
    match row.tells:
        case "itself":
            return _no if row == "has" else _nothing
        case "found":
            return lambda *_: {} if row.receives else set()
        case "absent":
            return set
    return _nothing if row.writes else None


def _nothing(*_: Any) -> None:
    return None


def _no(*_: Any) -> bool:
    return False


_PLAIN: Final = Risks()
_OF_OBJECTS: Final[Mapping[str, Risks]] = {
    "get": Risks(_nothing, RESULT),
    "exists": Risks(_no),
    "put": Risks(_nothing, 1),
    "list": Risks(lists=True),
}
