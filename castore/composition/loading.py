"""From a parsed document to the graph of a composition, with all problems found on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, Final

import attrs

from castore.blobservice import BlobService
from castore.composition.document import Document
from castore.composition.graph import Edge, Graph, Instance, instance_id
from castore.composition.problems import Problem, did_you_mean, dotted, listing
from castore.composition.refs import Ref
from castore.composition.registry import Kind, RegisteredType, Registry
from castore.composition.spans import Path
from castore.composition.structure import ConfigStructurer
from castore.composition.urls import ServiceUrl, masked
from castore.composition.values import Secret, expand, fields_of, kind_of, read_secret_file, secrets_in
from castore.errors import CastoreError

TABLES_OF_OTHERS: Final = frozenset({"pathinfoservices"})
"""Tables that the reference's store tools read from the same file; as its castore tools, we leave them be."""


@attrs.frozen
class Loaded:
    """A graph, as far as there is one, what is wrong with it, and the secrets that it holds."""

    graph: Graph
    problems: tuple[Problem, ...]
    secrets: tuple[Secret, ...]


def load(document: Document, registry: Registry, base: FilePath) -> Loaded:
    """Check everything that can be checked before building. *base*: what relative paths start from."""
    loader = _Loader(document, registry, base)
    loader.load_tables()
    loader.check_references()
    loader.check_cycles()
    graph = Graph(loader.instances)
    return Loaded(graph, (*document.problems, *loader.problems), tuple(loader.secrets))


def load_url(url: str, registry: Registry, base: FilePath) -> Loaded:
    """Check a URL of a blob service, which becomes the one instance `root`."""
    loader = _Loader(Document({}), registry, base)
    kind = registry.kind(BlobService)
    loader.load_url(kind, url, (kind.table, "root"))
    loader.check_references()
    return Loaded(Graph(loader.instances), tuple(loader.problems), tuple(loader.secrets))


