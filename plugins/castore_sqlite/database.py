"""The connections to one SQLite file: one that writes, and as many that read as there are readers at once.

The file has a write-ahead log (WAL): readers wait for nobody, and writers only for each other, across
threads and processes. A transaction is in the file as a whole or not at all, whatever dies meanwhile. That
the *machine* may die, too, takes a flush of the log when it is committed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

from castore import owned
from castore.composition import scrub
from castore.databases import ERRORS, OwnedConnection, describe_error, never_free
from castore.errors import CastoreError, UnavailableError, describe
from castore.format import blob_index
from castore.places import WHOLE, KeptFolder, PlaceError, Site, dangling, flush_folder
from castore.threads import forks
from castore.threads.waiting import Baton, Holder
from castore_sqlite import faults, schema

_MOST_IDLE: Final = 8
"""How many connections are kept for readers to come."""

_CHECKPOINT_PAGES: Final = 4096
"""After how many pages the log goes to the file: a page that has changed often goes there once."""

_RETRY_SECONDS: Final = 0.01

_OTHER_FILE: Final = "was moved or replaced while it was in use; try again with what is there"

_ROW: Final = 1 << 10
"""Bytes of a row beside the longest of its values."""

_MOST_STEPS: Final = 100
"""How many million steps a statement may take: the longest ones here, for a thousand rows, take a tenth."""

_FROZEN_TRIES: Final = 10
"""How often a file is read anew that somebody else has changed meanwhile."""


class _Frozen(OwnedConnection):
    """Stands for a connection where each query needs one of its own."""


class Database:
    """The file at *path*, which is made when it is first written; before that it has no rows.

    Arguments:
        path: The file.
        instance: The name of the service, for errors.
        durability: With `process` nothing is flushed but what keeps the file whole.
        busy_timeout: How many seconds to wait for the lock of another process.
        makes: How many of the last parts of its path may be made: 1 is the file alone.
        journal_size_limit: To how many bytes the log's file is cut back when all of it is in the main file.
        secrets: What of the path is shown nowhere.
        table: One of the optional tables, without which there are no rows.

    Whatever goes wrong raises `UnavailableError` with the name of the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        instance: str,
        durability: Literal["process", "full"] = "full",
        busy_timeout: float = 30.0,
        journal_size_limit: int = 64 << 20,
        makes: int = WHOLE,
        secrets: Sequence[str] = (),
        table: str | None = None,
    ) -> None:
        self._table = table
        self.path = Path(os.path.abspath(path))
        self._makes = makes
        self._place = KeptFolder(Site(self.path.parent, max(makes - 1, 0)))
        self.instance = instance
        self.durability = durability
        self._busy_timeout = busy_timeout
        self._journal_size_limit = journal_size_limit
        self._secrets = secrets
        self._writing = Baton()
        self._forget()
        forks.begin_anew_in_child(self)
        forks.let_go_before_fork(self)

    def _forget(self) -> None:
        self._readers: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._written: tuple[int, int] | None = None
        self._read: tuple[int, int] | None = None
        """The file that readers have open; what is absent there may be in another one at its path."""
        self._flushes = False

    def fetch(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query; none where there is no file yet."""
        with forks.held_off():
            return self._fetch(statement, parameters)

    def _fetch(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            readers = self._readers
            connection = self._idle_reader(readers) or self._open_reader()
            if connection is None:
                return []
            if isinstance(connection, _Frozen):
                return self._fetch_frozen(statement, parameters)
            try:
                rows = connection.execute(statement, parameters).fetchall()
            except BaseException:
                connection.close()
                raise
        except (*ERRORS, OSError, schema.SchemaError) as error:
            raise self._unavailable(error) from error
        self._put_back(connection, readers)
        return rows

    def _fetch_frozen(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run a query on a file as it is, which holds only if nobody else has changed it meanwhile."""
        for _ in range(_FROZEN_TRIES):
            before = self._look()
            with contextlib.closing(self._connect("ro", immutable=True)) as connection:
                if not schema.is_there(connection, self._table):
                    return []
                rows = connection.execute(statement, parameters).fetchall()
            if self._look() == before:
                return rows
        raise schema.SchemaError(
            "is written to all the time by somebody else, and can only be read here; wait"
        )

    def _look(self) -> tuple[int, ...]:
        """Return what tells that the file, or its log, was changed."""
        status = os.stat(self.path)
        log = 0
        with contextlib.suppress(FileNotFoundError):
            log = os.stat(f"{self.path}-wal").st_size
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, log

    @contextlib.contextmanager
    def writing(self, *, lasting: bool) -> Iterator[sqlite3.Connection]:
        """Run a transaction on the connection that is given; it is committed unless an exception ends it.

        Nobody else writes meanwhile. With *lasting*, and `full` durability, all that anybody has committed to
        the file is on the disk in the end; without it that comes with the next one that lasts.
        """
        flushes = lasting and self.durability == "full"
        try:
            # SQLite has locks of its own, and remembers in memory who has the file's.
            with forks.held_off(), self._alone():
                connection = self._open_writer()
                try:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")  # Of one who was interrupted.
                    self._set_flushing(connection, flushes)
                    connection.execute("BEGIN IMMEDIATE")
                    self._require_same_file(connection)
                    yield connection
                    if flushes:
                        connection.execute("UPDATE flushes SET number = number + 1")
                    connection.execute("COMMIT")
                except BaseException:
                    # Whatever state it is in: what is not committed is gone with the connection.
                    self._close_writer()
                    raise
        except (*ERRORS, OSError, schema.SchemaError) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Close all connections; the last one to a file writes the log into it. They open again if needed."""
        try:
            try:
                with forks.held_off(), self._alone():
                    self._close_writer()
            finally:
                # First: who brings a reader back from now on closes it.
                self._read = None
                self._close_readers()
        except ERRORS as error:
            raise self._unavailable(error) from error

    def let_go(self) -> None:
        """Close the connections that nobody uses, before a fork.

        SQLite remembers in memory which locks the process has on a file. A child would believe that it has
        those of its parent, and the parent could remove the log that the child still reads.
        """
        mine = Holder()
        if self._writing.is_mine or not self._writing.take(mine, 0.0):
            return
        try:
            self._close_writer()
            self._close_readers()
        finally:
            self._writing.give_back(mine)

    def begin_anew(self) -> None:
        """Let go of connections that another process has open all the same, in a child of a fork."""
        self._abandon()
        self._forget()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other thread write meanwhile."""
        mine = Holder()
        self._writing.take(mine)
        try:
            yield
        finally:
            self._writing.give_back(mine)

    def _abandon(self) -> None:
        self._abandon_readers()
        never_free(self._writer)
        self._writer = None

    def _abandon_readers(self) -> None:
        readers, self._readers = self._readers, []
        for connection in readers:
            never_free(connection)

    # -- readers --

    def _put_back(self, connection: sqlite3.Connection, readers: list[sqlite3.Connection]) -> None:
        if readers is not self._readers:
            never_free(connection)
        elif len(readers) < _MOST_IDLE:
            readers.append(connection)
            if self._read is None:  # It was closed meanwhile.
                self._close_readers()
        else:
            connection.close()

    def _close_readers(self) -> None:
        while (reader := _pop(self._readers)) is not None:
            reader.close()

    def _idle_reader(self, readers: list[sqlite3.Connection]) -> sqlite3.Connection | None:
        connection = _pop(readers)
        known = self._read
        if connection is not None and known is None:
            connection.close()  # As all the others are right now.
            return None
        if connection is not None and self._identity() != known:
            never_free(connection)
            self._begin_anew()
            raise schema.SchemaError(_OTHER_FILE)
        return connection

    def _begin_anew(self) -> None:
        """Let go of a file that is not at its path any more; who writes to it is to find that out himself."""
        self._abandon_readers()
        self._read = None
        mine = Holder()
        if not self._writing.is_mine and self._writing.take(mine, 0.0):
            try:
                self._abandon()
            finally:
                self._writing.give_back(mine)

    def _open_reader(self) -> sqlite3.Connection | None:
        # Before the look: another thread may make the file, and read it, right after.
        known = self._read
        identity = self._identity()
        if identity is None:
            self._require_room(known)
            return None
        connection = self._connect("rw")
        try:
            if schema.is_there(connection, self._table):
                connection.execute("PRAGMA query_only = 1")
                self._read = identity
                return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if faults.is_unwritable(error) and self._is_frozen():
                self._read = identity
                return _Frozen(":memory:")
            raise
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    def _require_room(self, known: tuple[int, int] | None) -> None:
        """Raise `OSError` unless the file, which is not there, may be made; *known* is the one that was."""
        if os.path.islink(self.path):
            raise dangling(str(self.path))
        self._place.require()
        if known is not None:
            self._begin_anew()
            raise schema.SchemaError(_OTHER_FILE)
        if not self._makes:
            reason = "There is no such file, and none is made: is a disk not mounted?"
            raise PlaceError(errno.ENOENT, reason, str(self.path))

    def _is_frozen(self) -> bool:
        """Tell whether the file is where this process may write nothing, and all of it is in the file itself.

        Then it can be read without its log, and without the file beside it that readers share.
        """
        if os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK):
            return False
        if self._look()[-1]:
            raise schema.SchemaError(
                "cannot be read where nothing may be written, as part of it is still in its log: use it once"
                " where it can be written, or read a copy of both files"
            )
        return True

    def _connect(self, mode: Literal["ro", "rw", "rwc"], *, immutable: bool = False) -> OwnedConnection:
        owned.require_no_links_beside(self.path)
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode={mode}{'&immutable=1' if immutable else ''}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=OwnedConnection,
        )
        # A damaged file may have text where bytes belong, and it need not be UTF-8.
        connection.text_factory = bytes
        try:
            connection.guard(longest=blob_index.MAX_ENCODED_SIZE + _ROW, steps=_MOST_STEPS)
        except BaseException:
            connection.close()
            raise
        return connection

    # -- the writer --

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            self._make_place()
            self._make_file()
            connection = self._connect("rwc")
            try:
                self._prepare(connection)
                self._written = self._identity()
            except BaseException:
                connection.close()
                raise
            self._writer, self._flushes = connection, True
        return self._writer

    def make_place(self) -> None:
        """Make the folder of the file, where it may be made."""
        try:
            self._make_place()
        except (OSError, schema.SchemaError) as error:
            raise self._unavailable(error) from error

    def _make_place(self) -> None:
        known = self._read
        if self._identity() is not None:
            return
        self._require_room(known)
        made = self._place.make()
        if self.durability == "full":
            for path in reversed(made):
                flush_folder(Path(path).parent)

    def lacks(self) -> str | None:
        """Return the path of the file, if it is not there."""
        return None if os.path.exists(self.path) else str(self.path)

    def _make_file(self) -> None:
        """Make the file for all who may use its folder; SQLite gives the log's the same mode."""
        # What is wrong otherwise SQLite says.
        with contextlib.suppress(OSError):
            owned.make_database_file(self.path)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        # Nothing is changed in a file before it is known to be castore's.
        there = schema.is_there(connection, self._table)
        self._use_log(connection)
        if not there:
            schema.create(connection, self._table)
        if self.durability == "full":
            flush_folder(self.path.parent)
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {self._journal_size_limit}")

    def _use_log(self, connection: sqlite3.Connection) -> None:
        # Two who begin a file at once do not wait for each other here, as they do everywhere else.
        mode = self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        if mode not in ("wal", b"wal"):
            raise schema.SchemaError("is where SQLite can keep no log; put it on a local file system")

    def _patiently(self, call: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if not faults.is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    def _set_flushing(self, connection: sqlite3.Connection, flushes: bool) -> None:
        if flushes != self._flushes:
            connection.execute(f"PRAGMA synchronous = {'FULL' if flushes else 'NORMAL'}")
            self._flushes = flushes

    def _require_same_file(self, connection: sqlite3.Connection) -> None:
        """Raise unless the file is still where it was: what is written to another would never be found."""
        if self._identity() != self._written:
            connection.execute("ROLLBACK")
            # Closing the last connection would remove the log by its name: by now that may be another's.
            self._abandon()
            raise schema.SchemaError(_OTHER_FILE)

    def _identity(self) -> tuple[int, int] | None:
        """Return what tells the file from others, `None` if it is not there."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # A statement that was not read to its end would keep the lock of its transaction for as long as
            # somebody has it, say in a traceback: SQLite closes the connection no sooner.
            with contextlib.suppress(sqlite3.Error):
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            writer.close()

    def _unavailable(self, error: Exception) -> CastoreError:
        said = self._words_of(error)
        # Also what is told in the log only.
        return UnavailableError(self.instance, scrub(said, self._secrets) if self._secrets else said)

    def _words_of(self, error: Exception) -> Any:
        if isinstance(error, UnicodeDecodeError):
            return faults.damaged(describe_error(error), self.path)
        if isinstance(error, sqlite3.Error):
            return faults.explain(error, self.path, self._busy_timeout)
        if isinstance(error, schema.SchemaError):
            return f"{self.path} {error}"
        return describe(error) if self._secrets else error


def _pop(connections: list[sqlite3.Connection]) -> sqlite3.Connection | None:
    try:
        return connections.pop()
    except IndexError:
        return None
