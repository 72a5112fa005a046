"""The two front doors: a composition from a file, and a single service from a URL."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Final
from urllib.parse import quote

from castore.composition.building import close_all
from castore.composition.composition import Composition
from castore.composition.source import ConfigSource
from castore.composition.types.registry import Registry
from castore.contract.blobs import BlobService
from castore.errors import CompositionError, describe
from castore.metrics.shell import bare
from castore.places import PlaceError, expand_user
from castore.problems import toml_string
from castore.threads.pool import Pool

VARIABLE: Final = "CASTORE_COMPOSITION"
"""The environment variable that names the composition to use."""

FILE: Final = "composition.toml"
"""The composition that is used if it lies in the current folder, or in one above it."""

DEFAULT: Final = "<default>"
"""The name of the built-in composition."""


def open(  # noqa: A001 - used as `castore.open`
    path: str | os.PathLike[str] | None = None,
    *,
    registry: Registry | None = None,
    metrics: bool = True,
    search: bool = True,
) -> Composition:
    """Open a composition: the first there is of those below, or else the built-in default.

    It is *path*; else the file that `$CASTORE_COMPOSITION` names; else, unless *search* is false, the
    `composition.toml` that is nearest: in the current folder, or one above it. One that is found so, and not
    named, must belong to the user.

    The default has one blob service, `root`: an object store in the user's data folder. Without *metrics*
    nothing is measured.

    A composition may send the values of environment variables to the servers that it names. A program that
    runs in folders of others says ``search=False``.

    Raises `CompositionError` with all problems of the file, or if it belongs to another user.
    """
    if path is not None:
        return Composition.from_toml(Path(path), registry=registry, metrics=metrics)
    named = os.environ.get(VARIABLE)
    if named:
        try:
            return Composition.from_toml(expand_user(named), registry=registry, metrics=metrics)
        except PlaceError as error:
            raise CompositionError(f"{describe(error)} (named by ${VARIABLE})") from None
        except CompositionError as error:
            if error.problems:
                raise
            raise CompositionError(f"{error.message} (named by ${VARIABLE})") from None
    found = nearest_file() if search else None
    if found is not None:
        _check_owner(found)
        return Composition.from_toml(found, registry=registry, metrics=metrics)
    return Composition(default_source(), registry, metrics)


def nearest_file() -> Path | None:
    """Return the `composition.toml` of the current folder or the nearest one above; `None` without one."""
    try:
        folder = Path(os.getcwd())  # noqa: PTH109 - `Path.cwd` is the same; this one says that it asks the system
    except OSError:
        return None
    for above in (folder, *folder.parents):
        # A link that leads nowhere is a mistake, not a reason to use another store.
        if os.path.lexists(above / FILE):
            return Path(FILE) if above == folder else above / FILE
    return None


def _check_owner(path: Path) -> None:
    """Raise `CompositionError` unless the file, and a link to it, are the user's own.

    It says which servers get which variables of the environment, and where blobs are written.
    """
    mine = {os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        mine.add(int(os.environ["SUDO_UID"]))  # Who calls `sudo` in a folder of theirs means that folder.
    for look in (os.lstat, os.stat):
        try:
            owner = look(path).st_uid
        except OSError:
            return  # Reading it will tell.
        if owner not in mine:
            shown = toml_string(str(path))[1:-1]
            raise CompositionError(
                f"{shown} belongs to another user (uid {owner}): if you trust it, name it by `--composition`,"
                f" ${VARIABLE} or `castore.open(path)`"
            )


def default_source() -> ConfigSource:
    """Return the built-in composition."""
    import platformdirs  # noqa: PLC0415 - only who has no composition needs it

    try:
        folder = Path(platformdirs.user_data_dir("castore", appauthor=False))
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():
        raise CompositionError(
            "there is no composition here, and the default one is in your home, which nobody knows:"
            f" set HOME or XDG_DATA_HOME, or name a composition, as by ${VARIABLE}"
        )
    url = "file:" + quote(os.fsencode(folder / "blobs"))  # Names are bytes, which need not be text.
    # A new user has none of these folders, and they are on the disk of the home.
    root = {"type": "objectstore", "object_store_url": url, "create": "path"}
    mapping = {"blobservices": {"root": root}}
    return ConfigSource.of_mapping(mapping, folder, DEFAULT)


def from_url(url: str, *, registry: Registry | None = None) -> BlobService:
    """Return a blob service from its URL alone, such as `memory:` or `objectstore+file:/var/lib/blobs`.

    Relative paths start from the current folder. Raises `CompositionError` for a URL that is no good and
    `BuildError` if the service cannot be built.
    """
    # Who has the service alone has no composition to ask what was measured.
    composition = Composition(ConfigSource.of_url(url), registry, metrics=False)
    service, others = composition.released()
    # Nobody is left to close the composition; what the service needs, and its threads, end with it.
    # A reader that is left has no more than the service itself, without the shell around it.
    weakref.finalize(bare(service), _end, others, composition.pool)
    return service


def _end(services: list[BlobService], pool: Pool) -> None:
    try:
        close_all(services)
    finally:
        pool.close()