class _Loader:
    def __init__(self, document: Document, registry: Registry, base: FilePath) -> None:
        self.document = document
        self.registry = registry
        self.base = base
        self.structurer = ConfigStructurer(registry)
        self.instances: dict[str, Instance] = {}
        """With those that have problems: their config is `None`, but their references are checked."""
        self.declared: set[str] = set()
        """The ids of all that is declared, rightly or wrongly: a reference to it does not dangle."""
        self.problems: list[Problem] = []
        self.secrets: list[Secret] = []

    def report(
        self, code: str, path: Path, message: str, hint: str | None = None, *, at: str = "value"
    ) -> None:
        self.problems.append(Problem(code, path, message, hint, at))

    # -- tables and instances --

    def load_tables(self) -> None:
        kinds = self.registry.kinds
        for table, entries in self.document.tables.items():
            if table in kinds:
                self._load_kind(kinds[table], entries)
            elif table not in TABLES_OF_OTHERS:
                hint = did_you_mean(table, kinds) or f"the tables are {listing(kinds)}"
                self.report(
                    "unknown-table", (table,), f"there is no kind of service `{table}`", hint, at="key"
                )
        if self.document.whole and not any(table in kinds for table in self.document.tables):
            hint = 'declare one: `[blobservices.root]`, `type = "memory"`'
            self.report("no-root", (), "no services are declared", hint)

    def _load_kind(self, kind: Kind, entries: object) -> None:
        if not isinstance(entries, Mapping):
            hint = f"write `[{kind.table}.NAME]` for each instance"
            self.report("wrong-value", (kind.table,), f"expected a table, found {kind_of(entries)}", hint)
            return
        self.declared.update(instance_id(kind, name) for name in entries)
        for name, table in entries.items():
            self._load_instance(kind, name, table)
        if "root" not in entries and self.document.whole:
            self._report_no_root(kind, entries)

    def _report_no_root(self, kind: Kind, entries: Mapping[str, object]) -> None:
        message = f"there is no `{kind.table}.root`, the {kind.label} that is used unless another is named"
        if "default" in entries:
            hint = "`default` is the old name of the entry point: rename it to `root`"
            self.report("old-name", (kind.table, "default"), message, hint, at="key")
        else:
            named = did_you_mean("root", entries)
            self.report("no-root", (kind.table,), message, named or f"add `[{kind.table}.root]`", at="key")

    def _load_instance(self, kind: Kind, name: str, table: object) -> None:
        path: Path = (kind.table, name)
        if not isinstance(table, Mapping):
            hint = f'write `[{dotted(path)}]` and under it `type = "..."`'
            self.report("wrong-value", path, f"expected a table, found {kind_of(table)}", hint)
            return
        entry = self._find_type(kind, table, path)
        before = len(self.problems)
        values = {key: self._expanded(value, (*path, key)) for key, value in table.items() if key != "type"}
        unresolved = {problem.path[2] for problem in self.problems[before:]}
        if entry is not None:
            self._structure(kind, name, entry, values, path, unresolved)

    def _find_type(self, kind: Kind, table: Mapping[str, object], path: Path) -> RegisteredType | None:
        tag = table.get("type")
        where = (*path, "type")
        if tag is None:
            if self.document.whole:
                hint = f"the installed types are {listing(self.registry.types(kind))}"
                self.report("missing-key", path, "the key `type` is missing", hint, at="key")
            return None
        if not isinstance(tag, str):
            self.report("wrong-value", where, f"expected the name of a type, found {kind_of(tag)}")
            return None
        entry = self.registry.find(kind, tag)
        if entry is not None:
            return entry
        entry = self.registry.renamed(kind, tag)
        if entry is not None:
            hint = f"`{tag}` is the old name: write `{entry.tag}`"
            self.report("old-name", where, f"unknown type `{tag}` of {kind.label}", hint)
            return entry
        hint = self.registry.why_unknown(kind, tag)
        self.report("unknown-type", where, f"unknown type `{tag}` of {kind.label}", hint)
        return None

    def _structure(
        self,
        kind: Kind,
        name: str,
        entry: RegisteredType,
        values: Mapping[str, object],
        path: Path,
        unresolved: set[str | int],
    ) -> None:
        """Make the config of an instance; *unresolved* are its keys whose problem is reported already."""
        config, problems = self.structurer.structure(values, entry.config, path)
        if problems or unresolved:
            config = None
            edges = tuple(self._edges_of_broken(values, entry, kind, path, problems))
        else:
            edges = tuple(self._edges(config, kind, path))
            self.secrets.extend(secrets_in(config))
        self.instances[dotted(path)] = Instance(kind, name, entry, config, path, edges)
        for problem in problems:
            reported = len(problem.path) > 2 and problem.path[2] in unresolved
            # In a file with syntax errors the key may stand in a line that was left out.
            if not reported and (problem.code != "missing-key" or self.document.whole):
                self.problems.append(problem)

    def _edges_of_broken(
        self,
        values: Mapping[str, object],
        entry: RegisteredType,
        kind: Kind,
        path: Path,
        problems: list[Problem],
    ) -> Iterator[Edge]:
        """Yield the edges of an instance that has problems, from those of its fields that have none."""
        wrong = {problem.path[len(path)] for problem in problems if len(problem.path) > len(path)}
        for field in attrs.fields(entry.config):
            if field.name in values and field.name not in wrong:
                value, faults = self.structurer.structure_field(values[field.name], field)
                if not faults:
                    yield from self._edges(value, kind, (*path, field.name), (field.name,))

    # -- secrets --

    def _expanded(self, value: object, path: Path) -> object:
        """Return *value* with all that comes by reference in its place; problems are reported."""
        try:
            if isinstance(value, str):
                return expand(value)
            if isinstance(value, Mapping) and set(value) == {"file"} and isinstance(value["file"], str):
                return read_secret_file(value["file"], self.base)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            self.report("unresolved", path, message, hint or None)
            return value
        if isinstance(value, Mapping):
            return {key: self._expanded(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expanded(item, (*path, number)) for number, item in enumerate(value)]
        return value

    # -- references --

    def _edges(self, value: object, kind: Kind, path: Path, label: Path = ()) -> Iterator[Edge]:
        """Yield an edge for each reference in a config value, loading the instances that URLs make."""
        if isinstance(value, Ref):
            target_kind = kind if value.kind is None else self.registry.kind(value.kind)
            if value.name is not None:
                yield Edge(dotted(label), path, value, instance_id(target_kind, value.name))
            elif self.load_url(target_kind, value.text, path):
                yield Edge(dotted(label), path, value, dotted(path))
            return
        for key, item in _items(value):
            yield from self._edges(item, kind, (*path, key), (*label, key))

    def load_url(self, kind: Kind, text: str, path: Path) -> bool:
        """Load the anonymous instance that a URL makes; report what is wrong and return False."""
        try:
            entry, config = config_from_url(self.registry, kind, text)
        except UrlProblem as problem:
            self.report(problem.code, path, str(problem), problem.hint)
            return False
        name = dotted(path[1:])
        edges = tuple(self._edges(config, kind, path))
        self.instances[dotted(path)] = Instance(kind, name, entry, config, path, edges, anonymous=True)
        self.declared.add(dotted(path))
        if isinstance(text, Secret):
            self.secrets.append(text)
        return True

    def check_references(self) -> None:
        """Report references to what is not declared or is of another kind; forget what leads nowhere."""
        for key, instance in self.instances.items():
            for edge in instance.edges:
                if edge.ref.name is not None and edge.target not in self.declared:
                    self._report_dangling(edge, edge.ref.name)
            kept = tuple(edge for edge in instance.edges if edge.target in self.instances)
            self.instances[key] = attrs.evolve(instance, edges=kept)

    def _report_dangling(self, edge: Edge, name: str) -> None:
        kind = self._kind_of_target(edge)
        for other in self.registry.kinds.values():
            if other != kind and instance_id(other, name) in self.declared:
                message = f"`&{name}` is a {other.label}, but a {kind.label} belongs here"
                self.report("wrong-kind", edge.path, message, self._suggest(kind, name))
                return
        if not self.document.whole:
            return  # It may have stood where the syntax is broken.
        message = f"no {kind.label} is named `{name}`"
        self.report("dangling-reference", edge.path, message, self._suggest(kind, name))

    def _kind_of_target(self, edge: Edge) -> Kind:
        if edge.ref.kind is not None:
            return self.registry.kind(edge.ref.kind)
        return self.registry.kinds[str(edge.path[0])]

    def _suggest(self, kind: Kind, name: str) -> str:
        table = self.document.tables.get(kind.table)
        names = [entry for entry in table if isinstance(entry, str)] if isinstance(table, Mapping) else []
        return (
            did_you_mean(name, names, prefix="&")
            or f"the names are {listing('&' + entry for entry in names)}"
        )

    def check_cycles(self) -> None:
        """Report each cycle, at the reference that its first instance holds."""
        for cycle in Graph(self.instances).cycles():
            names = [instance.name for instance in cycle]
            chain = " → ".join(f"`{name}`" for name in (*names, names[0]))
            second = cycle[1 % len(cycle)]
            edge = next(edge for edge in cycle[0].edges if edge.target == second.id)
            message = "it refers to itself" if len(cycle) == 1 else f"these need each other: {chain}"
            self.problems.append(
                Problem(
                    "cycle",
                    edge.path,
                    message,
                    "break the circle at one of its references",
                    chain=tuple(names),
                )
            )


class UrlProblem(ValueError):  # noqa: N818 - it becomes a problem of the config
    """What is wrong with the URL of a service."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def config_from_url(registry: Registry, kind: Kind, text: str) -> tuple[RegisteredType, Any]:
    """Return the type and the config that a URL stands for; raises `UrlProblem`."""
    try:
        url = ServiceUrl.parse(text)
    except ValueError as error:
        raise UrlProblem("bad-url", str(error)) from None
    entry = registry.find(kind, url.tag)
    if entry is None:
        hint = registry.why_unknown(kind, url.tag)
        raise UrlProblem(
            "unknown-scheme", f"no type of {kind.label} has URLs that begin with `{url.tag}:`", hint
        )
    make: Callable[[str], Any] | None = getattr(entry.config, "from_url", None)
    if make is None:
        hint = f'declare an instance: `[{kind.table}.NAME]`, `type = "{entry.tag}"`'
        raise UrlProblem("bad-url", f"the type `{entry.tag}` has no URL form", hint)
    try:
        return entry, make(text)
    except (ValueError, CastoreError) as error:
        message, _, hint = str(error).partition("; ")
        raise UrlProblem("bad-url", f"{masked(text)!r}: {message}", hint or None) from None


def _items(value: object) -> Iterator[tuple[str | int, object]]:
    """Yield the parts of a config value with their keys."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif attrs.has(type(value)):
        yield from fields_of(value).items()
