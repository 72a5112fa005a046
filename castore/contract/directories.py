"""The contract of services of directories: what each promises, and what its writers do.

A directory is a value (`castore.format.directories.Directory`), named by the digest of its encoding. It names
the directories within it by their digests; so the digest of a root names a whole tree.

A backend subclasses `DirectoryService` and writes two methods, `get_many` and `put_many`. Services are used
by many threads at once; a writer belongs to one thread at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar, cast, final

from castore.digest import B3Digest, no_digest
from castore.errors import CastoreError

if TYPE_CHECKING:
    from types import TracebackType

    from castore.contract.blobs import BlobService
    from castore.format.directories import Directory
    from castore.format.nodes import DirectoryNode

P = TypeVar("P")

FoundDirectories: TypeAlias = "dict[B3Digest, Directory | CastoreError]"
"""Checked directories, or why one could not be had; one that is absent is left out."""


class DirectoryWriter(ABC):
    """Takes the directories of one tree, from the leaves to the root, which `close` names.

    Nothing need be visible before `close`. As a context manager it closes on success and aborts on an
    exception. After `close` or `abort`, putting raises `WriterClosedError`.
    """

    @abstractmethod
    def put(self, directory: Directory) -> B3Digest:
        """Take the next directory, whose children came before it; return its digest.

        Raises `DirectoryOrderError` for a child that did not come, `DirectorySizeError` for one whose entry
        says another size than it has, and what the service raises. One that came before is passed over.
        """

    @abstractmethod
    def graft(self, node: DirectoryNode) -> None:
        """Take a directory that the service has already, with all below it, for one that came.

        `put` or `close` raises `MissingDirectoryError` if the service does not have it, or something of it.
        """

    @abstractmethod
    def close(self) -> B3Digest:
        """Make the tree visible and return the digest of its root; again the same when called again.

        Raises `DirectoryOrderError` unless there is one directory that no other refers to.
        """

    @abstractmethod
    def abort(self) -> None:
        """Forget what was put; some of it may stay. Does nothing after `close` or a first `abort`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class DirectoryService(ABC):
    """A place that keeps directories, named by the digest of their encoding.

    Three outcomes are never mixed up: a directory is *absent*, *corrupt* (`CorruptDirectoryError`), or the
    service is *unavailable* (`UnavailableError`).

    A subclass needs no call of a constructor of this class.
    """

    high_latency: bool = False
    """Whether its requests mostly wait."""

    whole_trees: bool = False
    """Whether `put_many` must be given all directories of a tree with one call."""

    _named: str = ""
    """What it is called in its repr; set by the composition that builds it."""

    def __repr__(self) -> str:
        return f"<{self._named}>" if self._named else object.__repr__(self)

    @abstractmethod
    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Return checked directories; one that is absent is left out, an error is why one could not be had.

        *within* is a root that is known to have them below it: a hint, for services that keep whole trees.
        No more than `MOST_ITEMS` are asked for at a time.
        """

    @abstractmethod
    def put_many(self, directories: Collection[Directory]) -> None:
        """Keep directories, given with the leaves first; each child is among them, or there already.

        Raises `MissingDirectoryError` for a child that is neither, if the service tells (`Complete`), and
        `UnavailableError`; some may be kept then. Repeating is harmless.
        """

    # -- made of those; a service has its own where it can do better --

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those of *digests* that are absent; raises what is wrong with others."""
        wanted = set(digests)
        found = self.get_many(wanted)
        for directory in found.values():
            if isinstance(directory, CastoreError):
                raise directory
        return wanted - found.keys()

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return all directories of a tree, each once: the root first, each after one that refers to it.

        `None` if the root is absent. It ends only when all of them have come; else it raises
        `MissingDirectoryError`, `CorruptDirectoryError`, `DirectorySizeError` or `UnavailableError`.
        """
        from castore.directories.reading import closure_of  # noqa: PLC0415 - that stands above the contract

        return closure_of(self, root)

    def open_write(self) -> DirectoryWriter:
        """Start a new tree."""
        from castore.directories.writing import BatchedDirectoryWriter  # noqa: PLC0415 - as above

        return BatchedDirectoryWriter(self, together=self.whole_trees)

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return what has the optional capability *kind*, or `None`; as `BlobService.capability`."""
        has_it = isinstance(kind, type) and isinstance(self, kind)
        return cast("P", self) if has_it else None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release what the service holds. Closing again does nothing; using it afterwards is an error."""

    # -- written once, for all services --

    @final
    def get(self, digest: B3Digest) -> Directory | None:
        """Return a directory, `None` if it is absent; raises what is wrong with it."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        found = self.get_many((digest,)).get(digest)
        if isinstance(found, CastoreError):
            raise found
        return found

    @final
    def has(self, digest: B3Digest) -> bool:
        """Tell what `missing` tells of one digest."""
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        return not self.missing((digest,))

    @final
    def put(self, directory: Directory) -> B3Digest:
        """Keep a directory whose children are there; return its digest."""
        with self.open_write() as writer:
            for _, node in directory.directories:
                writer.graft(node)
            return writer.put(directory)

    @final
    def put_closure(self, directories: Iterable[Directory]) -> B3Digest:
        """Keep the directories of one tree, given with the leaves first; return the digest of its root."""
        writer = self.open_write()
        try:
            for directory in directories:
                writer.put(directory)
            return writer.close()
        except BaseException:
            writer.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- optional capabilities, as those of services of blobs --


