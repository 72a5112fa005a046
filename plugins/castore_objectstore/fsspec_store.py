"""Objects in anything that fsspec opens: cloud buckets, SFTP, HTTP, memory, chains of these."""

from __future__ import annotations

import contextlib
import datetime
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import fsspec
import fsspec.asyn
from fsspec.implementations.memory import MemoryFileSystem

from castore import owned
from castore.errors import CastoreError, UnavailableError
from castore.places import Create
from castore.threads import forks
from castore.urls import masked
from castore_objectstore import conditions, drivers
from castore_objectstore.bounded import http_client, read_pieces
from castore_objectstore.far_store import FRESH_SECONDS, FarObjectStore
from castore_objectstore.object_store import (
    LARGEST,
    StoredObject,
    TooLargeError,
)
from castore_objectstore.obstore_options import kind_of
from castore_objectstore.options import S3_NAMES, S3_NEEDLESS, S3_SCHEMES

_BEYOND: Final = 416
_NOT_ALLOWED: Final = (405, 501)
"""Status codes of HTTP."""

_ONE_AT_A_TIME: Final = frozenset({"memory", "sftp", "ssh"})
"""Schemes that wait for nothing, or whose drivers do one thing at a time."""

_TIMES: Final = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""Where the drivers have the time of the last write."""


class FsspecObjectStore(FarObjectStore):
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
        create: Create = "path",
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        super().__init__(url, instance, secrets, fresh_seconds)
        self._scheme = url.partition(":")[0].lower()
        protocols = drivers.protocols_of(url)
        self._chained = len(protocols) > 1
        self._driver = drivers.driver_of(self._scheme)
        # Where a chain of drivers ends is where the objects are.
        self._sort = drivers.driver_of(protocols[-1]).sort
        self._options = _driver_options(protocols, options)
        self._create = create
        self.high_latency = self._scheme not in _ONE_AT_A_TIME
        self.lists_at_once = drivers.lists_at_once(url)
        self.removes = self._driver.sort != "web"
        self.route = "fsspec" if kind_of(url) else ""
        self._lock = forks.new_lock()
        self._opened: tuple[Any, str] | None = None
        self._root = ""
        self._placing = forks.new_lock()
        self._place_seen = self._sort == "memory"
        """Whether there is what the objects lie in: an object that is not found is absent then."""
        self._replacing = forks.new_lock()
        self._heeds_conditions = False
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Open the file system anew, in a child of a fork: connections and event loop are the parent's."""
        opened = self._opened
        if opened is not None and self._sort != "memory":
            self._opened = None
            _leave_to_parent(opened[0])

    def read_into(self, key: str, take: Callable[[bytes], object], most: int = LARGEST) -> bool:
        """Read an object with one request."""
        with self._using(key) as (fs, path):
            try:
                read_pieces(fs, path, take, most, plain=self._chained)
            except IsADirectoryError:
                return False
            except Exception as error:  # noqa: BLE001 - raised again unless it says that nothing is there
                self._require_absence(fs, error)
                return False
            self._place_seen = True
            return True

    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        """Read a part of an object with one request; a driver that reads all of it is borne with."""
        with self._using(key) as (fs, path):
            try:
                data: bytes = fs.cat_file(path, start=offset, end=offset + count)
            except IsADirectoryError:
                return None
            except Exception as error:  # noqa: BLE001 - raised again unless it says that nothing is there
                if drivers.status_of(error) == _BEYOND:
                    return b""
                self._require_absence(fs, error)
                return None
            self._place_seen = True
            return data if len(data) <= count else data[offset : offset + count]

    def get_tail(self, key: str, count: int) -> bytes | None:
        """Read the end of an object, with one request where the server counts from there."""
        if self._chained or self._sort != "bucket":
            return super().get_tail(key, count)
        with self._using(key) as (fs, path):
            try:
                data = drivers.read_tail(fs, path, count)
            except Exception as error:  # noqa: BLE001 - raised again unless it says that nothing is there
                if drivers.status_of(error) == _BEYOND:
                    return b""
                self._require_absence(fs, error)
                return None
            self._place_seen = True
            return data[-count:]

    def describe(self, key: str) -> StoredObject | None:
        """Return what the file system says of an object."""
        with self._using(key) as (fs, path):
            try:
                info = fs.info(path) if self._chained else drivers.look(fs, path)
            except FileNotFoundError as error:
                self._require_absence(fs, error)
                return None
            except Exception as error:
                if (true := drivers.true_error(fs, path, error)) is error:
                    raise
                raise true  # noqa: B904 - it has a cause of its own, with what the server says
            self._place_seen = True
            return _stored_object(key, info) if info["type"] == "file" else None

    def put(self, key: str, data: bytes) -> None:
        """Store an object so that it appears whole."""
        with self._using(key) as (fs, path):
            if self._driver.sort != "folder":
                fs.pipe_file(path, data)
            else:
                if not self._place_seen:
                    self._require_place(fs)
                self._put_into_folder(fs, path, data)
            self._place_seen = True

    def _put_into_folder(self, fs: Any, path: str, data: bytes) -> None:
        """Write an object beside its place, and move it there."""
        temporary = f"{path}#{randomness.token_hex(8)}"
        try:
            try:
                fs.pipe_file(temporary, data)
            except FileNotFoundError:
                self._make_folder(fs, path.rpartition("/")[0])
                fs.pipe_file(temporary, data)
            fs.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(temporary)
            raise

    def _make_folder(self, fs: Any, folder: str) -> None:
        """Make a folder, and those above it as far as the place of the store."""
        try:
            try:
                fs.mkdir(folder, create_parents=False)  # Nearly always the one above is there.
            except FileNotFoundError:
                self._require_place(fs)  # It may have gone since it was seen.
                fs.makedirs(folder, exist_ok=True)
        except Exception:
            # Another writer may have made it in between, of which drivers have many ways to complain.
            if not fs.isdir(folder):
                raise

    def list(
        self, prefix: str, *, after: str | None = None, into: Callable[[str], bool] = owned.has_some_digests
    ) -> Iterator[StoredObject]:
        """Yield what is there; of folders those that *into* takes are looked into, and no others."""
        with self._using(prefix.rstrip("/")) as (fs, path):
            try:
                found = self._find(fs, path, into)
            except Exception as error:  # noqa: BLE001 - raised again unless it says that nothing is there
                self._require_absence(fs, error)
                found = {}
            if found:
                self._place_seen = True
            elif not self._place_seen:
                # A driver may have nothing to say of a bucket that is not there.
                self._require_place(fs)
        for name, info in found.items():
            # Drivers begin names differently, but all go on with the path that they were given.
            key = name[name.index(path) + len(path) :].lstrip("/") if path in name else name
            if after is None or f"{prefix}{key}" > after:
                yield _stored_object(f"{prefix}{key}", info)

    def _find(self, fs: Any, path: str, into: Callable[[str], bool]) -> dict[str, Any]:
        if self._driver.sort == "bucket":
            found: dict[str, Any] = fs.find(path, detail=True)
            return found
        entries = []
        for info in fs.ls(path, detail=True):
            name = info["name"].rstrip("/")
            if info["type"] == "directory" and into(name.rpartition("/")[2]):
                with contextlib.suppress(FileNotFoundError):
                    entries += fs.ls(name, detail=True)
            elif name.endswith(path) and info["type"] == "file":
                return {}  # A file in the place of the folder is listed as itself.
            else:
                entries.append(info)
        return {info["name"].rstrip("/"): info for info in entries}

    def check_usable(self) -> None:
        """Raise `UnavailableError` if there is nothing that objects could lie in."""
        with self._using("") as (fs, _):
            self._require_place(fs)

    # -- the place of it all --

    def _require_absence(self, fs: Any, error: Exception) -> None:
        """Raise what is really wrong, if it is not that an object is absent.

        A bucket or folder that is not there is asked for once; what is seen in it tells that it is.
        """
        drivers.require_absence(error)
        if drivers.names_missing_container(error):
            raise self._no_place() from error
        if not self._place_seen:
            self._require_place(fs)

    def _require_place(self, fs: Any) -> None:
        """Raise `UnavailableError` unless there is what the objects lie in, or it is to be made."""
        with self._placing:
            if self._place_seen and self._sort != "folder":
                return
            if not self._has_place(fs):
                raise self._no_place()
            self._place_seen = True

    def _has_place(self, fs: Any) -> bool:
        root = self._root
        if self._sort == "bucket":
            return drivers.has_container(fs, root.lstrip("/").partition("/")[0])
        if self._sort == "memory" or self._create == "path" or not root.strip("/"):
            return True
        if self._sort == "web":
            # Nobody makes a folder there but who keeps the server.
            return drivers.has_page(fs, f"{root}/")
        if self._create is False:
            return any(drivers.has_folder(fs, f"{root}/{name}") for name in ("blobs", "chunks"))
        parent = root.rpartition("/")[0] or "/"
        return drivers.has_folder(fs, root) or drivers.has_folder(fs, parent)

    def _no_place(self) -> UnavailableError:
        if self._sort == "bucket":
            return self._no_bucket(self._root.lstrip("/").partition("/")[0])
        if self._sort == "web":
            return self._unavailable(
                "the server has no such folder; if it is one that shows objects and no folders, write"
                ' `create = "path"`'
            )
        if self._create is False:
            return self._unavailable(
                'there is no store, and `create = false`; `create = "parent"` begins one'
            )
        return self._unavailable(
            "neither that folder nor the one above it is there: make them, or let castore make the whole path"
            ' with `create = "path"`'
        )

    # -- names that are set anew --

    def replace(
        self, key: str, data: bytes | None, allowed: Callable[[bytes | None], bool] | None = None
    ) -> bool:
        """Replace or remove an object: in a bucket of S3's by requests with a condition."""
        if allowed is None:
            with self._replacing:
                return self._replace_now(key, data)
        if self._scheme == "memory":
            with self._replacing:
                return allowed(self.get(key)) and self._replace_now(key, data)
        with self._using(key) as (fs, path):
            if self._chained or not conditions.has_conditions(fs):
                raise self._cannot_compare("its driver has no requests with a condition")
            try:
                if not self._heeds_conditions:
                    conditions.require_heeded(fs, f"{path.removesuffix(key)}refs")
                    self._heeds_conditions = True
                return conditions.replace(fs, path, data, allowed)
            except conditions.NoConditionsError as error:
                raise self._cannot_compare("the server passes over what a request is to depend on") from error
            except conditions.ChangedAgainError as error:
                raise self._unavailable("others change it all the time") from error
            except FileNotFoundError as error:
                raise self._no_place() from error

    def list_below(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects."""
        with self._using(prefix.rstrip("/")) as (fs, path):
            try:
                found = fs.find(path, detail=True)
            except Exception as error:  # noqa: BLE001 - raised again unless it says that nothing is there
                self._require_absence(fs, error)
                found = {}
            if not found and not self._place_seen:
                self._require_place(fs)
        for name, info in found.items():
            if info.get("type") == "file" and path in name:
                yield f"{prefix}{name[name.index(path) + len(path) :].lstrip('/')}"

    def _remove(self, key: str) -> None:
        with self._using(key) as (fs, path), contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    def _move(self, key: str, target: str) -> None:
        with self._using(key) as (fs, path):
            fs.mv(path, f"{path.removesuffix(key)}{target}")

    @contextlib.contextmanager
    def _using(self, key: str) -> Iterator[tuple[Any, str]]:
        """Give the file system and the full path of *key*; turn what it raises into castore's errors."""
        fs = None
        try:
            fs, root = self._open()
            # Those without an event loop of their own were not made for many threads.
            exclusive = not fs.async_impl and self._scheme != "memory"
            with self._lock if exclusive else contextlib.nullcontext():
                yield fs, f"{root}/{key}" if root else key
        except (CastoreError, TooLargeError):
            raise
        except Exception as error:
            if drivers.is_cut_off(fs):
                self._opened = None
            if drivers.names_missing_container(error):
                raise self._no_place() from error
            if isinstance(error, NotImplementedError) or getattr(error, "status", None) in _NOT_ALLOWED:
                raise self._unsupported(error) from error
            raise self._unavailable(error, drivers.advice_for(fs, error)) from error

    def close(self) -> None:
        """Let go of a connection; it is opened again when it is needed."""
        opened, self._opened = self._opened, None
        if opened is not None:
            drivers.disconnect(opened[0])

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open_now()
        return self._opened

    def _open_now(self) -> tuple[Any, str]:
        if self._scheme == "memory":
            return _private_memory(), ""
        if self._scheme in ("http", "https"):
            self._options.setdefault("get_client", http_client)
        fs, root = fsspec.core.url_to_fs(self._url, **self._options)
        if not isinstance(fs, fsspec.get_filesystem_class(self._scheme)):
            raise UnavailableError(
                self._instance, f"{masked(self._url)}: fsspec opens another file system, {type(fs).__name__}"
            )
        drivers.prepare(fs)
        self._root = str(root).rstrip("/")
        return fs, self._root


_left: Final[list[Any]] = []
"""File systems of the parent, which close what they have open when they are freed."""


def _leave_to_parent(fs: Any) -> None:
    """Let nothing be done to what the parent of a fork has open, neither now nor at the end of the child.

    What an event loop waits for is kept by the system, in one place for both processes: to close a connection
    here would have the loop of the parent wait for it for ever.
    """
    _left.append(fs)
    fsspec.asyn.reset_lock()
    loop = getattr(fs, "_loop", None)
    if loop is not None:
        # It looks as if it had ended, and was closed. Its own `close` would do what must not be done.
        loop._thread_id, loop._closed = None, True  # noqa: SLF001 - as above


def _driver_options(protocols: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a driver; in a chain of drivers those of the others are tables by their names."""
    first, others = protocols[0], protocols[1:]
    driver = drivers.with_defaults(first, _spelled(first, options))
    for protocol in others:
        given = driver.get(protocol, {})
        if isinstance(given, Mapping):
            driver[protocol] = drivers.with_defaults(protocol, _spelled(protocol, given))
    driver["skip_instance_cache"] = True  # This one is fsspec's own, and reaches no driver.
    return driver


def _spelled(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the names that the driver knows."""
    spelled: dict[str, Any] = {}
    for name, value in options.items():
        place = S3_NAMES.get(name, (name,)) if protocol in S3_SCHEMES else (name,)
        if protocol in S3_SCHEMES and name in S3_NEEDLESS:
            continue
        target = spelled
        for part in place[:-1]:
            target = target.setdefault(part, {})
        last = place[-1]
        # What another name has put there already stays; the config's own table is not touched.
        target[last] = {**target.get(last, {}), **value} if isinstance(value, Mapping) else value
    return spelled


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
