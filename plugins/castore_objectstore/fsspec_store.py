"""Objects in anything that fsspec opens: cloud buckets, SFTP, HTTP, memory, chains of these."""

from __future__ import annotations

import contextlib
import re
import secrets as randomness
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from castore.composition import scrub
from castore.composition.urls import masked
from castore.errors import CastoreError, UnavailableError, UnsupportedError, describe
from castore_objectstore.object_store import ObjectStore

_BUCKETS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "abfss"})
"""Schemes without folders, whose drivers list all keys under a prefix in few requests."""

_ATOMIC: Final = _BUCKETS | {"memory", "http", "https"}
"""Schemes whose objects appear whole; elsewhere they are written beside their place and moved."""

_NOT_FOUND: Final = (404, 410)
_NOT_ALLOWED: Final = (405, 501)
"""Status codes of HTTP."""

_TEMPORARY: Final = re.compile(r"#[0-9a-f]+$")

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
        self, url: str, options: Mapping[str, Any], *, instance: str, secrets: Sequence[str] = ()
    ) -> None:
        self._url = url
        self._scheme = url.partition(":")[0].lower()
        self._options = _driver_options(self._scheme, options)
        self._instance = instance
        self._secrets = secrets
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
        with self._using(key) as (fs, path):
            try:
                return bool(fs.info(path)["type"] == "file")
            except FileNotFoundError as error:
                _require_absence(error)
                return False

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

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys under *prefix*; temporary files are none."""
        with self._using(prefix.rstrip("/")) as (fs, path):
            try:
                found = fs.find(path) if self._scheme in _BUCKETS else _walk(fs, path)
            except FileNotFoundError as error:
                _require_absence(error)
                found = []
        for name in found:
            key = name[name.rindex(path) + len(path) :].lstrip("/") if path in name else name
            if not _TEMPORARY.search(key):
                yield f"{prefix}{key}"

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

    def _unsupported(self, error: Exception) -> UnsupportedError:
        what = f"`{self._instance}`: {masked(self._url)} cannot do this"
        return UnsupportedError(f"{what}: {self._clean(error)}")

    def _clean(self, error: Exception) -> str:
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


def _walk(fs: Any, path: str) -> list[str]:
    """Return all files under a folder; `fs.find` would leave out the folders that cannot be listed."""
    return [f"{folder}/{name}" for folder, _, files in fs.walk(path, on_error="raise") for name in files]


def _private_memory() -> Any:
    """Return a memory file system of its own; fsspec's shares one dictionary in the whole process."""

    class PrivateMemoryFileSystem(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: dict[str, Any] = {}  # noqa: RUF012 - one per class, and so one per call
        pseudo_dirs = [""]  # noqa: RUF012 - as above

    return PrivateMemoryFileSystem()
