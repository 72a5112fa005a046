"""The file in which all processes that share a store keep its accounts, and the lock that they take turns by.

The lock is a locked file. It ends with the process that has it, however that dies, and those who wait for
it sleep; SQLite's own would have them ask again and again. So SQLite never finds its file busy, and a
transaction is in it as a whole or not at all, whoever is killed. It is not flushed: after the machine was
started anew it is checked, and the store looked through.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from castore import ClosedError, UnavailableError, owned
from castore.databases import ERRORS, OwnedConnection, describe_error, never_free
from castore.threads import forks
from castore.threads.deadlines import Deadlines
from castore.threads.process_locks import lock, open_to_lock
from castore.threads.waiting import Baton, Holder
from castore_lru import schema
from castore_lru.owners import boot_id

_FILE: Final = "journal.sqlite"
_LOCK: Final = "lock"
_SCAN_LOCK: Final = "scan-lock"
_BUSY_SECONDS: Final = 30.0
_TURN_SECONDS: Final = 60.0
_SCAN_SECONDS: Final = 600.0
"""How long another process is waited for: one that was stopped must not stop all the others."""

_LONGEST: Final = 64 << 20
_MOST_STEPS: Final = 2_000
"""Bounds of a row, in bytes, and of a statement, in millions of steps: some look at each item of a store."""

_LOG_PAGES: Final = 256
_LOG_BYTES: Final = 1 << 20
"""The log is kept short: it lies in the folder whose bytes are to be bounded."""


class Journal:
    """The journal in *folder*, or in memory without one.

    *instance* names the service in errors; *make_folder* makes the folder where it may be made.
    """

    def __init__(
        self, folder: Path | None, instance: str, make_folder: Callable[[], None] = lambda: None
    ) -> None:
        self.folder = folder
        self.instance = instance
        self._make_folder = make_folder
        self._turn = Baton()
        self._locked: dict[str, io.FileIO] = {}
        """The locked files, by their names: of each there is one at a time."""
        self._connection: sqlite3.Connection | None = None
        self._opens_again = False
        """Whether the connection was closed for a moment only."""
        self._deadlines = Deadlines(instance)
        forks.begin_anew_in_child(self)
        forks.let_go_before_fork(self)

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.folder is not None and os.path.exists(f"{self.folder}/{_FILE}")

    @property
    def held_here(self) -> bool:
        """Whether this very thread has its turn."""
        return self._turn.is_mine

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for who has its turn."""
        if self._connection is None and self._opens_again and self.folder is not None:
            self._connection = _open_file(f"{self.folder}/{_FILE}")
        if self._connection is None:
            raise ClosedError("the service is closed")
        return self._connection

    def open(self) -> None:
        """Open the file; make it if it is not there, and anew if it is not whole."""
        with forks.held_off(), self._reporting():
            if self.folder is None:
                self._connection = _connect(":memory:")
                schema.create(self._connection)
                return
            owned.require_no_link(self.folder)
            self._make_folder()
            with self._taking_turns(), self._locking(_LOCK, _TURN_SECONDS):
                self._connection = _open_file(f"{self.folder}/{_FILE}")

    def close(self) -> None:
        """Close the file."""
        with forks.held_off(), self._reporting(), self._taking_turns():
            self._deadlines.close()
            self._deadlines = Deadlines(self.instance)
            self._opens_again = False
            for file in self._locked.values():
                file.close()  # Only one who was interrupted has left it open.
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def let_go(self) -> None:
        """Close the connection before a fork, unless somebody uses it; it opens again when it is needed.

        SQLite remembers in memory which locks the process has on a file: a child would believe that it has
        those of its parent.
        """
        mine = Holder()
        if self.folder is None or self.held_here or not self._turn.take(mine, 0.0):
            return
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection, self._opens_again = None, True
        finally:
            self._turn.give_back(mine)

    def begin_anew(self) -> None:
        """Let go of what another process has open, without touching it: in a child of a fork."""
        never_free(self._connection)
        self._connection = None
        self._locked = {}
        self._opens_again = False

    @contextlib.contextmanager
    def locked(self) -> Iterator[sqlite3.Connection]:
        """Let nobody else, in any process, change the journal or remove what the store keeps."""
        with (
            # SQLite has locks of its own, and remembers in memory who has the file's.
            forks.held_off(),
            self._reporting(),
            self._taking_turns(),
            self._locking(_LOCK, _TURN_SECONDS),
        ):
            connection = self.connection
            try:
                _roll_back(connection)  # What one has left who was interrupted.
                yield connection
            except Exception:
                _roll_back(connection)
                raise
            except BaseException:
                self._leave(connection)
                raise

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Let nothing be left of one who is interrupted, before the lock is given back.

        A statement that was not read to its end would stay at what it sees for as long as the traceback is
        kept, and SQLite let nobody write by its connection once another process has written.
        """
        _roll_back(connection)
        if self.folder is not None and connection is self._connection:
            self._connection, self._opens_again = None, True
            connection.close()

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
        file = open_to_lock(path)
        if name in self._locked:
            self._locked[name].close()  # Left by one who was interrupted, unless it is closed.
        self._locked[name] = file
        try:
            lock(file.fileno(), fcntl.LOCK_EX, wait=0)
        except BlockingIOError:
            self._wait_for(file, name, seconds)
        except OSError as error:
            file.close()
            error.filename = path
            raise
        with file:
            yield

    def _wait_for(self, file: io.FileIO, name: str, seconds: float) -> None:
        waiting = self._deadlines.start(lambda: fcntl.flock(file, fcntl.LOCK_EX), late=lambda _: file.close())
        try:
            waiting.result(seconds)
        except UnavailableError:
            message = f"another process has had {self.folder}/{name} locked for {seconds:g} s"
            raise UnavailableError(self.instance, message) from None
        except OSError:
            file.close()
            raise

    @contextlib.contextmanager
    def _taking_turns(self) -> Iterator[None]:
        mine = Holder()
        if not self._turn.take(mine, _SCAN_SECONDS):
            raise UnavailableError(self.instance, f"its journal was in use for {_SCAN_SECONDS:g} s")
        try:
            yield
        finally:
            self._turn.give_back(mine)

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


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done in the context, or nothing of it after an exception."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # It is closed by now if this is what an interrupt has left, which Python frees late.
        with contextlib.suppress(sqlite3.ProgrammingError):
            _roll_back(connection)
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
    if os.path.islink(path):
        reason = "This is a link, where castore keeps a file of its own; move it"
        raise OSError(errno.ELOOP, reason, path)
    with contextlib.suppress(FileExistsError):
        owned.make_database_file(path)
    try:
        is_foreign = _is_foreign(path)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_NOTADB:
            return  # It is damaged, which is looked at later.
        _move_aside(path)
        return
    if is_foreign:
        raise _foreign(path)


def _is_foreign(path: str) -> bool:
    """Look at a file as it is, without its log: another program's must not be changed by looking at it.

    Not by opening it: closing it would end the locks that SQLite has on it in another service.
    """
    with contextlib.closing(
        sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True, factory=OwnedConnection)
    ) as connection:
        # One that has nothing may be castore's, with all that it has in its log.
        return not schema.is_own(connection) and not schema.is_empty(connection)


def _move_aside(path: str) -> None:
    number = 1
    while os.path.lexists(aside := f"{path}~{number}"):
        number += 1
    os.rename(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    owned.make_database_file(path)


def _foreign(path: str) -> OSError:
    return OSError(errno.EEXIST, "This is a database of another program; move it elsewhere", path)


def _make(path: str) -> sqlite3.Connection:
    owned.make_database_file(path)
    return _connect(path)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
