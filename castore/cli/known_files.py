"""Where the command line keeps what it knows of files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from castore.cli.output import complain
from castore.cli.settings import Settings
from castore.digest import B3Digest
from castore.trees.known_files import KnownFiles

if TYPE_CHECKING:
    from castore.composition.composition import Composition


def known_files_of(
    stores: Composition, settings: Settings, compare: str
) -> contextlib.AbstractContextManager[KnownFiles | None]:
    """Return a context with what is known of files that went to the service of this run.

    In the user's cache folder there is a file for each composition and service. It does not matter if that
    composition has changed: whether a blob is there is asked each time.

    Arguments:
        stores: The composition.
        settings: Those of this run.
        compare: What is compared of a file; `off` for none.
    """
    if compare == "off":
        return contextlib.nullcontext()
    import platformdirs  # noqa: PLC0415 - only imports need it

    place = "\0".join((str(stores.base), stores.name, settings.service_name))
    identity = B3Digest.of(place.encode("utf-8", "surrogateescape")).hex()[:16]
    folder = Path(platformdirs.user_cache_dir("castore", appauthor=False)) / "known-files"
    options: dict[str, Any] = {"compare": compare}
    return KnownFiles(
        folder / f"{identity}.sqlite", **options, warn=lambda text: complain(f"castore: {text}")
    )
