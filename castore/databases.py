"""SQLite files that somebody else may have made: what is believed of them, and what may take how long.

A file is a program, too: a view, a trigger or a generated column runs whenever its table is looked at.
So nothing is asked of a file before its tables are known to be castore's own (`has_own_tables`). What remains
has bounds: the length of a row, and the steps of a statement.
"""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises about a file: it quotes bytes of it in messages, which need not be text."""

_STEPS: Final = 1_000_000
"""After so many steps of its virtual machine SQLite asks whether to go on; they take some 20 ms."""

_DEFINITIONS: Final = (
    "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'"
    " ORDER BY type, name"
)


class _Budget:
    """Counts what a statement takes. It knows no connection, which would keep itself alive by it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.left = most

    def begin(self) -> None:
        self.left = self._most

    def spend(self) -> bool:
        """Return whether it is too much."""
        self.left -= 1
        return self.left < 0


class OwnedConnection(sqlite3.Connection):
    """Closes itself when it is collected, with an owner that nobody has closed. Give it as `factory`."""

    # At the end of a program the names of modules may be gone already.
    _error = sqlite3.Error

    _budget: _Budget | None = None

    def guard(self, *, longest: int, steps: int) -> None:
        """Believe nothing of the file that is not asked for.

        Arguments:
            longest: How many bytes a row, or a value, may have; a longer one is an error.
            steps: How many steps a statement may take, in millions: some 20 to 50 a second.
        """
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
        self.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for pragma in ("trusted_schema = 0", "cell_size_check = 1", "mmap_size = 0"):
            super().execute(f"PRAGMA {pragma}").close()
        self._budget = budget = _Budget(steps)
        self.set_progress_handler(budget.spend, _STEPS)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement, within what one may take."""
        if self._budget is not None:
            self._budget.begin()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement several times, within what one may take."""
        if self._budget is not None:
            self._budget.begin()
        return super().executemany(*args)

    def __del__(self) -> None:
        try:  # noqa: SIM105 - as may be that of `suppress`
            self.close()
        except self._error:
            pass


def never_free(connection: sqlite3.Connection | None) -> None:
    """Keep a connection from being closed, also by the collector of Python's garbage.

    For those that the parent of a fork has opened: SQLite says that a child must not even close them.
    """
    if connection is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def has_own_tables(connection: sqlite3.Connection, script: str, optional: Sequence[str] = ()) -> bool:
    """Tell whether a file has the tables, indexes, views and triggers that *script* makes, and no others.

    *optional* are scripts that may have been run as well, each of which makes tables without AUTOINCREMENT.
    """
    found = [tuple(map(_as_text, row)) for row in connection.execute(_DEFINITIONS).fetchall()]
    expected = set(_made_by(script))
    for more in optional:
        if expected.isdisjoint(made := _made_by(more)) and set(made) <= set(found):
            expected.update(made)
    return len(found) == len(expected) and set(found) == expected


@cache
def _made_by(script: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        return connection.execute(_DEFINITIONS).fetchall()


def _as_text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def describe_error(error: Exception) -> str:
    """Return what SQLite says, also where that is no text."""
    if isinstance(error, UnicodeDecodeError):
        return f"the file is damaged ({error.object.decode('utf-8', 'replace')})"
    return str(error)
