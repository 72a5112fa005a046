"""Capabilities for who looks after a store: lists it item by item, sweeps it, keeps it within bounds."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import attrs

from castore import owned
from castore.digest import B3Digest

if TYPE_CHECKING:
    from pathlib import Path

ItemKind: TypeAlias = Literal["index", "chunk"]


@attrs.frozen
class StoredItem:
    """One thing that a store keeps.

    Attributes:
        kind: `index` of a blob, `chunk`, or `residue`: what a write that was killed has left behind, and
            anything else that stands where only indexes and chunks belong (*foreign*).
        key: Its name in the store.
        digest: That of the blob or chunk; `None` for residue.
        size: How many bytes are stored, `None` if the store does not tell.
        modified: When it was put or last claimed, in seconds since 1970; `None` if the store does not tell.
        foreign: Whether it is residue that no write to the store has left, and so nobody's to remove.
    """

    kind: Literal["index", "chunk", "residue"]
    key: str
    digest: B3Digest | None = None
    size: int | None = None
    modified: float | None = None
    foreign: bool = False


@attrs.frozen
class DigestRange:
    """The digests from *first* on, up to *before* and without that one; `None` is an open end."""

    first: B3Digest | None = None
    before: B3Digest | None = None

    @classmethod
    def parts(cls, count: int) -> list[Self]:
        """Return so many ranges of about equal size, which have each digest once, in order."""
        bounds = [
            B3Digest((number * (1 << 64) // count).to_bytes(8, "big") + bytes(24)) for number in range(count)
        ]
        ends: list[B3Digest | None] = [None, *bounds[1:], None]
        return [cls(first, before) for first, before in pairwise(ends)]

    @classmethod
    def of(cls, digest: B3Digest) -> Self:
        """Return the range that has just this one."""
        after = int.from_bytes(digest, "big") + 1
        return cls(digest, None if after >> 256 else B3Digest(after.to_bytes(32, "big")))

    def __contains__(self, digest: bytes) -> bool:
        """Tell whether a digest is one of them."""
        return (self.first is None or digest >= self.first) and (self.before is None or digest < self.before)


class Inventory(ABC):
    """Lists every single thing it stores, for those who look after it."""

    @abstractmethod
    def list_items(self) -> Iterator[StoredItem]:
        """Yield all indexes, then all chunks, and residue where it is met, each once.

        What is written or removed meanwhile may or may not be among them.
        """

    def list_items_in(self, part: DigestRange) -> Iterator[StoredItem]:
        """Yield those items whose digests are in a range, as `list_items` does.

        Ranges that have each digest once have all residue once, too. Here all items are listed for each
        range: a service that can list a part does so.
        """
        return (
            item
            for item in self.list_items()
            if (item.digest or B3Digest.of(item.key.encode(errors="surrogateescape"))) in part
        )

    @abstractmethod
    def set_aside(self, item: StoredItem) -> str:
        """Move an item out of the way, into quarantine; return where it is now.

        For readers and writers it is absent then. Nothing is deleted, nor is anything in quarantine replaced.
        """


class Sweepable(Inventory):
    """Removes what is old and not wanted any more, safely beside writers."""

    @abstractmethod
    def sweep(self, items: Iterable[StoredItem], *, older_than: float) -> Iterator[StoredItem]:
        """Remove those of *items* that were last put or claimed before *older_than*; yield each that is gone.

        The age is looked at again in the moment of removal, so that what a writer has claimed since it was
        listed stays. *older_than* is in seconds since 1970. At the end of the iteration what is gone is gone
        as durably as what is put is there.
        """

    @property
    def sweeps_together(self) -> bool:
        """Whether one call of `sweep` should have all that is to go: as many items lie in one object.

        Then of the chunks of an object some may stay, and go with a later call.
        """
        return False

    @property
    def renewal_seconds(self) -> float:
        """How old the time of an item may be before a claim renews it.

        So an item may have been claimed this much later than its time says, and `sweep` takes it for younger.
        """
        return 0.0

    @abstractmethod
    def leased_since(self) -> float | None:
        """Return since when somebody has a lease (`ChunkStore.lease`); `None` if nobody has.

        In seconds since 1970. Nothing that was put or claimed after that may be swept.
        """


class Evictable(ABC):
    """Lets another service, which all writes to it go through, keep it within bounds.

    It tells what it keeps item by item, and removes any of it. A service with this capability is a
    `ChunkStore`, too.
    """

    @property
    def defers(self) -> bool:
        """Whether processes that share it find what was put no sooner than `flush`, or a put of an index."""
        return False

    @property
    def state_folder(self) -> Path | None:
        """A folder for what is to be known about it by all processes that share it, locks among that.

        `None`: it is not shared, or in no place that could have one. Only its owner looks into the folder,
        and makes it.
        """
        return None

    def make_state_folder(self) -> None:
        """Make that folder, and where it lies if that is not there yet and may be made.

        Raises `OSError`, or an error of castore, if it may not.
        """
        if self.state_folder is not None:
            owned.make_folders(self.state_folder)

    @abstractmethod
    def stored_items(self) -> Iterator[StoredItem]:
        """Yield every index, then every chunk, and residue where it is met, with their sizes."""

    @abstractmethod
    def find_items(self, kind: ItemKind, digests: Iterable[B3Digest]) -> Mapping[B3Digest, StoredItem]:
        """Return indexes or chunks as they are now, with the bytes that they take; those that are there."""

    def residue_of(
        self,
        kind: ItemKind,  # noqa: ARG002 - for overriding
        digests: Iterable[B3Digest],  # noqa: ARG002 - as above
    ) -> list[StoredItem]:
        """Return what writes of items that were killed have left behind, or writers are about to finish."""
        return []

    def chunk_bound(self, size: int) -> int:
        """Return how many bytes a chunk of *size* bytes takes at most."""
        return size

    @abstractmethod
    def remove(self, items: Iterable[StoredItem]) -> None:
        """Remove *items*, in any order; one that is not there is no error.

        They are gone for readers at once, for good with the next flush. After an error some of them may be.
        """

    def flush(self) -> None:  # noqa: B027 - few have anything to do
        """Let other processes find all that was put."""

    def free_bytes(self) -> int | None:
        """Return how many bytes its file system has left; `None` where removing items frees none there."""
        return None


class Pinning(ABC):
    """Keeps what it is told to from being evicted, for a while."""

    @abstractmethod
    def pin(self, digests: Collection[B3Digest]) -> contextlib.AbstractContextManager[None]:
        """Keep blobs and their chunks, or chunks, from being evicted until the context ends.

        They may come later than the pin. A pin ends with the process, however that dies.
        """
