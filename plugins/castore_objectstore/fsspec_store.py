"""Objects in anything that fsspec opens: cloud buckets, SFTP, HTTP, memory, chains of these."""

from __future__ import annotations

import contextlib
import datetime
import secrets as randomness
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from castore import owned
from castore.composition import scrub
from castore.errors import CastoreError, UnavailableError, UnsupportedError, describe
from castore.urls import masked
from castore_objectstore.object_store import ObjectStore, StoredObject, Wholeness

_BUCKETS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "abfss"})
"""Schemes without folders, whose drivers list all keys under a prefix in few requests."""

_ATOMIC: Final = _BUCKETS | {"memory", "http", "https"}
"""Schemes whose objects appear whole; elsewhere they are written beside their place and moved."""

_NEVER_SWEPT: Final = frozenset({"http", "https"})
"""Schemes whose drivers can delete nothing, so that nothing needs to be kept from a sweep."""

_NOT_FOUND: Final = (404, 410)
_NOT_ALLOWED: Final = (405, 501)
"""Status codes of HTTP."""

_ONE_AT_A_TIME: Final = frozenset({"memory", "sftp", "ssh"})
"""Schemes that wait for nothing, or whose drivers do one thing at a time."""

_LEASES: Final = "leases/"

_LEASE_SECONDS: Final = 24 * 3600.0
"""How long a lease counts whose holder has not given it back: it cannot be seen whether it lives."""

FRESH_SECONDS: Final = 3600.0
"""How old an object may be before a claim stores it anew: there is no other way to change its time."""

