"""What a composition keeps its blobs in, which is left out of what is stored: each run would store more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from castore.composition.composition import Composition

_BESIDE: Final = ("-wal", "-shm", "-journal", "-lru", "-being-filled", "-lease-")
"""How names go on of what lies beside a file of blobs."""


@attrs.frozen
class _Place:
    path: str
    owner: str


class OwnPlaces:
    """The folders and files in which the instances of a composition keep what they have."""

    def __init__(self, stores: Composition) -> None:
        # Help needs no composition.
        from castore.composition.graph.lints import traits_of  # noqa: PLC0415
        from castore.composition.graph.traits import label  # noqa: PLC0415

        traits = traits_of(stores.graph, stores.base)
        self._places = [
            _Place(path, label(instance))
            for key, instance in stores.graph.instances.items()
            if (place := traits[key].place) is not None
            for path in _ways_to(place)
        ]
        self._names = {os.path.basename(place.path) for place in self._places}
        self._beginnings = tuple(os.fsencode(name) for name in self._names)

    def may_be(self, path: bytes) -> bool:
        """Tell whether `reason_against` can have anything against a path: that is asked of each file."""
        return path.rpartition(b"/")[2].startswith(self._beginnings)

    def reason_against(self, path: str) -> str | None:
        """Return why something that was met on the way is left out, `None` if it is not."""
        folder, name = os.path.split(path)
        if name in self._names:
            return self._reason(folder, name)
        for beside in _BESIDE:
            before, found, after = name.rpartition(beside)
            if found and before in self._names and (not after or beside == "-lease-"):
                return self._reason(folder, before, beside=True)
        return None

    def reason_against_all_in(self, folder: str) -> str | None:
        """Return why nothing in a folder that was named is stored: it lies in such a place, or is one."""
        try:
            real = os.path.realpath(folder)
        except OSError:
            return None  # As where the current folder is gone; who reads the folder says so.
        for place in self._places:
            if real == place.path or real.startswith(f"{place.path}/"):
                return _said(place)
        return None

    @property
    def reasons(self) -> dict[str, str]:
        """All places, with the reason that each is one."""
        return {place.path: _said(place) for place in self._places}

    def _reason(self, folder: str, name: str, *, beside: bool = False) -> str | None:
        for place in self._places:
            above, called = os.path.split(place.path)
            if called != name or (beside and os.path.isdir(place.path)):
                continue
            try:
                if os.path.samefile(folder or ".", above):
                    return _said(place)
            except OSError:
                continue
        return None


def _ways_to(place: Path) -> Iterator[str]:
    """Yield the path of a place, and where it leads if it is a link or below one."""
    if not place.is_absolute():
        return  # The folder that it would start from is gone.
    path = os.path.abspath(place)
    yield path
    if (real := os.path.realpath(path)) != path:
        yield real


def _said(place: _Place) -> str:
    return f"where `{place.owner}` keeps what it has"
