"""The file in which all processes that share a store keep its accounts, and the lock that they take turns by.

The lock is a locked file. It ends with the process that has it, however that dies, and those who wait for
it sleep; SQLite's own would have them ask again and again. So SQLite never finds its file busy, and a
transaction is in it as a whole or not at all, whoever is killed. It is not flushed: after the machine was
started anew it is checked, and the store looked through.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from castore import UnavailableError, owned
from castore.databases import ERRORS, OwnedConnection, describe_error
from castore.threads.deadlines import Deadlines
from castore.threads.process_locks import lock
from castore_lru import schema
from castore_lru.owners import boot_id

_FILE: Final = "journal.sqlite"
_LOCK: Final = "lock"
_SCAN_LOCK: Final = "scan-lock"
_BUSY_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 60.0
_SCAN_SECONDS: Final = 600.0
"""How long another process is waited for: one that was stopped must not stop all the others."""

_MAGIC: Final = b"SQLite format 3\0"
_ID_AT: Final = 68
_HEAD: Final = 72
"""How a file of SQLite begins, and where the number of its program is; after that so much has been read."""

_LONGEST: Final = 64 << 20
_MOST_STEPS: Final = 2_000
"""Bounds of a row, in bytes, and of a statement, in millions of steps: some look at each item of a store."""

_LOG_PAGES: Final = 256
_LOG_BYTES: Final = 1 << 20
"""The log is kept short: it lies in the folder whose bytes are to be bounded."""


class Journal:
    """The journal in *folder*, or in memory without one. *instance* names the service in errors."""

    def __init__(self, folder: Path | None, instance: str) -> None:
        self.folder = folder
        self.instance = instance
        self._start_anew()

    def _start_anew(self) -> None:
        self._turn = threading.Lock()
        self._holder: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._deadlines = Deadlines(self.instance)

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.folder is not None and os.path.exists(f"{self.folder}/{_FILE}")

    @property
    def held_here(self) -> bool:
        """Whether this very thread has its turn."""
        return self._holder == threading.get_ident()

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for who has its turn."""
        if self._connection is None:
            raise UnavailableError(self.instance, "the service is closed")
        return self._connection

    def open(self) -> None:
        """Open the file; make it if it is not there, and anew if it is not whole."""
        with self._reporting():
            if self.folder is None:
                self._connection = _connect(":memory:")
                schema.create(self._connection)
                return
            owned.require_no_link(self.folder)
            owned.make_folders(self.folder)
            with self._locking(_LOCK, _TURN_SECONDS):
                self._connection = _open_file(f"{self.folder}/{_FILE}")

    def close(self) -> None:
        """Close the file."""
        with self._reporting(), self._turn:
            self._deadlines.close()
            self._deadlines = Deadlines(self.instance)
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def forget(self) -> None:
        """Let go of what another process has opened, without touching it: after a fork."""
        if self._connection is not None:
            # SQLite says that a fork must not even close it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._start_anew()

    @contextlib.contextmanager
    def locked(self) -> Iterator[sqlite3.Connection]:
        """Let nobody else, in any process, change the journal or remove what the store keeps."""
        with (
            self._reporting(),
            self._taking_turns() as connection,
            self._locking(_LOCK, _TURN_SECONDS),
        ):
            yield connection

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction under the lock."""
        with self.locked() as connection, transaction(connection):
            yield connection

    @contextlib.contextmanager
    def scanning(self) -> Iterator[None]:
        """Let nobody else look through the store."""
        with self._reporting(), self._locking(_SCAN_LOCK, _SCAN_SECONDS):
            yield

    @contextlib.contextmanager
    def _locking(self, name: str, seconds: float) -> Iterator[None]:
        """Lock a file of the folder; raise `UnavailableError` if another process has it for so long."""
        if self.folder is None:
            yield
            return
        path = f"{self.folder}/{name}"
        # Opened anew each time: one that is waited for in vain may be locked later, and is closed then.
        descriptor = owned.open_lock(path)
        try:
            lock(descriptor, fcntl.LOCK_EX, wait=0)
        except BlockingIOError:
            self._wait_for(descriptor, name, seconds)
        except OSError as error:
            os.close(descriptor)
            error.filename = path
            raise
        try:
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int, name: str, seconds: float) -> None:
        waiting = self._deadlines.start(
            lambda: fcntl.flock(descriptor, fcntl.LOCK_EX), late=lambda _: os.close(descriptor)
        )
        try:
            waiting.result(seconds)
        except UnavailableError:
            message = f"another process has had {self.folder}/{name} locked for {seconds:g} s"
            raise UnavailableError(self.instance, message) from None
        except OSError:
            os.close(descriptor)
            raise

    @contextlib.contextmanager
    def _taking_turns(self) -> Iterator[sqlite3.Connection]:
        if not self._turn.acquire(timeout=_SCAN_SECONDS):
            raise UnavailableError(self.instance, f"its journal was in use for {_SCAN_SECONDS:g} s")
        self._holder = threading.get_ident()
        try:
            yield self.connection
        finally:
            self._holder = None
            self._turn.release()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except ERRORS as error:
            said = describe_error(error)
            what = f"its journal in {self.folder}: {said}; that folder may be removed while nobody uses it"
            raise UnavailableError(self.instance, what) from error
        except OSError as error:
            raise UnavailableError(self.instance, error) from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the context, or nothing of it after an exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=OwnedConnection
    )
    try:
        connection.guard(longest=_LONGEST, steps=_MOST_STEPS)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_file(path: str) -> sqlite3.Connection:
    """Open the file; replace one that is damaged, or of another version: accounts can be made anew."""
    _require_own(path)
    connection = _connect(path)
    try:
        if schema.is_there(connection):
            _prepare(connection)
            if schema.is_whole(connection, boot_id()):
                return connection
            usable = False
        else:
            usable = schema.is_empty(connection)
            if not usable and not schema.is_own(connection):
                raise _foreign(path)
    except sqlite3.OperationalError:
        connection.close()
        raise
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        usable = False
    except BaseException:
        connection.close()
        raise
    if not usable:
        connection.close()
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        connection = _make(path)
    try:
        _prepare(connection)
        schema.create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_own(path: str) -> None:
    """Make the file unless it is there; one that is no database is moved aside, as it may be anybody's.

    Raises `OSError` for the database of another program.
    """
    owned.require_no_links_beside(path)
    descriptor = owned.open_lock(path)
    try:
        head = os.pread(descriptor, _HEAD, 0)
    finally:
        os.close(descriptor)
    if not head:
        return
    if not head.startswith(_MAGIC):
        number = 1
        while os.path.lexists(aside := f"{path}~{number}"):
            number += 1
        os.rename(path, aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        os.close(owned.open_lock(path))
    elif head[_ID_AT:] not in (bytes(4), schema.APPLICATION_ID.to_bytes(4, "big")):
        # One of no number may be castore's, whose number is in its log.
        raise _foreign(path)


def _foreign(path: str) -> OSError:
    return OSError(errno.EEXIST, "This is a database of another program; move it elsewhere", path)


def _make(path: str) -> sqlite3.Connection:
    os.close(owned.open_lock(path))
    return _connect(path)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
