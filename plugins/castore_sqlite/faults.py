"""What SQLite says when something is wrong, in words that name the file and the way out."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_DAMAGES: Final = {
    sqlite3.SQLITE_CORRUPT: "",
    sqlite3.SQLITE_INTERRUPT: "a question takes longer than it could in any file of castore's",
    sqlite3.SQLITE_TOOBIG: "a row is longer than any",
}


def primary_code(error: sqlite3.Error) -> int:
    """Return the code of an error without its finer distinctions; 0 if SQLite was not asked at all."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else has the file locked."""
    return primary_code(error) in _BUSY


def is_unwritable(error: sqlite3.Error) -> bool:
    """Tell whether SQLite could not make, or write to, the files beside a database."""
    return primary_code(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def explain(error: sqlite3.Error, path: Path, busy_timeout: float) -> str:
    """Return what is wrong with the file at *path*, and what to do about it."""
    code = primary_code(error)
    if code in _BUSY:
        return (
            f"{path} has been locked by another program for more than {busy_timeout:g} s;"
            " see what it does there, or allow for more with `busy_timeout`"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return f"{path} is no SQLite database: name another file as `path`, or move this one away"
    if code in _DAMAGES:
        return damaged(_DAMAGES[code] or str(error), path)
    if code == sqlite3.SQLITE_FULL:
        return f"{path} cannot grow: no space left on device"
    if code == sqlite3.SQLITE_CANTOPEN and path.is_dir():
        return f"{path} is a folder: name a file in it as `path`"
    reason = _why(path) if is_unwritable(error) else ""
    return f"{path}: {error}{reason}"


def _why(path: Path) -> str:
    """Return what is seen of a file from outside: to open and close it would end SQLite's locks on it."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f" (nothing can be made in {path.parent})"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return " (this user may not read and write it)"
    return ""


def damaged(why: str, path: Path) -> str:
    """Return what to do about a file that is damaged."""
    return (
        f"{path} is damaged ({why}): put a copy of it in its place;"
        " without one, `sqlite3 FILE .recover` gets most out of it"
    )
