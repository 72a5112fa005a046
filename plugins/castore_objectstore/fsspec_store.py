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

_ATOMIC: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "abfss", "memory"})
"""Schemes whose objects appear whole; elsewhere they are written beside their place and moved."""

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
            except (FileNotFoundError, IsADirectoryError):
                return None
            return data

    def exists(self, key: str) -> bool:
        """Tell whether there is an object; `fs.exists` would take every error for a no."""
        with self._using(key) as (fs, path):
            try:
                return bool(fs.info(path)["type"] == "file")
            except FileNotFoundError:
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
                found = fs.find(path)
            except FileNotFoundError:
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
        except NotImplementedError as error:
            raise UnsupportedError(
                f"`{self._instance}`: `{self._scheme}:` cannot do this ({error})"
            ) from error
        except Exception as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        text = describe(error)
        clean = scrub(text, self._secrets)
        where = masked(self._url)
        return UnavailableError(self._instance, f"{where}: {clean}")

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
        target[place[-1]] = value
    return driver


def _private_memory() -> Any:
    """Return a memory file system of its own; fsspec's shares one dictionary in the whole process."""

    class PrivateMemoryFileSystem(MemoryFileSystem):  # type: ignore[misc]
        cachable = False
        store: dict[str, Any] = {}  # noqa: RUF012 - one per class, and so one per call
        pseudo_dirs = [""]  # noqa: RUF012 - as above

    return PrivateMemoryFileSystem()
