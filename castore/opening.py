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
from castore.errors import CompositionError
from castore.threads.pool import Pool

VARIABLE: Final = "CASTORE_COMPOSITION"
"""The environment variable that names the composition to use."""

FILE: Final = "composition.toml"
"""The composition that is used if it lies in the current folder."""


def open(  # noqa: A001 - used as `castore.open`
    path: str | os.PathLike[str] | None = None, *, registry: Registry | None = None, metrics: bool = True
) -> Composition:
    """Open a composition: *path*, else `$CASTORE_COMPOSITION`, else `./composition.toml`, else the default.

    The default has one blob service, `root`: an object store in the user's data folder. Without *metrics*
    nothing is measured.
    Raises `CompositionError` with all problems of the file.
    """
    if path is not None:
        return Composition.from_toml(Path(path), registry=registry, metrics=metrics)
    named = os.environ.get(VARIABLE)
    if named:
        try:
            return Composition.from_toml(named, registry=registry, metrics=metrics)
        except CompositionError as error:
            if error.problems:
                raise
            raise CompositionError(f"{error.message} (named by ${VARIABLE})") from None
    if os.path.lexists(FILE):  # A link that leads nowhere is a mistake, not a reason to use another store.
        return Composition.from_toml(FILE, registry=registry, metrics=metrics)
    return Composition(default_source(), registry, metrics)


def default_source() -> ConfigSource:
    """Return the built-in composition."""
    import platformdirs  # noqa: PLC0415 - only who has no composition needs it

    folder = Path(platformdirs.user_data_dir("castore", appauthor=False))
    url = "file:" + quote(str(folder / "blobs"))
    # A new user has none of these folders, and they are on the disk of the home.
    root = {"type": "objectstore", "object_store_url": url, "create": "path"}
    mapping = {"blobservices": {"root": root}}
    return ConfigSource.of_mapping(mapping, folder, "<default>")


def from_url(url: str, *, registry: Registry | None = None) -> BlobService:
    """Return a blob service from its URL alone, such as `memory:` or `objectstore+file:/var/lib/blobs`.

    Relative paths start from the current folder. Raises `CompositionError` for a URL that is no good and
    `BuildError` if the service cannot be built.
    """
    # Who has the service alone has no composition to ask what was measured.
    composition = Composition(ConfigSource.of_url(url), registry, metrics=False)
    service, others = composition.released()
    # Nobody is left to close the composition; what the service needs, and its threads, end with it.
    weakref.finalize(service, _end, others, composition.pool)
    return service


def _end(services: list[BlobService], pool: Pool) -> None:
    try:
        close_all(services)
    finally:
        pool.close()
