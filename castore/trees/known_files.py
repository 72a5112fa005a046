"""What files of this machine were when they were stored last, so that those that are the same are not read.

One SQLite file for each place where trees go, in the user's cache folder; it may be removed at any time. It
has a row for each folder: the names in it, what the system said of each file, and the digests. A file is
known if all that is compared is as it was. That its blob is still there is for others to ask.

A file that was written to a moment before it was read may be written to once more within the same tick of
the clock, and look the same afterwards. So only what was older than `slack` when it was read is remembered.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, get_args

import attrs
from blake3 import blake3

from castore.databases import ERRORS, OwnedConnection, describe_error, has_own_tables, never_free
from castore.digest import DIGEST_SIZE, B3Digest
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.threads import forks
from castore.trees.folders import MetEntry

Compared: TypeAlias = Literal["ctime,mtime,size,inode", "mtime,size,inode", "mtime,size"]
"""What must be as it was. Without `ctime` for files that are often linked, or whose modes change; without
`inode` for file systems that number files anew, as some of networks do."""

COMPARED: Final[tuple[Compared, ...]] = get_args(Compared)

_STATUS: Final = struct.Struct("<IQqqQ")
"""Kind and the owner's right to execute, size, time of change, time of change of the status, number."""

_DIGESTS: Final = struct.Struct(f"{DIGEST_SIZE}s")

STATUS_SIZE: Final = _STATUS.size
MODE_SIZE: Final = 4
NO_STATUS: Final = bytes(STATUS_SIZE)
_OF_KIND: Final = 0o170000
_KIND: Final = _OF_KIND | stat.S_IXUSR

_HEAD: Final = struct.Struct("<III32sQQ")
_CHECK: Final = 16

