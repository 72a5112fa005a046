"""Finding the type of a declared instance, by the tag in its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from castore.composition.config.settings import ReadSettings
from castore.composition.config.values import kind_of
from castore.composition.toml.document import Document
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType
from castore.problems import Problem, escaped, nearest

if TYPE_CHECKING:
    from castore.composition.graph.declarations import Declaration
    from castore.composition.toml.spans import Path


@attrs.frozen
class Typed:
    """A declared instance, its type, and the values in its table, without the key of the type."""

    kind: Kind
    path: Path
    type: RegisteredType | None
    """`None` if it has none that is known."""
    values: Mapping[str, Any]


class TypeFinder:
    """Finds types, and what is wrong with how they are named.

    Arguments:
        registry: Knows the types.
        settings: Those of the composition, which may allow types that are refused otherwise.
        document: The composition.
    """

    def __init__(self, registry: Registry, settings: ReadSettings, document: Document) -> None:
        self._registry = registry
        self._settings = settings
        self._document = document
        self.problems: list[Problem] = []

    def _report(
        self, code: str, path: Path, message: str, hint: str | None = None, *, at: str = "value"
    ) -> None:
        self.problems.append(Problem(code, path, message, hint, at))

    def find_all(self, declarations: Iterable[Declaration]) -> list[Typed]:
        """Return the instances with their types."""
        return [self._find(declaration) for declaration in declarations]

    def check_allowed(self, entry: RegisteredType, path: Path) -> None:
        """Report a type that the composition does not allow."""
        setting = entry.only_if
        # In lines above the tables that could not be read it may have been allowed.
        if setting is None or not self._settings.refuses(setting) or self._document.may_lack(()):
            return
        message = f"the type `{entry.tag}` is refused unless the composition says `{setting} = true`"
        self._report("not-allowed", path, message, "if you mean it, write that above the first table")

    def _find(self, declared: Declaration) -> Typed:
        kind, path, table = declared.kind, declared.path, declared.table
        key = self._key_of_type(kind, table, path)
        entry = self._type_of(kind, table.get(key), (*path, key))
        if entry is not None:
            self.check_allowed(entry, (*path, key))
        return Typed(kind, path, entry, {name: value for name, value in table.items() if name != key})

    def _key_of_type(self, kind: Kind, table: Mapping[str, object], path: Path) -> str:
        """Return `type`, or the key that was meant for it and says which type it is; report that one."""
        if "type" in table:
            return "type"
        words = ((str(key), tag) for key, tag in table.items() if isinstance(tag, str))
        meant = nearest("type", [key for key, tag in words if self._registry.find(kind, tag) is not None])
        if meant is None:
            return "type"
        message = f"unknown key `{escaped(meant)}`"
        self._report("unknown-key", (*path, meant), message, "did you mean `type`?", at="key")
        return meant

    def _type_of(self, kind: Kind, tag: object, where: Path) -> RegisteredType | None:
        if tag is None:
            if not self._document.may_lack(where[:-1]):
                hint = f'write `type = "..."`\n{self._registry.installed(kind)}'
                self._report("missing-key", where[:-1], "the key `type` is missing", hint, at="key")
            return None
        if not isinstance(tag, str):
            hint = self._registry.installed(kind)
            self._report("wrong-value", where, f"expected the name of a type, found {kind_of(tag)}", hint)
            return None
        entry = self._registry.find(kind, tag)
        if entry is not None:
            return entry
        contested = self._registry.why_contested(kind, tag)
        if contested is not None:
            message, _, hint = contested.rpartition("; ")
            self._report("ambiguous-type", where, message, hint)
            return None
        entry = self._registry.renamed(kind, tag)
        if entry is not None:
            message = f"the type `{tag}` is now called `{entry.tag}`"
            self._report("old-name", where, message, f"write `{entry.tag}`")
            return entry
        message = f"unknown type of {kind.label} `{escaped(tag)}`"
        self._report("unknown-type", where, message, self._registry.why_unknown(kind, tag))
        return None
