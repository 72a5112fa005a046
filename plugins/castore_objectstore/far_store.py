"""Objects that lie elsewhere than in a folder of this machine: claims, leases and sweeps by whole objects."""

from __future__ import annotations

import contextlib
import secrets as randomness
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from castore import owned
from castore.composition import scrub
from castore.errors import CastoreError, UnavailableError, UnsupportedError, describe
from castore.urls import masked
from castore_objectstore.object_store import (
    LARGEST,
    ObjectStore,
    StoredObject,
    TooLargeError,
    Wholeness,
)

_LEASES: Final = "leases/"

_LEASE_SECONDS: Final = 24 * 3600.0
"""How long a lease counts whose holder has not given it back: it cannot be seen whether it lives."""

FRESH_SECONDS: Final = 3600.0
"""How old an object may be before a claim stores it anew: there is no other way to change its time."""


class FarObjectStore(ObjectStore):
    """What stores have in common in which objects appear whole, and have no time but that of their put.

    A subclass has the requests.
    """

    def __init__(self, url: str, instance: str, secrets: Sequence[str], fresh_seconds: float) -> None:
        self._url = url
        self._instance = instance
        self._secrets = secrets
        self.renewal_seconds = fresh_seconds

    def get(self, key: str, most: int = LARGEST) -> bytes | None:
        """Return a whole object, `None` if the server says that there is no such object."""
        pieces: list[bytes] = []
        return b"".join(pieces) if self.read_into(key, pieces.append, most) else None

    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""
        return self.describe(key) is not None

    @abstractmethod
    def _remove(self, key: str) -> None:
        """Remove an object, if it is there."""

    @abstractmethod
    def _move(self, key: str, target: str) -> None:
        """Move an object, not by way of this machine."""

    # -- writers and sweeps --

    def claim(self, key: str, is_whole: Wholeness, most: int = LARGEST) -> bool:
        """Tell whether there is an object; store it anew if its time is not recent."""
        found = self.describe(key)
        if found is None:
            return False
        # Objects appear whole here, but a driver may have left one that is empty; for an index that is right.
        if found.size == 0 and not is_whole(lambda _, __: b"", 0):
            return False
        if found.size is not None and found.size > most:
            return False
        if found.modified is not None and time.time() - found.modified > self.renewal_seconds:
            try:
                data = self.get(key, most)
            except TooLargeError:
                return False
            if data is None:
                return False
            self.put(key, data)
        return True

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Keep an object under `leases/` until the context ends; it counts for a day at most."""
        if not self.removes:
            yield
            return
        key = f"{_LEASES}{randomness.token_hex(16)}"
        self.put(key, owned.BUCKET_MARK)
        try:
            yield
        finally:
            with contextlib.suppress(CastoreError):
                self._remove(key)

    def leased_since(self) -> float | None:
        """Return the time of the oldest lease that still counts."""
        return min((modified for modified, counts in self._list_leases().values() if counts), default=None)

    def list_marks(self) -> Iterator[StoredObject]:
        """Yield the leases that do not count any more."""
        for key, (modified, counts) in self._list_leases().items():
            if not counts:
                yield StoredObject(key, len(owned.BUCKET_MARK), modified)

    def _list_leases(self) -> dict[str, tuple[float, bool]]:
        """Return each lease with its time, and whether it counts; what is not of its form is none."""
        now = time.time()
        return {
            entry.key: (entry.modified, now - entry.modified < _LEASE_SECONDS)
            for entry in self.list(_LEASES)
            if entry.modified is not None
            and entry.size in (None, len(owned.BUCKET_MARK))
            and owned.is_bucket_mark(entry.key.removeprefix(_LEASES))
        }

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        """Remove old objects; the time of each is asked for again just before."""
        self._require_removes()
        limit = older_than - self.renewal_seconds
        for entry in objects:
            found = self.describe(entry.key) if self._is_own(entry.key) else None
            if found is not None and found.modified is not None and found.modified < limit:
                self._remove(entry.key)
                yield entry

    def _is_own(self, key: str) -> bool:
        """Tell whether castore has put an object, by its name, and a lease by its bytes as well."""
        kind, _, name = key.partition("/")
        if kind == "leases":
            if not owned.is_bucket_mark(name):
                return False
            try:
                return self.get(key, len(owned.BUCKET_MARK)) == owned.BUCKET_MARK
            except TooLargeError:
                return False
        if kind in ("packs", "dead", "claims", "condemned"):
            found = owned.packed_at(key)
            return found is not None and not found.left_over
        folder, _, place = name.partition("/")
        return kind in ("blobs", "chunks") and folder == "b3" and owned.object_at(place) is not None

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects."""
        self._remove_all([key for key in keys if self._is_own(key)])

    def _remove_all(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._remove(key)

    def set_aside(self, key: str) -> str:
        """Copy an object to its place under `quarantine/`, then remove it."""
        self._require_removes()  # Before there is a copy.
        number = 1
        while self.exists(target := f"quarantine/{key}" + (f"~{number}" if number > 1 else "")):
            number += 1
        try:
            data = self.get(key)
        except TooLargeError:
            self._move(key, target)
            return target
        if data is not None:
            self.put(target, data)
            self._remove(key)
        return target

    def _require_removes(self) -> None:
        if not self.removes:
            raise self._unsupported("nothing can be removed there")

    # -- errors --

    def _no_bucket(self, name: str) -> UnavailableError:
        return self._unavailable(f"there is no bucket `{name}` there: make it, or mend the name")

    def _replace_now(self, key: str, data: bytes | None) -> bool:
        if data is not None:
            self.put(key, data)
            return True
        self._require_removes()
        there = self.exists(key)
        if there:
            self._remove(key)
        return there

    def _unavailable(self, error: Exception | str, reason: str = "") -> UnavailableError:
        """Return the error of an instance; *reason* is what the user can look at."""
        said = f"{masked(self._url)}: {self._clean(error)}" + (f" ({self._clean(reason)})" if reason else "")
        return UnavailableError(self._instance, said)

    def _unsupported(self, error: Exception | str) -> UnsupportedError:
        what = f"`{self._instance}`: {masked(self._url)} cannot do this"
        return UnsupportedError(f"{what}: {self._clean(error)}")

    def _cannot_compare(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"`{self._instance}`: {masked(self._url)} cannot compare and replace in one step, as {why};"
            " keep refs elsewhere, in [refservices.root], or expect nothing"
        )

    def _clean(self, error: Exception | str) -> str:
        # Some drivers have numbers and times of requests on lines of their own.
        return scrub(" ".join(describe(error).split()), self._secrets)