class AnyDirectory(ABC):  # noqa: B024 - it says something, and does nothing
    """Finds a directory wherever in a tree it is, and not only roots. It has no methods."""


class Complete(ABC):  # noqa: B024 - as above
    """Has with each directory all those below it: a write without them was refused. It has no methods."""


class DirectoryLister(ABC):
    """Lists what it holds."""

    @abstractmethod
    def list_directories(self) -> Iterator[B3Digest]:
        """Yield the digest of every directory, each once, in no particular order.

        What is written meanwhile may or may not be among them.
        """


class KeptInBlobs(ABC):
    """Has directories that are blobs as well: who collects, claims or mends blobs asks where."""

    @property
    @abstractmethod
    def blob_services(self) -> Sequence[BlobService]:
        """Where they are blobs: one service has all of them, of several each has some, or all."""

    @property
    def elsewhere(self) -> bool:
        """Whether some directories may be no blobs of these services."""
        return False


def kept_in_blobs(services: Iterable[DirectoryService]) -> KeptInBlobs | None:
    """Return the capability of what has the directories of several services; `None` if none are blobs."""
    found = [service.capability(KeptInBlobs) for service in services]
    kept = [each for each in found if each is not None]
    if not kept:
        return None
    places = {id(blobs): blobs for each in kept for blobs in each.blob_services}
    return _KeptBySeveral(
        list(places.values()), elsewhere=len(kept) < len(found) or any(each.elsewhere for each in kept)
    )


class _KeptBySeveral(KeptInBlobs):
    def __init__(self, blob_services: Sequence[BlobService], *, elsewhere: bool) -> None:
        self._blob_services = blob_services
        self._elsewhere = elsewhere

    @property
    def blob_services(self) -> Sequence[BlobService]:
        return self._blob_services

    @property
    def elsewhere(self) -> bool:
        return self._elsewhere


def only_blob_service(directories: DirectoryService) -> BlobService | None:
    """Return the one service of blobs that has all directories of a service; `None` if there is none."""
    kept = directories.capability(KeptInBlobs)
    if kept is None or kept.elsewhere or len(kept.blob_services) != 1:
        return None
    return kept.blob_services[0]


def require_children(
    directories: Collection[Directory], missing: Callable[[set[B3Digest]], set[B3Digest]]
) -> None:
    """Raise `MissingDirectoryError` for a child that is neither among *directories* nor there.

    *missing* returns those of some digests that are absent. For services that are `Complete`.
    """
    from castore.errors import MissingDirectoryError  # noqa: PLC0415 - it is rare

    given = {directory.digest for directory in directories}
    children: Mapping[B3Digest, bytes] = {
        node.digest: name for directory in directories for name, node in directory.directories
    }
    absent = missing(children.keys() - given) if children.keys() - given else set()
    for digest in absent:
        raise MissingDirectoryError(digest, path=children[digest])
