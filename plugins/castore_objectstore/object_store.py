"""What castore asks of an object store: whole objects under keys, and no more."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from castore import B3Digest, owned
from castore.errors import UnsupportedError
from castore.format import blob_index

if TYPE_CHECKING:
    from typing_extensions import Buffer

Wholeness: TypeAlias = Callable[[Callable[[int, int], bytes], int], bool]
"""Tells by some reads `(offset, count)`, and the size, whether what is stored is whole."""


LARGEST: Final = blob_index.MAX_ENCODED_SIZE
"""Bytes that an object can have at most: those of the longest index."""


class TooLargeError(Exception):
    """An object has more bytes than it may have; no more of it was read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"it has more than {most} bytes")
        self.most = most


class NoObjectError(Exception):
    """What has the name of an object is something else, such as a folder: it is there, and is not right."""


@attrs.frozen
class StoredObject:
    """What a listing says of an object.

    Attributes:
        key: Its key; what a put that was killed has left beside its place has a name of its own there.
        size: In bytes, `None` if the store does not tell.
        modified: When it was put or last claimed, in seconds since 1970; `None` if the store does not tell.
        foreign: Whether it is seen to be nothing that was put there, as a folder is.
    """

    key: str
    size: int | None = None
    modified: float | None = None
    foreign: bool = False


@attrs.frozen
class LastObject:
    """An object that must not be there before others are, as an index before its chunks.

    Attributes:
        key: Its key.
        data: Its bytes.
        needs: The keys of the others.
    """

    key: str
    data: bytes
    needs: Sequence[str] = ()