_TIMES: Final = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""Where the drivers have the time of the last write."""

_S3_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "aws_access_key_id": ("key",),
    "aws_secret_access_key": ("secret",),
    "aws_session_token": ("token",),
    "aws_profile": ("profile",),
    "aws_endpoint_url": ("endpoint_url",),
    "aws_region": ("client_kwargs", "region_name"),
    "user_agent": ("config_kwargs", "user_agent_extra"),
}
"""What the reference calls the options of `s3:`, and where s3fs has them."""


class FsspecObjectStore(ObjectStore):
    """Objects under the path of a URL, through its fsspec file system, which is opened when first used.

    The store trusts its file system with little: an error is never taken for absence, listings are not
    cached, and what it returns is checked by those who know the digest.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        instance: str,
        secrets: Sequence[str] = (),
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._url = url
        self._scheme = url.partition(":")[0].lower()
        self._options = _driver_options(self._scheme, options)
        self._instance = instance
        self._secrets = secrets
        self.high_latency = self._scheme not in _ONE_AT_A_TIME
        self.removes = self._scheme not in _NEVER_SWEPT
        self.renewal_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None

    def get(self, key: str) -> bytes | None:
        """Return a whole object, `None` if the file system says that there is no such file."""
        with self._using(key) as (fs, path):
            try:
                data: bytes = fs.cat_file(path)
            except FileNotFoundError as error:
                _require_absence(error)
                return None
            except IsADirectoryError:
                return None
            return data

    def exists(self, key: str) -> bool:
        """Tell whether there is an object; `fs.exists` would take every error for a no."""
        return self.describe(key) is not None

    def describe(self, key: str) -> StoredObject | None:
        """Return what the file system says of an object."""
        with self._using(key) as (fs, path):
            try:
                info = fs.info(path)
            except FileNotFoundError as error:
                _require_absence(error)
                return None
            return _stored_object(key, info) if info["type"] == "file" else None

    def put(self, key: str, data: bytes) -> None:
        """Store an object so that it appears whole."""
        with self._using(key) as (fs, path):
            if self._scheme in _ATOMIC:
                fs.pipe_file(path, data)
                return
            temporary = f"{path}#{randomness.token_hex(8)}"
            try:
                try:
                    fs.pipe_file(temporary, data)
                except FileNotFoundError:
                    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                    fs.pipe_file(temporary, data)
                fs.mv(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    fs.rm_file(temporary)
                raise

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield what is there; of folders those of some digests are looked into, and no others."""
        with self._using(prefix.rstrip("/")) as (fs, path):
            found = self._find(fs, path)
        for name, info in found.items():
            # Drivers begin names differently, but all go on with the path that they were given.
            key = name[name.index(path) + len(path) :].lstrip("/") if path in name else name
            yield _stored_object(f"{prefix}{key}", info)

    def _find(self, fs: Any, path: str) -> dict[str, Any]:
        try:
            if self._scheme in _BUCKETS:
                found: dict[str, Any] = fs.find(path, detail=True)
                return found
            top = fs.ls(path, detail=True)
        except FileNotFoundError as error:
            _require_absence(error)
            return {}
        entries = []
        for info in top:
            name = info["name"].rstrip("/")
            if info["type"] == "directory" and owned.has_some_digests(name.rpartition("/")[2]):
                with contextlib.suppress(FileNotFoundError):
                    entries += fs.ls(name, detail=True)
            elif name.endswith(path) and info["type"] == "file":
                return {}  # A file in the place of the folder is listed as itself.
            else:
                entries.append(info)
        return {info["name"].rstrip("/"): info for info in entries}

    # -- writers and sweeps --

    def claim(self, key: str, is_whole: Wholeness) -> bool:
        """Tell whether there is an object; store it anew if its time is not recent."""
        found = self.describe(key)
        if found is None:
            return False
        # Objects appear whole here, but a driver may have left one that is empty; for an index that is right.
        if found.size == 0 and not is_whole(lambda _, __: b"", 0):
            return False
        if found.modified is not None and time.time() - found.modified > self.renewal_seconds:
            data = self.get(key)
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
            return owned.is_bucket_mark(name) and self.get(key) == owned.BUCKET_MARK
        folder, _, place = name.partition("/")
        return kind in ("blobs", "chunks") and folder == "b3" and owned.object_at(place) is not None

    def _remove(self, key: str) -> None:
        with self._using(key) as (fs, path), contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects one by one."""
        for key in keys:
            if self._is_own(key):
                self._remove(key)

    def set_aside(self, key: str) -> str:
        """Copy an object to its place under `quarantine/`, then remove it."""
        self._require_removes()  # Before there is a copy.
        number = 1
        while self.exists(target := f"quarantine/{key}" + (f"~{number}" if number > 1 else "")):
            number += 1
        data = self.get(key)
        if data is not None:
            self.put(target, data)
            self._remove(key)
        return target

    def _require_removes(self) -> None:
        if not self.removes:
            raise self._unsupported("nothing can be removed there")

    @contextlib.contextmanager
    def _using(self, key: str) -> Iterator[tuple[Any, str]]:
        """Give the file system and the full path of *key*; turn what it raises into castore's errors."""
        try:
            fs, root = self._open()
            # Those without an event loop of their own were not made for many threads.
            exclusive = not fs.async_impl and self._scheme != "memory"
            with self._lock if exclusive else contextlib.nullcontext():
                yield fs, f"{root}/{key}" if root else key
        except CastoreError:
            raise
        except Exception as error:
            if isinstance(error, NotImplementedError) or getattr(error, "status", None) in _NOT_ALLOWED:
                raise self._unsupported(error) from error
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(self._instance, f"{masked(self._url)}: {self._clean(error)}")

    def _unsupported(self, error: Exception | str) -> UnsupportedError:
        what = f"`{self._instance}`: {masked(self._url)} cannot do this"
        return UnsupportedError(f"{what}: {self._clean(error)}")

    def _clean(self, error: Exception | str) -> str:
        return scrub(describe(error), self._secrets)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open_now()
        return self._opened

    def _open_now(self) -> tuple[Any, str]:
        if self._scheme == "memory":
            return _private_memory(), ""
        fs, root = fsspec.core.url_to_fs(self._url, **self._options)
        return fs, str(root).rstrip("/")


def _driver_options(scheme: str, options: Mapping[str, Any]) -> dict[str, Any]:
    # A cached listing would answer for objects that others have written or deleted since.
    driver: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    for name, value in options.items():
        place = _S3_NAMES.get(name, (name,)) if scheme in ("s3", "s3a") else (name,)
        if scheme in ("s3", "s3a") and name == "aws_allow_http":
            continue  # s3fs takes the scheme of the endpoint for an answer.
        target = driver
        for part in place[:-1]:
            target = target.setdefault(part, {})
        last = place[-1]
        # What another name has put there already stays; the config's own table is not touched.
        target[last] = {**target.get(last, {}), **value} if isinstance(value, Mapping) else value
    return driver


def _require_absence(error: FileNotFoundError) -> None:
    """Raise the true error where a driver, as that for HTTP, takes every failure for a missing file."""
    cause = error.__cause__
    if cause is None or getattr(cause, "status", None) in _NOT_FOUND:
        return
    if isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp"):
        if isinstance(cause, FileNotFoundError):
            _require_absence(cause)
        else:
            raise cause


def _stored_object(key: str, info: Mapping[str, Any]) -> StoredObject:
    return StoredObject(key, info.get("size"), _time_of(info), foreign=info.get("type", "file") != "file")


def _time_of(info: Mapping[str, Any]) -> float | None:
    """Return when a file was written, in seconds since 1970; `None` if the driver does not tell."""
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return value.replace(tzinfo=value.tzinfo or datetime.UTC).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _private_memory() -> Any:
    """Return a memory file system of its own; fsspec's shares one dictionary in the whole process."""

    class PrivateMemoryFileSystem(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: dict[str, Any] = {}  # noqa: RUF012 - one per class, and so one per call
        pseudo_dirs = [""]  # noqa: RUF012 - as above

    return PrivateMemoryFileSystem()
