"""Paths of universal_pathlib for `castore://HEX/path`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from upath import UPath


class CastorePath(UPath):  # type: ignore[misc, unused-ignore] # where that is not installed it has no types
    """A path in a tree; its drive is what stands for the root of that, which `parent` does not leave."""

    __slots__ = ()

    @property
    def drive(self) -> str:
        """The digest or the name of the root."""
        return str(super().path).partition("/")[0]

    @property
    def root(self) -> str:
        """None: the drive is where the tree begins."""
        return ""

    @property
    def anchor(self) -> str:
        """What `parent` ends at."""
        return self.drive

    @property
    def parts(self) -> Sequence[str]:
        """The root, and the names below it."""
        return [each for each in str(super().path).split("/") if each]

    @property
    def parent(self) -> Any:
        """The directory that this is in; the root itself for a root."""
        return self if len(self.parts) < 2 else super().parent