class ObjectStore(ABC):
    """Objects of bytes under keys such as `chunks/b3/af13/af13...`, used by many threads at once.

    A key that is not there is `None` or `False`; everything else that goes wrong raises
    `UnavailableError`, or `UnsupportedError` for what the store can never do.
    """

    durability: Literal["process", "full"] = "full"
    """What an object survives that was put before a call of `flush`, when that has returned."""

    high_latency: bool = False
    """Whether its requests mostly wait, so that many more are worth making at once than there are cores."""

    claims_together: bool = False
    """Whether `claim_many` costs less than a `claim` for each."""

    removes: bool = True
    """Whether objects can be removed; without that `set_aside` and `sweep` raise `UnsupportedError`."""

    lists_at_once: bool = False
    """Whether each listing is known to have all that was put before it began, whoever has put it."""

    route: str = ""
    """What makes its requests, where several could."""

    renewal_seconds: float = 0.0
    """How old the time of an object may be before a claim renews it."""

    # -- what every store does --

    @abstractmethod
    def get(self, key: str, most: int = LARGEST) -> bytes | None:
        """Return a whole object, `None` if it is absent.

        Raises `TooLargeError` if it has more than *most* bytes, of which about so many are read at most, and
        `NoObjectError` for what is there and no object.
        """

    def read_into(self, key: str, take: Callable[[bytes], object], most: int = LARGEST) -> bool:
        """Give *take* what `get` returns in pieces, in any one thread; return False if the object is absent.

        What *take* raises ends the reading, and is raised here.
        """
        data = self.get(key, most)
        if data is None:
            return False
        take(data)
        return True

    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        """Return *count* bytes of an object from *offset* on, fewer at its end; `None` if it is absent."""
        data = self.get(key, max(LARGEST, offset + count))
        return None if data is None else data[offset : offset + count]

    def get_tail(self, key: str, count: int) -> bytes | None:
        """Return the last *count* bytes of an object, all if it has fewer; `None` if it is absent."""
        found = self.describe(key)
        if found is None:
            return None
        if found.size is None:
            data = self.get(key)
            return None if data is None else data[-count:]
        return self.get_range(key, max(found.size - count, 0), count)

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object, replacing what was there; readers see the old one or the new one, whole.

        This object sees the new one at once, others at the latest after a call of `flush`.
        """

    def put_pieces(self, key: str, pieces: Sequence[Buffer]) -> None:
        """Store an object that is named by its bytes; it is as lasting as `durability` says on return.

        The folders above it are then as well. Others see it whole, or not at all.
        """
        self.put(key, b"".join(pieces))
        self.flush()

    @abstractmethod
    def list(
        self, prefix: str, *, after: str | None = None, into: Callable[[str], bool] = owned.has_some_digests
    ) -> Iterator[StoredObject]:
        """Yield what is at *prefix*, which ends in `/`, and in the folders there whose names *into* takes.

        All of it, whoever has put it there; but no other folder is looked into, and no link followed. With
        *after* only what has a greater key.
        """

    lists_in_order: bool = False
    """Whether `list` yields smaller keys first."""

    def list_between(self, prefix: str, first: str, before: str | None) -> Iterator[StoredObject]:
        """Yield what `list` yields whose key is not less than *first*, and less than *before*.

        `None` is an open end, as is an empty *first*.
        """
        # One that is a little less: what begins *first* comes before it.
        for entry in self.list(prefix, after=first[:-1] or None):
            if before is not None and entry.key >= before:
                if self.lists_in_order:
                    return
            elif entry.key >= first:
                yield entry

    tells_changes: bool = False
    """Whether `stamp` can tell anything."""

    def stamp(self, prefixes: Sequence[str], since: str) -> object:  # noqa: ARG002 - for overriding
        """Return what is another value once anything was put at *prefixes*, in folders from *since* on.

        `None` if that cannot be told at the moment.
        """
        return None

    def steady(self) -> contextlib.AbstractContextManager[bool]:
        """Enter for a listing that is to lack nothing which moves from one object to another meanwhile.

        Gives whether no sweep removes anything until the context ends. Nothing is written for it.
        """
        return contextlib.nullcontext(True)

    def without_claims(self) -> contextlib.AbstractContextManager[object]:
        """Let nobody claim an object meanwhile; raises `UnsupportedError` where that cannot be had."""
        raise UnsupportedError("claims cannot be kept from this store")

    def flush(self, last: Sequence[LastObject] = ()) -> None:
        """Make all that was put before the call as durable as `durability` says; then put and flush *last*.

        None of *last* is ever seen without what was put before, not even after a power cut.
        """
        for entry in last:
            self.put(entry.key, entry.data)

    def batch(self) -> contextlib.AbstractContextManager[ObjectStore]:
        """Enter for many calls at once; give the store to make them on, which may do for all what one needs.

        What it does so at the end may raise `UnavailableError`: then no answer of these calls counts.
        """
        return contextlib.nullcontext(self)

    def check_usable(self) -> None:  # noqa: B027 - requests tell most
        """Raise `UnavailableError` if it can be seen, without a write, that nothing could be stored."""

    def lacks(self) -> str | None:
        """Return the place in which no store was begun yet; `None` if one was, or that cannot be seen."""
        return None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release connections."""

    # -- what keeps writers and collectors of garbage apart --

    def claim(self, key: str, is_whole: Wholeness, most: int = LARGEST) -> bool:  # noqa: ARG002 - as below
        """Tell whether a whole object is there, and keep it from a sweep as if it had just been put.

        *is_whole* is asked by stores in which an object can be torn; one of more than *most* bytes is not
        whole where the store tells how many it has.
        """
        return self.exists(key)

    def claim_many(self, keys: Iterable[str], is_whole: Wholeness, most: int = LARGEST) -> set[str]:
        """Return those of several keys that can be claimed, as `claim` has it."""
        return {key for key in keys if self.claim(key, is_whole, most)}

    def lease(self) -> contextlib.AbstractContextManager[None]:
        """Keep what is put or claimed from now on from sweeps, until the context ends."""
        return contextlib.nullcontext()

    def leased_since(self) -> float | None:
        """Return since when somebody has a lease, in seconds since 1970; `None` if nobody does.

        Nothing is changed.
        """
        return None

    def list_marks(self) -> Iterator[StoredObject]:
        """Yield what those have left that have died with a lease, or with a turn at something."""
        return iter(())

    # -- what processes that use it at once can tell each other --

    shared: bool = False
    """Whether they can: whether the following methods do anything."""

    def try_alone(
        self, digests: Collection[B3Digest]
    ) -> contextlib.AbstractContextManager[frozenset[B3Digest]]:
        """Enter as the only one that brings some of *digests* here; see `SharedPlace`."""
        return contextlib.nullcontext(frozenset(digests))

    def unflushed(self, key: str, most: int) -> Iterator[bytes]:  # noqa: ARG002 - for overriding
        """Yield what others have put under a key and not flushed yet; it need not be whole.

        What has more than *most* bytes is left out.
        """
        return iter(())

    # -- names that are set anew --

    def replace(
        self,
        key: str,
        data: bytes | None,  # noqa: ARG002 - for overriding
        allowed: Callable[[bytes | None], bool] | None = None,  # noqa: ARG002 - as above
    ) -> bool:
        """Store an object lastingly, or remove it if *data* is `None`; tell whether that was done.

        With *allowed* that is done only if it is true of what is there, `None` for nothing, in one step: of
        several who replace an object at once each finds what another one has left. What it raises ends the
        call, with nothing changed. To remove what is absent changes nothing, and is False.

        Raises `UnsupportedError` if the store cannot compare.
        """
        raise UnsupportedError(f"nothing is replaced in this store, so {key} is not")

    def list_below(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects below *prefix*, which ends in `/`, in folders of any names."""
        raise UnsupportedError(f"this store does not list what is below {prefix}")

    # -- what takes things away --

    @abstractmethod
    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        """Remove those of *objects* that were put or claimed last before *older_than*; yield each.

        A claim may have come up to `renewal_seconds` after the time that an object has. Only what castore
        has made is removed: objects, what is left of them, and what `list_marks` yields.
        """

    # -- what keeps it within bounds --

    @property
    def folder(self) -> Path | None:
        """Where on this machine it is, `None` if it is nowhere there."""
        return None

    def make_state_folder(self) -> None:  # noqa: B027 - for those who have a folder
        """Make a folder in it for who keeps it within bounds."""

    @property
    def defers(self) -> bool:
        """Whether others see what was put no sooner than `flush` is called."""
        return False

    @abstractmethod
    def describe(self, key: str) -> StoredObject | None:
        """Return what a listing would say of an object, `None` if it is absent."""

    @abstractmethod
    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, and what is left of them; those that are not there are no error."""

    def free_bytes(self) -> int | None:
        """Return how many bytes are left where the objects are, `None` if that has no bounds."""
        return None

    @abstractmethod
    def set_aside(self, key: str) -> str:
        """Move an object under `quarantine/`, where it replaces nothing; return its key there."""
