"""What can go wrong with each operation, beside taking long and failing: told by the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import attrs

from castore.contract.capabilities import SharedPlace
from castore.contract.operations import DIRECTORY_OPERATIONS, OPERATIONS, READER_READ, WRITER_CLOSE, Operation

OBJECT_READS: Final = frozenset({"get", "get_range", "exists", "list", "list_below", "leased_since"})
"""The operations of an object store that read."""

OBJECT_WRITES: Final = frozenset(
    {"put", "put_pieces", "replace", "flush", "claim", "lease", "sweep", "set_aside"}
)
"""The operations of an object store that write."""

_ROWS: Final = (*OPERATIONS.values(), *DIRECTORY_OPERATIONS.values())

WRITES: Final = frozenset(str(row) for row in _ROWS if row.writes and not row.idle)
"""The operations of a service that write, or prepare a write."""

READS: Final = frozenset(str(row) for row in _ROWS if not row.writes and not row.idle)
"""The operations of a service that read."""


@attrs.frozen
class Risks:
    """What can go wrong with an operation."""

    forgotten: Callable[[], object] | None = None
    """Returns what it answers when it has forgotten all; `None` if it cannot forget."""
    sent: str | int | None = None
    """The argument, by name or by number from 0, that has bytes which can be damaged."""
    received: bool = False
    """Whether the result has bytes which can be damaged."""
    damages: tuple[str, ...] = ("truncate", "flip")
    """What can happen to the bytes."""
    checked: bool = False
    """Whether it is one that finds damage, and says so."""
    lists: bool = False
    """Whether it returns an iterator of which things can be left out."""
    items: bool = False
    """Whether something can go wrong with each of the items that it is called for."""
    lost_alone: bool = False
    """Whether an item can fail while others do not."""

    def can(self, kind: str) -> bool:
        """Tell whether a fault of this kind can happen to it."""
        match kind:
            case "forget":
                return self.forgotten is not None
            case "truncate" | "flip":
                return (self.sent is not None or self.received) and kind in self.damages
            case "corrupt":
                return self.checked
            case "partial":
                return self.lists
        return True


def risks_of(operation: str) -> Risks:
    """Return what can go wrong with an operation, of a service by its row, of an object store by its name."""
    if isinstance(operation, Operation):
        return _risks(operation, operation.capability)
    return _OF_OBJECTS.get(operation, _PLAIN)


@cache
def _risks(row: Operation, _: type | None) -> Risks:
    # A blob that was cut short looks whole; bits are turned where its bytes come out.
    opens = row.tells == "itself" and not row.question
    damages = ["truncate"] if opens else ["flip"] if row is READER_READ else ["truncate", "flip"]
    items = row.items is not None and row.yields is None
    # What others have not flushed yet is left out if anything is wrong with it.
    says_why = row.receives and row.capability is not SharedPlace
    return Risks(
        forgotten=_forgotten(row),
        sent=row.sends,
        received=opens or row.receives,
        damages=tuple(damages),
        checked=says_why or (row.tells == "itself" and not _answers(row, bool)),
        lists=row.yields == "iterator" and row.items is None and not row.writes,
        items=items,
        lost_alone=items and (row.writes or says_why),
    )


def _forgotten(row: Operation) -> Callable[[], object] | None:
    """Return what answers as a service that has forgotten what it is asked for, or drops what it is given."""
    if row.tells is not None:
        return bool if _answers(row, bool) else _nothing
    if row is WRITER_CLOSE or (row.writes and _answers(row, None)):
        return _nothing
    return _yes if row.writes and _answers(row, bool) else None


def _answers(row: Operation, kind: type | None) -> bool:
    """Tell whether the method says that it returns just this: a class, or nothing."""
    method = None if row.capability is None else getattr(row.capability, row, None)
    said = getattr(method, "__annotations__", {}).get("return", "")
    return said in {kind, "None" if kind is None else kind.__name__}


def _nothing() -> None:
    return None


def _yes() -> bool:
    return True


_PLAIN: Final = Risks()
_OF_OBJECTS: Final[Mapping[str, Risks]] = {
    "get": Risks(_nothing, received=True),
    "get_range": Risks(_nothing, received=True),
    "exists": Risks(bool),
    "claim": Risks(bool),
    "put": Risks(_nothing, sent=1),
    "put_pieces": Risks(_nothing, sent=1),
    "replace": Risks(_yes, sent=1),
    "flush": Risks(_nothing, sent=0),
    "list": Risks(lists=True),
    "list_below": Risks(lists=True),
}
