"""A composition as a document: what tomli makes of a text, or what can be made of it around its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import tomli

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path
    from castore.problems import Problem


@attrs.frozen
class Document:
    """A parsed file. Where it has errors, what could be read around them."""

    tables: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    text: str | None = attrs.field(default=None, repr=False)
    """What could be read, each character where it was in the file; `None` if there is no file."""
    damaged: frozenset[Path] = frozenset()
    """The tables that have lines which could not be read."""
    lost: bool = False
    """Whether there are tables which could not be read, so that nobody knows what they were."""

    def may_lack(self, table: Path) -> bool:
        """Tell whether what seems to be missing in *table* may stand in what could not be read."""
        damaged = any(table[:length] in self.damaged for length in range(len(table) + 1))
        return damaged or (self.lost and len(table) == 1)


def parse(text: str, problems: tuple[Problem, ...] = ()) -> Document:
    """Parse *text*, finding all of its errors.

    *problems*: those that it is known to have, in lines which are then left out.
    """
    # As tomli does, so that the places of errors are places in the text.
    text = text.replace("\r\n", "\n")
    if not problems:
        try:
            return Document(tomli.loads(text), text=text)
        except (ValueError, RecursionError):
            pass
    from castore.composition.toml.recovery import recover  # noqa: PLC0415 - only mistakes need it

    return recover(text, problems)
