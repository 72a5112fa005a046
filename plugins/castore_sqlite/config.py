"""Configuration of `sqlite`.

Defaults: chunks as `objectstore` makes them; what is stored survives a power cut; a writer waits for half a
minute for another one.

Example::

    [blobservices.root]
    type = "sqlite"
    path = "./blobs.sqlite"
    durability = "full"            # or "process": no flushes
    busy_timeout = "30 s"
    journal_size_limit = "64 MiB"
    avg_chunk_size = "256 KiB"     # 512 B to 2097153 B
    chunker = "fastcdc-2020"
    compression_level = 3
    create = "parent"              # or "path": the folders above it, too; false: nothing is made

    [directoryservices.root]
    type = "sqlite"
    path = "./blobs.sqlite"        # directories and blobs may share a file

    [refservices.root]
    type = "sqlite"
    path = "./blobs.sqlite"        # and refs as well
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self
from urllib.parse import unquote

import attrs

from castore import BlobService
from castore.composition import (
    Between,
    BuildContext,
    ByteSize,
    Duration,
    InvalidValueError,
    ServiceUrl,
    Traits,
    View,
    read_query,
    secrets_in,
)
from castore.contract.directories import Complete, DirectoryService
from castore.contract.refs import RefService
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_AVG_SIZE, MIN_AVG_SIZE, Chunker, FastCdc2020
from castore.places import Create, locate

if TYPE_CHECKING:
    from castore_sqlite.database import Database

# Written out: importing zstandard for two numbers would cost every program that has the plugin.
_DEFAULT_AVG_SIZE: Final = ByteSize(DEFAULT_AVG_SIZE)
_DEFAULT_LEVEL: Final = 3
_DEFAULT_TIMEOUT: Final = Duration(30.0)
_DEFAULT_JOURNAL: Final = ByteSize(64 << 20)
_LEVELS: Final = Between(-7, 22)


@attrs.frozen
class FileFields:
    """Which SQLite file, and how it is written: what all types have that keep things in one."""

    path: Path = attrs.field()
    """The file; a relative path starts at the composition's folder."""
    durability: Literal["process", "full"] = "full"
    """What is stored survives a power cut (`full`) or a killed program (`process`)."""
    busy_timeout: Annotated[Duration, Between(0, 86400)] = _DEFAULT_TIMEOUT
    """How long a writer waits for another program's that has the file locked."""
    journal_size_limit: Annotated[ByteSize, Between(0, 1 << 40)] = _DEFAULT_JOURNAL
    """To how much the file `<path>-wal` is cut back once all of it is in the main file."""
    create: Create = "parent"
    """What is made with the first row if it is not there: the file, all of its path, or nothing."""

    @path.validator
    def _check_path(self, attribute: attrs.Attribute[Path], value: Path) -> None:
        # The attribute tells castore which key is meant.
        if not value.name:
            raise ValueError("a file is needed, such as `./blobs.sqlite`", attribute)
        if "\0" in str(value):
            raise ValueError("the path has a NUL byte", attribute)
        if str(value) == ":memory:":
            raise ValueError('for blobs in memory use `type = "memory"`', attribute)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `sqlite:` and a path, percent-decoded, whose query has the other fields."""
        parsed = ServiceUrl.parse(url)
        if parsed.scheme:
            raise InvalidValueError("a `sqlite` URL has no second scheme", "write `sqlite:` and a path")
        if parsed.authority is not None:
            # Elsewhere `sqlite:///x` is a relative path, and `file:///x` an absolute one.
            raise InvalidValueError(
                "a `sqlite` URL has no host, and no `//`",
                "write `sqlite:/folder/blobs.sqlite`, or `sqlite:blobs.sqlite` for a relative path",
            )
        if not parsed.path:
            raise InvalidValueError("the path is missing", "write `sqlite:./blobs.sqlite`, say")
        return read_query(cls, parsed, {"path": unquote(parsed.path)})

    def traits(self, view: View) -> Traits:
        """Say in which file it keeps what it has."""
        return Traits(writable=True, answers=True, place=self._place(view.base), place_field="path")

    def _place(self, base: Path) -> Path | None:
        # Where nobody knows the home that it names, that is told to who builds it.
        with contextlib.suppress(OSError):
            return locate(base, self.path, self.create).path
        return None

    def database(self, name: str, context: BuildContext, table: str | None = None) -> Database:
        """Return the file, with an optional table, for the instance *name*."""
        from castore_sqlite.database import Database  # noqa: PLC0415 - once it is named

        found = locate(context.base, self.path, self.create)
        return Database(
            found.path,
            makes=found.makes,
            instance=name,
            durability=self.durability,
            busy_timeout=self.busy_timeout,
            journal_size_limit=self.journal_size_limit,
            secrets=secrets_in(self.path),
            table=table,
        )


@attrs.frozen
class SqliteConfig(FileFields):
    """Blobs in one SQLite file. URL form: `sqlite:<path>?<fields>`."""

    avg_chunk_size: Annotated[ByteSize, Between(MIN_AVG_SIZE, MAX_AVG_SIZE)] = _DEFAULT_AVG_SIZE
    """The average size of new chunks; they are between half and twice as large."""
    chunker: type[Chunker] = FastCdc2020
    """How new blobs are cut; chunks are only shared between blobs that were cut alike."""
    compression_level: Annotated[int, _LEVELS] = _DEFAULT_LEVEL
    """The zstd level of new chunks, from -7 (fastest) to 22 (smallest)."""

    def traits(self, view: View) -> Traits:
        """Say how it cuts blobs as well."""
        return attrs.evolve(super().traits(view), cuts=f"{self.chunker.__name__} {self.avg_chunk_size}")

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service."""
        from castore_sqlite.service import SqliteBlobService  # noqa: PLC0415 - once somebody asks

        return issubclass(SqliteBlobService, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service. The file is made when the first blob is written, not before."""
        from castore_sqlite.service import SqliteBlobService  # noqa: PLC0415 - once it is named

        return SqliteBlobService(
            self.database(name, context),
            chunker=self.chunker,
            avg_chunk_size=self.avg_chunk_size,
            compression_level=self.compression_level,
            pool=context.pool,
        )


@attrs.frozen
class SqliteDirectoriesConfig(FileFields):
    """Directories in one SQLite file, which may be that of blobs. URL form: `sqlite:<path>?<fields>`."""

    complete: bool = True
    """Whether a directory is refused whose children are not there. As the near of a cache `false` lets single
    directories stay there, and not whole trees only."""

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service."""
        from castore_sqlite.directories import SqliteDirectoryService  # noqa: PLC0415 - once somebody asks

        return issubclass(SqliteDirectoryService, kind) and (self.complete or kind is not Complete)

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service. The file is made when the first tree is written, not before."""
        from castore_sqlite.directories import SqliteDirectoryService  # noqa: PLC0415 - once it is named
        from castore_sqlite.schema import DIRECTORIES  # noqa: PLC0415 - as above

        return SqliteDirectoryService(self.database(name, context, DIRECTORIES), complete=self.complete)


@attrs.frozen
class SqliteRefsConfig(FileFields):
    """Refs in one SQLite file, which may be that of blobs. URL form: `sqlite:<path>?<fields>`."""

    def build(self, name: str, context: BuildContext) -> RefService:
        """Return the service. The file is made when the first ref is set, not before."""
        from castore_sqlite.refs import SqliteRefService  # noqa: PLC0415 - once it is named
        from castore_sqlite.schema import REFS  # noqa: PLC0415 - as above

        return SqliteRefService(self.database(name, context, REFS), closes=True)