_SLACK_NS: Final = 2 * 10**9
_SLACK_OF_NETWORKS_NS: Final = 600 * 10**9
_NETWORKS: Final = frozenset(
    (
        *("9p", "afs", "ceph", "cifs", "coda", "fuse", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("ocfs2", "orangefs", "smb3", "smbfs", "vboxsf", "virtiofs"),
    )
)

_DAY: Final = 86_400
_KEPT_DAYS: Final = 90
_TOGETHER: Final = 4 << 20
"""So many bytes of rows are written with one transaction."""

_PATIENCE: Final = 5.0
_LONGEST_ROW: Final = 256 << 20
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE known_folders (
    path BLOB NOT NULL PRIMARY KEY,
    met INTEGER NOT NULL,
    row BLOB NOT NULL
);
CREATE INDEX known_folders_met ON known_folders (met);
"""


def status_of(status: os.stat_result) -> bytes:
    """Return what is remembered of a file."""
    return _STATUS.pack(
        status.st_mode & _KIND, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    )


def status_of_kind(kind: int) -> bytes:
    """Return what stands for a folder or a link."""
    return _STATUS.pack(kind, 0, 0, 0, 0)


_NO_DIGEST: Final = bytes(DIGEST_SIZE)
FOLDER_STATUS: Final = status_of_kind(stat.S_IFDIR)
LINK_STATUS: Final = status_of_kind(stat.S_IFLNK)


@attrs.frozen
class KnownFolder:
    """A folder as it was.

    Attributes:
        names: Those in it, in bytewise order, with `/` between them.
        statuses: What was remembered of each, `STATUS_SIZE` bytes; `NO_STATUS` of what may have changed.
        digests: That of each file and folder; zeros for a link.
        links: The targets of the links in it, with NULs between them.
        digest: That of its directory.
        size: What an entry for that says.
        length: How many bytes its encoding has.
    """

    names: bytes
    statuses: bytes
    digests: bytes
    links: bytes
    digest: B3Digest
    size: int
    length: int

    def entries(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Yield name, status and digest of each."""
        if not self.names:
            return
        statuses, digests = self.statuses, self.digests
        for number, name in enumerate(self.names.split(b"/")):
            at, begin = number * STATUS_SIZE, number * DIGEST_SIZE
            yield name, statuses[at : at + STATUS_SIZE], digests[begin : begin + DIGEST_SIZE]

    @classmethod
    def of(cls, directory: Directory, statuses: Mapping[bytes, bytes]) -> KnownFolder:
        """Return what is to be remembered of a directory, with the statuses of files that may be."""
        kept: list[bytes] = []
        digests: list[bytes] = []
        links: list[bytes] = []
        for name, node in directory.items():
            if isinstance(node, SymlinkNode):
                kept.append(LINK_STATUS)
                digests.append(_NO_DIGEST)
                links.append(node.target)
            else:
                kept.append(
                    FOLDER_STATUS if isinstance(node, DirectoryNode) else statuses.get(name, NO_STATUS)
                )
                digests.append(node.digest)
        return cls(
            b"/".join(directory),
            b"".join(kept),
            b"".join(digests),
            b"\0".join(links),
            directory.digest,
            directory.size,
            len(directory.encoded),
        )

    def nodes(self) -> dict[bytes, Node]:
        """Return the files and links in it; of the folders the sizes are not remembered."""
        found: dict[bytes, Node] = {}
        links = iter(self.links.split(b"\0"))
        for name, status, digest in self.entries():
            mode, size, _, _, _ = _STATUS.unpack(status)
            if status == LINK_STATUS:
                found[name] = SymlinkNode(SymlinkTarget(next(links)))
            elif status not in (FOLDER_STATUS, NO_STATUS):
                found[name] = FileNode(B3Digest(digest), size, bool(mode & stat.S_IXUSR))
        return found

    def has_folders(self, folders: Mapping[bytes, Node]) -> bool:
        """Tell whether the folders in it were these."""
        found = 0
        at = self.statuses.find(FOLDER_STATUS)
        if at < 0:
            return not folders
        for name, status, digest in self.entries():
            if status == FOLDER_STATUS:
                node = folders.get(name)
                if not isinstance(node, DirectoryNode) or node.digest != digest:
                    return False
                found += 1
        return found == len(folders)

    def is_of(self, entries: Iterable[MetEntry], read_link: Callable[[bytes], bytes]) -> bool:
        """Tell whether a folder is as it was, as far as that shows without what is in those within it.

        Arguments:
            entries: What is in it, in bytewise order.
            read_link: What gives the target of a link in it; it may raise `OSError`.
        """
        names, statuses, links = [], [], []
        for name, kind, status in entries:
            if kind == stat.S_IFREG and status is not None:
                statuses.append(status_of(status))
            elif kind == stat.S_IFDIR:
                statuses.append(FOLDER_STATUS)
            elif kind == stat.S_IFLNK:
                statuses.append(LINK_STATUS)
                links.append(name)
            else:
                continue
            names.append(name)
        if b"".join(statuses) != self.statuses or b"/".join(names) != self.names:
            return False
        try:
            return b"\0".join(map(read_link, links)) == self.links
        except OSError:
            return False

    def files(self) -> Iterator[tuple[B3Digest, int]]:
        """Yield digest and size of each file of which a status is remembered."""
        statuses, digests = _STATUS.iter_unpack(self.statuses), _DIGESTS.iter_unpack(self.digests)
        for (kind, size, _, _, _), (digest,) in zip(statuses, digests, strict=False):
            if kind & _OF_KIND == stat.S_IFREG:
                yield B3Digest(digest), size

    def to_bytes(self, path: bytes) -> bytes:
        """Return the row of the folder at *path*."""
        lengths = (len(self.names), len(self.statuses), len(self.digests))
        head = _HEAD.pack(*lengths, self.digest, self.size, self.length)
        data = b"".join((head, self.names, self.statuses, self.digests, self.links))
        return _check(path, data) + data

    @classmethod
    def from_bytes(cls, path: bytes, row: bytes) -> KnownFolder | None:
        """Read a row; `None` for one that is damaged, or of another folder."""
        data = row[_CHECK:]
        if row[:_CHECK] != _check(path, data) or len(data) < _HEAD.size:
            return None
        names, statuses, digests, digest, size, length = _HEAD.unpack_from(data)
        begin = _HEAD.size
        ends = (begin + names, begin + names + statuses, begin + names + statuses + digests)
        return cls(
            data[begin : ends[0]],
            data[ends[0] : ends[1]],
            data[ends[1] : ends[2]],
            data[ends[2] :],
            B3Digest(digest),
            size,
            length,
        )


def _check(path: bytes, data: bytes) -> bytes:
    # Nothing is flushed for these rows: after a power cut there may be anything in the file.
    return blake3(b"%d:%b%b" % (len(path), path, data)).digest(_CHECK)


class KnownFiles:
    """What is remembered for one place where trees go. A context manager; used by one thread.

    Whatever is wrong with the file is told once, to *warn*; after that nothing is known. A file that is
    damaged, or not of this form, is begun anew.

    Arguments:
        path: The SQLite file. Its folder is made.
        compare: What of a file must be as it was.
        warn: Called with a sentence, at most once.
        now: The time in nanoseconds since 1970, as the clock of this machine says.
    """

    def __init__(
        self,
        path: Path,
        *,
        compare: Compared = COMPARED[0],
        warn: Callable[[str], object] = lambda _: None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self.compare = compare
        self._warn = warn
        self.now = now
        self._connection: sqlite3.Connection | None = None
        self._waiting: dict[bytes, bytes] = {}
        self._bytes_waiting = 0
        self._met: list[bytes] = []
        self._off = False
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Leave the file to the parent; here nothing is known."""
        never_free(self._connection)
        self._connection = None
        self._off = True

    # -- one folder --

    def folder(self, path: bytes) -> KnownFolder | None:
        """Return what is known of the folder at an absolute path."""
        connection = self._connect()
        if connection is None:
            return None
        try:
            found = connection.execute(
                "SELECT row, met FROM known_folders WHERE path = ?", (path,)
            ).fetchone()
        except ERRORS as error:
            self._give_up(error)
            return None
        if found is None or not isinstance(found[0], bytes) or len(found[0]) < _CHECK + _HEAD.size:
            return None
        known = KnownFolder.from_bytes(path, found[0])
        if known is not None and found[1] != self._today:
            self._met.append(path)
        return known

    def keep(self, path: bytes, known: KnownFolder) -> None:
        """Remember a folder; it is written later, with others."""
        if self._connect() is None:
            return
        row = known.to_bytes(path)
        if len(row) > _LONGEST_ROW // 2:
            return
        self._waiting[path] = row
        self._bytes_waiting += len(row)
        if self._bytes_waiting >= _TOGETHER:
            self._write()

    def same(self, now: bytes, then: bytes) -> bool:
        """Tell whether a file is as it was, by what is remembered of it."""
        if now == then:
            return then != NO_STATUS
        if then == NO_STATUS:
            return False
        mode, size, mtime, ctime, inode = _STATUS.unpack(now)
        mode_then, size_then, mtime_then, ctime_then, inode_then = _STATUS.unpack(then)
        return (
            (size, mtime) == (size_then, mtime_then)
            and stat.S_IFMT(mode) == stat.S_IFMT(mode_then)
            and (ctime == ctime_then or "ctime" not in self.compare)
            and (inode == inode_then or "inode" not in self.compare)
        )

    @staticmethod
    def is_settled(status: os.stat_result, before: int) -> bool:
        """Tell whether what is written to a file from now on would show.

        Arguments:
            status: What the system says of it.
            before: A moment before it was read.
        """
        slack = _SLACK_OF_NETWORKS_NS if is_of_network(status.st_dev) else _SLACK_NS
        return max(status.st_mtime_ns, status.st_ctime_ns) < before - slack

    # -- the file --

    @property
    def _today(self) -> int:
        return self.now() // 10**9 // _DAY

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is None and not self._off:
            try:
                self._connection = self._open()
            except (*ERRORS, OSError) as error:
                self._give_up(error)
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite follows links, and makes files that others can read.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = self._connect_to_file()
        try:
            if self._is_ours(connection):
                return connection
        except sqlite3.OperationalError:
            connection.close()
            raise  # It is locked, or cannot be written to.
        except ERRORS:
            pass
        connection.close()
        return self._begin_file_anew()

    def _connect_to_file(self) -> OwnedConnection:
        with forks.held_off():
            connection = sqlite3.connect(
                self._path,
                timeout=_PATIENCE,
                isolation_level=None,
                factory=OwnedConnection,
                check_same_thread=False,
            )
        assert isinstance(connection, OwnedConnection)
        connection.guard(longest=_LONGEST_ROW, steps=1000)
        return connection

    def _is_ours(self, connection: OwnedConnection) -> bool:
        """Prepare a file; False if it has anything else in it."""
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION or not has_own_tables(connection, _TABLES):
            return False
        connection.execute("PRAGMA synchronous = OFF")
        return True

    def _begin_file_anew(self) -> sqlite3.Connection:
        self._warn(f"what was known of files is damaged and is begun anew: {str(self._path)!r}")
        self._warn = lambda _: None
        for end in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}{end}")
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        connection = self._connect_to_file()
        if not self._is_ours(connection):
            connection.close()
            raise sqlite3.DatabaseError("it cannot be begun anew")
        return connection

    def _give_up(self, error: Exception) -> None:
        """Know nothing from now on."""
        reason = describe_error(error) if isinstance(error, ERRORS) else getattr(error, "strerror", error)
        if not self._off:
            self._warn(
                f"what is known of files cannot be used, so all are read: {str(self._path)!r}: {reason}"
            )
        self._off = True
        if self._connection is not None:
            with contextlib.suppress(*ERRORS):
                self._connection.close()
        self._connection = None

    def _write(self) -> None:
        """Write what waits. Another import may do the same; the last one is right as well."""
        rows, self._waiting, self._bytes_waiting = self._waiting, {}, 0
        met, self._met = self._met, []
        connection = self._connection
        if connection is None or not (rows or met):
            return
        today = self._today
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO known_folders (path, met, row) VALUES (?, ?, ?)",
                [(path, today, row) for path, row in rows.items()],
            )
            connection.executemany(
                "UPDATE known_folders SET met = ? WHERE path = ?", [(today, path) for path in met]
            )
            connection.execute("DELETE FROM known_folders WHERE met < ?", (today - _KEPT_DAYS,))
            connection.execute("COMMIT")
        except ERRORS as error:
            with contextlib.suppress(*ERRORS):
                connection.execute("ROLLBACK")
            self._give_up(error)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._write()
        self._off = True
        if self._connection is not None:
            with contextlib.suppress(*ERRORS):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=64)
def is_of_network(device: int) -> bool:
    """Tell whether another machine says when a file of this device was changed; if unsure, it is."""
    mark = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                fields = line.decode("utf-8", "replace").split(" ")
                if fields[2] == mark:
                    kind = fields[fields.index("-") + 1]
                    return kind.partition(".")[0] in _NETWORKS
    except (OSError, ValueError, IndexError):
        return True
    return False  # As subvolumes, which have devices of their own.
