"""From a parsed document to the graph of a composition, with all problems found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Final

import attrs

from castore.composition.config.expanding import DEEPEST, Expanding
from castore.composition.config.refs import Ref
from castore.composition.config.settings import read_settings
from castore.composition.config.structure import ConfigStructurer
from castore.composition.config.values import kind_of
from castore.composition.graph.graph import Edge, Graph, Instance, instance_id
from castore.composition.graph.references import check_cycles, check_references
from castore.composition.toml.document import Document
from castore.composition.types.addresses import config_from_url
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType
from castore.contract.blobs import BlobService
from castore.errors import PluginError
from castore.problems import Problem, did_you_mean, dotted, escaped, listing, nearest
from castore.secrets import Secret, fields_of, scrub

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

TABLES_OF_OTHERS: Final = frozenset({"pathinfoservices"})
"""Tables that the reference's store tools read from the same file; as its castore tools, we leave them be."""


@attrs.frozen
class Loaded:
    """A graph, as far as there is one, what is wrong with it, and the secrets that it holds.

    `ignored` has the warnings that are not wanted, `warnings` the others, if nothing is wrong.
    """

    graph: Graph
    problems: tuple[Problem, ...]
    secrets: tuple[Secret, ...] = attrs.field(repr=False)
    ignored: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()


def load(document: Document, registry: Registry, base: FilePath) -> Loaded:
    """Check everything that can be checked before building. *base*: what relative paths start from."""
    loader = _Loader(document, registry, base)
    loader.load_tables()
    return loader.loaded()


def load_url(url: str, registry: Registry, base: FilePath) -> Loaded:
    """Check a URL of a blob service, which becomes the one instance `root`."""
    loader = _Loader(Document({}), registry, base)
    kind = registry.kind(BlobService)
    loader.load_url(kind, url, (kind.table, "root"))
    return loader.loaded()


