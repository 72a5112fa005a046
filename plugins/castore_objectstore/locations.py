"""From the URL of an object store to the store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote_to_bytes

from castore.errors import MissingDriverError
from castore.problems import did_you_mean
from castore.urls import masked
from castore_objectstore.object_store import ObjectStore

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

_COMMON: Final = ("file", "s3", "gs", "abfs", "sftp", "http", "memory")

_EXTRAS: Final = {
    "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "abfs": "azure", "az": "azure", "abfss": "azure",
    "sftp": "sftp", "ssh": "sftp", "http": "http", "https": "http",
}  # fmt: skip
"""Which extra of castore has the driver of a scheme."""


def check_url(url: str) -> None:
    """Raise `ValueError` for a URL that no store can be opened from."""
    scheme = scheme_of(url)
    if scheme == "file":
        local_path(url)
        return
    if scheme == "memory":
        _check_memory(url)
        return
    from fsspec import available_protocols  # noqa: PLC0415 - a folder needs no fsspec

    for protocol in _protocols(url):
        if protocol not in available_protocols() and protocol not in _EXTRAS:
            hint = did_you_mean(protocol, [*_COMMON, *available_protocols()])
            common = ", ".join(f"`{entry}:`" for entry in _COMMON)
            raise ValueError(f"unknown scheme `{protocol}:`; {hint or f'among the known ones are {common}'}")


def open_store(
    url: str,
    options: Mapping[str, Any],
    *,
    base: Path,
    instance: str,
    secrets: Sequence[str] = (),
    durability: Literal["process", "full"] = "full",
) -> ObjectStore:
    """Open the store at *url*; relative paths start from *base*. Nothing is contacted yet.

    Raises `MissingDriverError` if the driver for its scheme is not installed.
    """
    if scheme_of(url) == "file":
        from castore_objectstore.local import LocalObjectStore  # noqa: PLC0415 - one of the two is needed

        return LocalObjectStore(base / local_path(url), instance=instance, durability=durability)
    from castore_objectstore.fsspec_store import FsspecObjectStore  # noqa: PLC0415 - as above

    for protocol in _protocols(url):
        _check_driver(protocol)
    return FsspecObjectStore(url, options, instance=instance, secrets=secrets)


def is_read_only(url: str) -> bool:
    """Tell whether nothing can be written at *url*: its last scheme is that of web pages."""
    return scheme_of(url) != "file" and _protocols(url)[-1] in {"http", "https"}


def scheme_of(url: str) -> str:
    """Return the scheme of *url* in lower case; raises `ValueError` if it has none."""
    match = _SCHEME.match(url)
    if not match:
        raise ValueError(f"{masked(url)!r} is no URL; for a folder write `file:{masked(url)}`")
    return match[1].lower()


def local_path(url: str) -> Path:
    """Return the path in a `file:` URL, percent-decoded; it may be relative."""
    rest = url.partition(":")[2]
    if "?" in rest or "#" in rest:
        raise ValueError(f"{url!r} has a query or fragment; write `%3F` for `?` and `%23` for `#` in a path")
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host:
            raise ValueError(
                f"{url!r} names the host `{host}`; for a local path write `file:/{host}{slash}{path}`"
            )
        rest = slash + path
    # Names of files are bytes, which need not be text.
    path = os.fsdecode(unquote_to_bytes(os.fsencode(rest)))
    if not path:
        raise ValueError(f"{url!r} has no path; write `file:./stores/blobs`, say")
    if "\0" in path:
        raise ValueError(f"{url!r} has a NUL byte in its path")
    return Path(path)


def _check_memory(url: str) -> None:
    if re.fullmatch(r"memory:(//)?/?", url, re.IGNORECASE) is None:
        raise ValueError(f"{url!r} gives a memory store an address; write `memory:`")


def _protocols(url: str) -> list[str]:
    """Return the schemes of a chained URL such as `simplecache::s3://bucket`."""
    return [re.split(r"://|:", part, maxsplit=1)[0] for part in url.split("::")]


def _check_driver(protocol: str) -> None:
    import fsspec  # noqa: PLC0415 - a folder needs no fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        extra = _EXTRAS.get(protocol)
        advice = f"run `pip install 'castore[{extra}]'`" if extra else str(error)
        raise MissingDriverError(f"the driver for `{protocol}:` is not installed: {advice}") from error
