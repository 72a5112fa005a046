"""From the URL of an object store to the store."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from castore.errors import MissingDriverError
from castore.places import Create, locate
from castore.problems import did_you_mean
from castore.secrets import Secret
from castore.urls import masked, quoted
from castore_objectstore.drivers import driver_of, is_known, protocols_of
from castore_objectstore.looks import OBJECTS, StoreLayout
from castore_objectstore.object_store import ObjectStore

DriverName: TypeAlias = Literal["auto", "fsspec", "obstore"]
"""What makes the requests to a bucket."""

_NOT_INSTALLED: Final = "is not installed: run `pip install 'castore[obstore]'`"

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

_COMMON: Final = ("file", "s3", "gs", "abfs", "sftp", "http", "memory")

_SERVER: Final = re.compile(r"https?://", re.IGNORECASE)
"""How restic names a bucket: by its server."""

_LOGIN: Final = re.compile(r"^([^/@:]*):[^/@]*@")
"""A user and a password, without the `//` before them by which others find it."""


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

    for part in str(url).split("::"):
        protocol, separator, rest = _parted(part)
        if protocol not in available_protocols() and not is_known(protocol):
            hint = did_you_mean(protocol, [*_COMMON, *available_protocols()])
            common = ", ".join(f"`{entry}:`" for entry in _COMMON)
            raise ValueError(
                f"unknown scheme `{protocol[:60]}:`; {hint or f'among the known ones are {common}'}"
            )
        if (separator != "://" and part != protocol) or _SERVER.match(rest):
            # A driver would not see the scheme, and take all of it for the name of a folder.
            shown = url if isinstance(url, Secret) else protocol + separator + _LOGIN.sub(r"\1:***@", rest)
            way_out = _usual(protocol, "" if isinstance(url, Secret) else _LOGIN.sub(r"\1@", rest))
            raise ValueError(f"{quoted(shown)} is not how castore names that place; write {way_out}")


def _parted(part: str) -> tuple[str, str, str]:
    """Return the scheme of a URL, what follows it, and the rest."""
    match = re.search(r"://|:", part)
    return (part, "", "") if match is None else (part[: match.start()], match[0], part[match.end() :])


def _usual(protocol: str, rest: str) -> str:
    """Return how a place is written of which other programs have another way of writing it."""
    if _SERVER.match(rest):
        scheme, _, place = rest.partition("://")
        host, _, path = place.partition("/")
        option = f'`object_store_options = {{ endpoint_url = "{scheme}://{host}" }}`'
        return f"`{protocol}://{path or 'bucket/prefix'}`, and the server as an option: {option}"
    if protocol == "local":
        return f"`file:{rest or './stores/blobs'}`, which is a folder of this machine"
    sort, plain = driver_of(protocol).sort, rest.lstrip("/")
    if sort in ("bucket", "web") or not rest:
        return f"`{protocol}://{plain or ('bucket/prefix' if sort == 'bucket' else 'host/path')}`"
    if rest.startswith("/"):
        return f"`{protocol}://host{rest}`"
    # The form of scp, and of all that goes by SSH: the host ends with a colon.
    host, colon, path = rest.partition(":")
    if not colon or path.startswith("/"):
        return f"`{protocol}://{host}{path}`"
    return f"`{protocol}://{host}/` and the whole path of `{path}`"


def open_store(
    url: str,
    options: Mapping[str, Any],
    *,
    base: Path,
    instance: str,
    secrets: Sequence[str] = (),
    durability: Literal["process", "full"] = "full",
    create: Create = "path",
    layout: StoreLayout = OBJECTS,
    driver: DriverName = "auto",
) -> ObjectStore:
    """Open the store at *url*; relative paths start from *base*. Nothing is contacted yet.

    Raises `MissingDriverError` if the driver for its scheme is not installed.
    """
    if scheme_of(url) == "file":
        from castore_objectstore.local import LocalObjectStore  # noqa: PLC0415 - one of the two is needed

        found = locate(base, local_path(url), create)
        return LocalObjectStore(
            found.path, instance=instance, durability=durability, makes=found.makes, layout=layout
        )

    def by_fsspec() -> ObjectStore:
        from castore_objectstore.fsspec_store import FsspecObjectStore  # noqa: PLC0415 - as above

        for protocol in protocols_of(url):
            _check_driver(protocol)
        return FsspecObjectStore(url, options, instance=instance, secrets=secrets, create=create)

    choice = choose_driver(url, options, driver)
    if choice.driver == "fsspec":
        return by_fsspec()
    from castore_objectstore.obstore_options import read_bucket  # noqa: PLC0415 - as above

    try:
        from castore_objectstore.obstore_store import ObstoreObjectStore  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingDriverError(f"the driver `obstore` {_NOT_INSTALLED}") from error
    return ObstoreObjectStore(
        url,
        read_bucket(url, options),
        instance=instance,
        secrets=secrets,
        # A program that says which driver it wants is not given another one, not even in a child of a fork.
        other=by_fsspec if driver == "auto" and _has_driver(protocols_of(url)[0]) else None,
    )


@attrs.frozen
class DriverChoice:
    """Which driver a store has, and why."""

    driver: Literal["fsspec", "obstore"]
    why: str


def choose_driver(url: str, options: Mapping[str, Any], driver: DriverName) -> DriverChoice:
    """Return the driver of a store that is in no folder.

    `auto` takes obstore where it finds all that the driver of fsspec would, or nothing else is installed.

    Raises `MissingDriverError` if an option is only for the one that is not there.
    """
    if driver != "auto":
        return DriverChoice(driver, "the composition says so")
    from castore_objectstore import obstore_options  # noqa: PLC0415 - a folder needs none

    if obstore_options.kind_of(url) is None:
        return DriverChoice("fsspec", "it is the one for such a URL")
    own = only_for_obstore(url, options)
    if not _has_obstore():
        if own:
            raise MissingDriverError(f"`{own}` is an option of the driver `obstore`, which {_NOT_INSTALLED}")
        return DriverChoice("fsspec", "obstore is not installed")
    try:
        bucket = obstore_options.read_bucket(url, options)
    except obstore_options.CannotError as error:
        return DriverChoice("fsspec", str(error))
    scheme = protocols_of(url)[0]
    if own or not _has_driver(scheme):
        why = f"the option `{own}` is for it" if own else f"`{driver_of(scheme).package}` is not installed"
        return DriverChoice("obstore", why)
    lacking = obstore_options.finds_less(bucket)
    return DriverChoice("fsspec", lacking) if lacking else DriverChoice("obstore", "it is the faster one")


def only_for_obstore(url: str, options: Mapping[str, Any]) -> str | None:
    """Return the first option that obstore has, and the driver of fsspec has not."""
    from castore_objectstore.options import fsspec_options  # noqa: PLC0415 - it needs this module

    known = fsspec_options(url)
    return None if known is None else next((name for name in options if name not in known), None)


def _has_obstore() -> bool:
    try:
        return importlib.util.find_spec("obstore") is not None
    except ValueError:
        return False  # Somebody has seen to it that it cannot be imported.


def _has_driver(protocol: str) -> bool:
    try:
        _check_driver(protocol)
    except MissingDriverError:
        return False
    return True


def is_read_only(url: str) -> bool:
    """Tell whether nothing can be written at *url*: its last scheme is that of web pages."""
    return scheme_of(url) != "file" and protocols_of(url)[-1] in {"http", "https"}


def waits(url: str) -> bool:
    """Tell whether a request there may wait without end: castore knows of no time limit of its driver."""
    return scheme_of(url) != "file" and not is_known(protocols_of(url)[-1])


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
        if host.lower() not in ("", "localhost"):
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


def _check_driver(protocol: str) -> None:
    import fsspec  # noqa: PLC0415 - a folder needs no fsspec

    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        driver = driver_of(protocol)
        advice = (
            f"run `pip install '{driver.package}'`, or `pip install 'castore[{driver.extra}]'`"
            if driver.extra
            else str(error)
        )
        raise MissingDriverError(f"the driver for `{protocol}:` is not installed: {advice}") from error
