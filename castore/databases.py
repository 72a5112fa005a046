"""SQLite connections that close themselves when they are dropped."""

from __future__ import annotations

import sqlite3


class OwnedConnection(sqlite3.Connection):
    """Closes itself when it is collected, with an owner that nobody has closed. Give it as `factory`."""

    # At the end of a program the names of modules may be gone already.
    _error = sqlite3.Error

    def __del__(self) -> None:
        try:  # noqa: SIM105 - as may be that of `suppress`
            self.close()
        except self._error:
            pass
