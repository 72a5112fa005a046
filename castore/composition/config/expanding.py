"""Putting what comes by reference, from the environment or a file, in its place in a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.composition.config.tables import problems_of
from castore.problems import Problem
from castore.secrets import Secret, expand, read_secret_file

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

DEEPEST: Final = 50
"""How deep tables and arrays may be nested, and URLs that stand for services with URLs in them."""


class Expanding:
    """What came by reference into the table of one instance, and what could not."""

    def __init__(self, base: FilePath) -> None:
        self._base = base
        self.secrets: list[Secret] = []
        self.problems: list[Problem] = []

    def expand(self, value: object, path: Path) -> Any:
        """Return *value* with all references in it replaced; those that cannot be are reported, and left."""
        if len(path) > DEEPEST:
            self.problems.append(Problem("wrong-value", path, "arrays and tables are nested too deeply"))
            return None
        if isinstance(value, str) or _is_secret_file(value):
            return self._resolved(value, path)
        if isinstance(value, Mapping):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.expand(item, (*path, number)) for number, item in enumerate(value)]
        return value

    def _resolved(self, value: Any, path: Path) -> Any:
        try:
            text = expand(value) if isinstance(value, str) else read_secret_file(value["file"], self._base)
        except ValueError as error:
            found = (attrs.evolve(problem, code="unresolved") for problem in problems_of(error))
            self.problems += (problem.under(*path) for problem in found)
            return value
        if isinstance(text, Secret):
            self.secrets.append(text)
        return text

    def has_reported(self, path: Path) -> bool:
        """Tell whether a problem at *path* comes from one that was found here."""
        shorter = (min(len(path), len(problem.path)) for problem in self.problems)
        return bool(path) and any(
            path[:length] == problem.path[:length]
            for problem, length in zip(self.problems, shorter, strict=True)
        )


def _is_secret_file(value: object) -> bool:
    return isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str)