class _Loader:
    def __init__(self, document: Document, registry: Registry, base: FilePath) -> None:
        self.document = document
        self.registry = registry
        self.base = base
        self.structurer = ConfigStructurer(registry)
        self.settings = read_settings(document.tables, self.structurer)
        self.instances: dict[str, Instance] = {}
        """With those that have problems: their config is `None`, but their references are checked."""
        self.declared: dict[str, Path] = {}
        """All that is declared, rightly or wrongly, by id: a reference to it does not dangle."""
        self.problems: list[Problem] = [*document.problems, *self.settings.problems]
        self.secrets: list[Secret] = []

    def report(
        self,
        code: str,
        path: Path,
        message: str,
        hint: str | None = None,
        *,
        at: str = "value",
        part: str = "",
    ) -> None:
        self.problems.append(Problem(code, path, message, hint, at, part=part))

    def loaded(self) -> Loaded:
        """Check what needs the whole, and return all that was found."""
        self.problems += check_references(self.instances, self.declared, self.registry, self.document)
        for key, instance in self.instances.items():
            kept = tuple(edge for edge in instance.edges if edge.target in self.instances)
            if len(kept) < len(instance.edges):
                self.instances[key] = attrs.evolve(instance, edges=kept)
        graph = Graph(self.instances)
        self.problems += check_cycles(graph)
        return Loaded(graph, tuple(self.problems), tuple(self.secrets), tuple(self.settings.ignored))

    # -- tables and instances --

    def load_tables(self) -> None:
        kinds = self.registry.kinds
        for table, entries in self.document.tables.items():
            if table in kinds:
                self._load_kind(kinds[table], entries)
            elif table not in TABLES_OF_OTHERS and table not in self.settings.keys:
                self._report_table(table, entries)
                self._load_misspelt(table, entries)
        if not self.document.problems and not any(table in kinds for table in self.document.tables):
            hint = '[blobservices.root]\ntype = "memory"'
            self.report(
                "no-root", (), "no services are declared", f"the least that works is\n{_indented(hint)}"
            )

    def _report_table(self, table: str, entries: object) -> None:
        kinds = self.registry.kinds
        if not isinstance(entries, Mapping | list):
            message, hint = "this key belongs to no table", "move it below the header of one"
            self.report("unknown-table", (str(table),), message, hint, at="key")
            return
        if isinstance(entries, Mapping) and "type" in entries:
            # An instance that stands outside of the table of its kind.
            hint = f"write `[{dotted(('blobservices', table))}]`"
        else:
            hint = did_you_mean(str(table), kinds) or f"the kinds are {listing(kinds)}"
        message = f"there is no kind of service `{escaped(str(table))}`"
        self.report("unknown-table", (str(table),), message, hint, at="key")

    def _load_misspelt(self, table: str, entries: object) -> None:
        """Check the instances in a table whose name is nearly that of a kind, as if it were that."""
        kind = self._meant_kind(table)
        if kind is not None and isinstance(entries, Mapping):
            instances = {str(name): entry for name, entry in entries.items() if isinstance(entry, Mapping)}
            self._load_instances(kind, instances, table)

    def _meant_kind(self, table: str) -> Kind | None:
        kinds = self.registry.kinds
        meant = None if table in TABLES_OF_OTHERS else nearest(str(table), kinds)
        return kinds[meant] if meant else None

    def _load_kind(self, kind: Kind, entries: object) -> None:
        if not isinstance(entries, Mapping):
            hint = f"write `[{kind.table}.root]`, and so for each {kind.label}"
            self.report("wrong-value", (kind.table,), f"expected a table, found {kind_of(entries)}", hint)
            return
        if isinstance(entries.get("type"), str):
            hint = f"write `[{kind.table}.root]`, or another name in the place of `root`"
            message = f"these are the settings of a {kind.label} without a name"
            self.report("wrong-value", (kind.table,), message, hint)
            entries = {name: table for name, table in entries.items() if isinstance(table, Mapping)}
        else:
            self._check_root(kind, entries)
        self._load_instances(kind, entries, kind.table)

    def _load_instances(self, kind: Kind, entries: Mapping[str, object], table: str) -> None:
        """Load the instances in *table*, which is that of the kind, or a misspelling of it."""
        for name in entries:
            self.declared.setdefault(instance_id(kind, str(name)), (table, str(name)))
        for name, entry in entries.items():
            self._load_instance(kind, entry, (table, str(name)))

    def _check_root(self, kind: Kind, entries: Mapping[str, object]) -> None:
        if "root" in entries or self.document.may_lack((kind.table,)):
            return
        others = self.document.tables.items()
        if any(
            isinstance(other, Mapping) and "root" in other and self._meant_kind(table) == kind
            for table, other in others
        ):
            return  # It stands in a table whose name is misspelt, which is reported.
        message = f"there is no `{kind.table}.root`, the {kind.label} that is used unless another is named"
        if "default" in entries:
            hint = f"`default` is its old name: write `[{kind.table}.root]`"
            self.report("old-name", (kind.table, "default"), message, hint, at="key")
            return
        meant = nearest("root", map(str, entries))
        meant = next(map(str, entries)) if len(entries) == 1 else meant
        hint = f"rename `{escaped(meant)}` to `root`, or add it" if meant else f"add `[{kind.table}.root]`"
        self.report("no-root", (kind.table,), message, hint, at="key")

    def _load_instance(self, kind: Kind, table: object, path: Path) -> None:
        if not isinstance(table, Mapping):
            hint = f'write `[{dotted(path)}]` and under it `type = "..."`'
            if isinstance(table, list) and table and isinstance(table[0], Mapping):
                hint = f"write `[{dotted(path)}]`, with one pair of brackets"
            self.report("wrong-value", path, f"expected a table, found {kind_of(table)}", hint)
            return
        type_key = self._key_of_type(kind, table, path)
        entry = self._find_type(kind, table.get(type_key), (*path, type_key))
        if entry is not None:
            self._check_allowed(entry, (*path, type_key))
        expanding = Expanding(self.base)
        values = {key: expanding.expand(value, (key,)) for key, value in table.items() if key != type_key}
        self.secrets += expanding.secrets
        self.problems += (problem.under(*path) for problem in expanding.problems)
        if entry is not None:
            self._read(kind, entry, values, expanding, path)

    def _key_of_type(self, kind: Kind, table: Mapping[str, object], path: Path) -> str:
        """Return `type`, or the key that was meant for it and says which type it is; report that one."""
        if "type" in table:
            return "type"
        words = ((str(key), tag) for key, tag in table.items() if isinstance(tag, str))
        meant = nearest("type", [key for key, tag in words if self.registry.find(kind, tag) is not None])
        if meant is None:
            return "type"
        message = f"unknown key `{escaped(meant)}`"
        self.report("unknown-key", (*path, meant), message, "did you mean `type`?", at="key")
        return meant

    def _find_type(self, kind: Kind, tag: object, where: Path) -> RegisteredType | None:
        if tag is None:
            if not self.document.may_lack(where[:-1]):
                hint = f'write `type = "..."`\n{self.registry.installed(kind)}'
                self.report("missing-key", where[:-1], "the key `type` is missing", hint, at="key")
            return None
        if not isinstance(tag, str):
            hint = self.registry.installed(kind)
            self.report("wrong-value", where, f"expected the name of a type, found {kind_of(tag)}", hint)
            return None
        entry = self.registry.find(kind, tag)
        if entry is not None:
            return entry
        entry = self.registry.renamed(kind, tag)
        if entry is not None:
            self.report(
                "old-name", where, f"the type `{tag}` is now called `{entry.tag}`", f"write `{entry.tag}`"
            )
            return entry
        message = f"unknown type of {kind.label} `{escaped(tag)}`"
        self.report("unknown-type", where, message, self.registry.why_unknown(kind, tag))
        return None

    def _check_allowed(self, entry: RegisteredType, path: Path) -> None:
        setting = entry.only_if
        # In lines above the tables that could not be read it may have been allowed.
        if setting is None or not self.settings.refuses(setting) or self.document.may_lack(()):
            return
        message = f"the type `{entry.tag}` is refused unless the composition says `{setting} = true`"
        self.report("not-allowed", path, message, "if you mean it, write that above the first table")

    def _read(
        self,
        kind: Kind,
        entry: RegisteredType,
        values: Mapping[str, object],
        expanding: Expanding,
        path: Path,
    ) -> None:
        """Make the config of an instance, and find its references, also if it has problems."""
        reading = self.structurer.read(values, entry.config)
        for problem in reading.problems:
            # In a table with a syntax error the key may stand in a line that could not be read.
            lost = problem.code == "missing-key" and self.document.may_lack((*path, *problem.path))
            if not lost and not expanding.has_reported(problem.path):
                self.problems.append(_scrubbed(problem.under(*path), expanding.secrets))
        config = None if expanding.problems else reading.config
        fields = reading.values if config is None else fields_of(config)
        edges = [
            edge
            for field, value in fields.items()
            for edge in self._edges(value, kind, (*path, reading.written.get(field, field)), (field,))
        ]
        self.instances[dotted(path)] = Instance(kind, str(path[-1]), entry, config, path, tuple(edges))

    # -- references and the instances that URLs make --

    def _edges(
        self, value: object, kind: Kind, path: Path, label: Path = (), depth: int = 0
    ) -> Iterator[Edge]:
        """Yield an edge for each reference in a config value, loading the instances that URLs make."""
        if not isinstance(value, Ref):
            for key, item in _items(value):
                yield from self._edges(item, kind, (*path, key), (*label, key), depth)
            return
        try:
            kind = kind if value.kind is None else self.registry.kind(value.kind)
        except PluginError as error:
            self.report("plugin", path, str(error), "the fault is in the plugin: tell its authors")
            return
        if value.name is not None:
            yield Edge(dotted(label), path, value, instance_id(kind, value.name))
        elif self.load_url(kind, value.text, path, depth):
            yield Edge(dotted(label), path, value, dotted(path))

    def load_url(self, kind: Kind, text: str, path: Path, depth: int = 0) -> bool:
        """Load the anonymous instance that a URL makes; report what is wrong and return False."""
        found = config_from_url(self.registry, kind, text)
        if depth > DEEPEST:
            found = Problem(
                "bad-url", (), "this URL stands for a service with a URL in it, and so on without end"
            )
        secrets = [text] if isinstance(text, Secret) else []
        self.secrets += secrets
        if isinstance(found, Problem):
            self.problems.append(_scrubbed(found.under(*path), secrets))
            return False
        entry, config = found
        self._check_allowed(entry, path)
        key = dotted(path)
        self.declared[key] = path
        edges = tuple(self._edges(config, kind, path, (), depth + 1))
        self.instances[key] = Instance(kind, dotted(path[1:]), entry, config, path, edges, anonymous=True)
        return True


def _scrubbed(problem: Problem, secrets: list[Secret]) -> Problem:
    if not secrets:
        return problem
    hint = None if problem.hint is None else scrub(problem.hint, secrets)
    return attrs.evolve(problem, message=scrub(problem.message, secrets), hint=hint, part="")


def _items(value: object) -> Iterator[tuple[str | int, object]]:
    """Yield the parts of a config value with their keys."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif attrs.has(type(value)):
        yield from fields_of(value).items()


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))
