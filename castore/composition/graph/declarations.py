"""What a document declares: the table of each instance, before anybody looks at what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.composition.config.settings import ReadSettings
from castore.composition.config.values import kind_of
from castore.composition.graph.graph import instance_id
from castore.composition.toml.document import Document
from castore.composition.types.service_type import Kind
from castore.problems import Problem, did_you_mean, dotted, escaped, listing, nearest

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

TABLES_OF_OTHERS: Final = frozenset({"pathinfoservices"})
"""Tables that the reference's store tools read from the same file; as its castore tools, we leave them be."""


@attrs.frozen
class Declaration:
    """The table of one instance."""

    kind: Kind
    path: Path
    table: Mapping[str, Any]


@attrs.frozen
class Declarations:
    """All that a document declares."""

    entries: tuple[Declaration, ...] = ()
    names: Mapping[str, Path] = attrs.field(factory=dict)
    """The ids of all that is declared, rightly or wrongly: a reference to one of them does not dangle."""
    problems: tuple[Problem, ...] = ()


def declare(document: Document, kinds: Mapping[str, Kind], settings: ReadSettings) -> Declarations:
    """Find the instances in the tables of a document, those in misspelt tables among them."""
    return _Reading(document, kinds, settings).read()


class _Reading:
    def __init__(self, document: Document, kinds: Mapping[str, Kind], settings: ReadSettings) -> None:
        self._document = document
        self._kinds = kinds
        self._settings = settings
        self._names: dict[str, Path] = {}
        self._problems: list[Problem] = []

    def _report(self, code: str, path: Path, message: str, hint: str, *, at: str = "value") -> None:
        self._problems.append(Problem(code, path, message, hint, at))

    def read(self) -> Declarations:
        entries = tuple(self._entries())
        if not self._document.problems and not self._kinds.keys() & self._document.tables.keys():
            hint = 'the least that works is\n  [blobservices.root]\n  type = "memory"'
            self._report("no-root", (), "no services are declared", hint)
        return Declarations(entries, self._names, tuple(self._problems))

    def _entries(self) -> Iterator[Declaration]:
        for table, entries in self._document.tables.items():
            if table in self._kinds:
                yield from self._of_kind(self._kinds[table], entries)
            elif table not in TABLES_OF_OTHERS and table not in self._settings.keys:
                self._report_table(table, entries)
                yield from self._of_misspelt(table, entries)

    def _report_table(self, table: str, entries: object) -> None:
        if not isinstance(entries, Mapping | list):
            message, hint = "this key belongs to no table", "move it below the header of one"
            self._report("unknown-table", (str(table),), message, hint, at="key")
            return
        if isinstance(entries, Mapping) and "type" in entries:
            # An instance that stands outside of the table of its kind.
            hint = f"write `[{dotted(('blobservices', table))}]`"
        else:
            hint = did_you_mean(str(table), self._kinds) or f"the kinds are {listing(self._kinds)}"
        message = f"there is no kind of service `{escaped(str(table))}`"
        self._report("unknown-table", (str(table),), message, hint, at="key")

    def _of_misspelt(self, table: str, entries: object) -> Iterator[Declaration]:
        """Yield the instances in a table whose name is nearly that of a kind, as if it were that."""
        kind = self._meant_kind(table)
        if kind is not None and isinstance(entries, Mapping):
            tables = {str(name): entry for name, entry in entries.items() if isinstance(entry, Mapping)}
            yield from self._instances(kind, tables, table)

    def _meant_kind(self, table: str) -> Kind | None:
        meant = None if table in TABLES_OF_OTHERS else nearest(str(table), self._kinds)
        return self._kinds[meant] if meant else None

    def _of_kind(self, kind: Kind, entries: object) -> Iterator[Declaration]:
        if not isinstance(entries, Mapping):
            hint = f"write `[{kind.table}.root]`, and so for each {kind.label}"
            message = f"expected a table, found {kind_of(entries)}"
            self._report("wrong-value", (kind.table,), message, hint)
            return
        if isinstance(entries.get("type"), str):
            hint = f"write `[{kind.table}.root]`, or another name in the place of `root`"
            message = f"these are the settings of a {kind.label} without a name"
            self._report("wrong-value", (kind.table,), message, hint)
            entries = {name: table for name, table in entries.items() if isinstance(table, Mapping)}
        else:
            self._check_root(kind, entries)
        yield from self._instances(kind, entries, kind.table)

    def _instances(self, kind: Kind, entries: Mapping[str, object], table: str) -> Iterator[Declaration]:
        """Yield the instances in *table*, which is that of the kind, or a misspelling of it."""
        for name, entry in entries.items():
            path: Path = (table, str(name))
            self._names.setdefault(instance_id(kind, str(name)), path)
            if isinstance(entry, Mapping):
                yield Declaration(kind, path, entry)
                continue
            hint = f'write `[{dotted(path)}]` and under it `type = "..."`'
            if isinstance(entry, list) and entry and isinstance(entry[0], Mapping):
                hint = f"write `[{dotted(path)}]`, with one pair of brackets"
            self._report("wrong-value", path, f"expected a table, found {kind_of(entry)}", hint)

    def _check_root(self, kind: Kind, entries: Mapping[str, object]) -> None:
        if "root" in entries or self._document.may_lack((kind.table,)):
            return
        others = self._document.tables.items()
        if any(
            isinstance(other, Mapping) and "root" in other and self._meant_kind(table) == kind
            for table, other in others
        ):
            return  # It stands in a table whose name is misspelt, which is reported.
        message = f"there is no `{kind.table}.root`, the {kind.label} that is used unless another is named"
        if "default" in entries:
            hint = f"`default` is its old name: write `[{kind.table}.root]`"
            self._report("old-name", (kind.table, "default"), message, hint, at="key")
            return
        meant = nearest("root", map(str, entries))
        meant = next(map(str, entries)) if len(entries) == 1 else meant
        hint = f"rename `{escaped(meant)}` to `root`, or add it" if meant else f"add `[{kind.table}.root]`"
        self._report("no-root", (kind.table,), message, hint, at="key")
