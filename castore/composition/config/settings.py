"""What a composition says of itself as a whole: the keys above its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.problems import Problem, nearest

if TYPE_CHECKING:
    from castore.composition.config.structure import ConfigStructurer


@attrs.frozen
class DocumentSettings:
    """The keys that stand above all tables."""

    allow_faults: bool = False
    """Whether services may be used that make faults on purpose, to rehearse them."""
    ignore_warnings: list[str] = attrs.field(factory=list)
    """Warnings that are not wanted: their codes, or a code, a colon and the name of an instance."""


SETTINGS: Final = tuple(field.name for field in attrs.fields(DocumentSettings))
"""The names of the settings."""


@attrs.frozen
class ReadSettings:
    """The settings that were found in a document, and what is wrong with them."""

    keys: frozenset[str]
    """The keys of the document that are, or were probably meant to be, settings."""
    problems: tuple[Problem, ...]
    _values: Mapping[str, Any]
    _unreadable: frozenset[str]

    def refuses(self, name: str) -> bool:
        """Tell whether the setting *name* is off; not if it is there with a value that was reported."""
        return not self._values.get(name, False) and name not in self._unreadable

    @property
    def ignored(self) -> Sequence[str]:
        """The warnings that are not wanted."""
        return tuple(self._values.get("ignore_warnings", ()))


def read_settings(tables: Mapping[str, Any], structurer: ConfigStructurer) -> ReadSettings:
    """Read the settings among the top-level keys of a document."""
    chosen = {key: value for key, value in tables.items() if key in SETTINGS or _is_misspelt(key, value)}
    reading = structurer.read(chosen, DocumentSettings)
    unreadable = reading.written.keys() - reading.values.keys()
    return ReadSettings(frozenset(chosen), reading.problems, reading.values, frozenset(unreadable))


def _is_misspelt(key: object, value: object) -> bool:
    return not isinstance(value, Mapping) and nearest(str(key), SETTINGS) is not None
