"""From a parsed document to the graph of a composition, with all problems found on the way.

A row of passes, each from values to values and problems:

==============  ====================================================  ===============================
declare         the tables of instances                               `graph.declarations`
find types      the type of each, by its tag                          `types.finding`
expand          what comes from the environment or a file             `config.expanding`
structure       the config of each                                    `config.structure`
link            references, and the instances that URLs stand for     `graph.linking`
check           where references lead                                 `graph.references`
==============  ====================================================  ===============================

What goes before (reading TOML, `toml.document`) and after (warnings, `graph.lints`) is put in the row by
`castore.composition.source`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import attrs

from castore.composition.config.expanding import Expanding
from castore.composition.config.settings import read_settings
from castore.composition.config.structure import ConfigStructurer, scrubbed
from castore.composition.graph.declarations import Declarations, declare
from castore.composition.graph.graph import Graph
from castore.composition.graph.linking import Configured, Linker
from castore.composition.graph.references import check_cycles, check_references
from castore.composition.toml.document import Document
from castore.composition.types.finding import Typed, TypeFinder
from castore.composition.types.registry import Registry
from castore.contract.blobs import BlobService
from castore.problems import Problem
from castore.secrets import Secret, fields_of
from castore.urls import literally_hidden_in

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path


@attrs.frozen
class Loaded:
    """A graph, as far as there is one, what is wrong with it, and the secrets that it holds.

    If nothing is wrong, `ignored` has the warnings that are not wanted, `warnings` the others, and
    `obstacles` what keeps an instance from being built, and leaves the graph to be looked at.
    """

    graph: Graph
    problems: tuple[Problem, ...]
    secrets: tuple[Secret, ...] = attrs.field(repr=False)
    ignored: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    obstacles: tuple[Problem, ...] = ()


def load(document: Document, registry: Registry, base: FilePath) -> Loaded:
    """Check everything that can be checked before building. *base*: what relative paths start from."""
    structurer = ConfigStructurer(registry.chunkers, registry.contested_chunkers)
    settings = read_settings(document.tables, structurer)
    declared = declare(document, registry.kinds, settings)
    finder = TypeFinder(registry, settings, document)
    typed = finder.find_all(declared.entries)
    expanded = [_expand(entry, base) for entry in typed]
    structured = _Structured.of(expanded, structurer, document)
    linker = Linker(registry, finder)
    linker.link_all(structured.configured)
    graph, astray = _checked(linker, declared, document)
    problems = (
        *document.problems,
        *settings.problems,
        *declared.problems,
        *finder.problems,
        *structured.problems,
        *linker.problems,
        *astray,
    )
    secrets = (*structured.secrets, *linker.secrets)
    return Loaded(graph, problems, secrets, tuple(settings.ignored))


def load_url(url: str, registry: Registry) -> Loaded:
    """Check a URL of a blob service, which becomes the one instance `root`."""
    document = Document({})
    finder = TypeFinder(registry, read_settings({}, ConfigStructurer()), document)
    linker = Linker(registry, finder)
    kind = registry.kind(BlobService)
    linker.link_url(kind, url, (kind.table, "root"))
    graph, astray = _checked(linker, Declarations(), document)
    return Loaded(graph, (*finder.problems, *linker.problems, *astray), tuple(linker.secrets))


def _checked(linker: Linker, declared: Declarations, document: Document) -> tuple[Graph, list[Problem]]:
    """Return the graph of what was linked, and what is wrong with where its references lead."""
    instances = linker.instances
    names = {**declared.names, **linker.anonymous}
    astray = list(check_references(instances, names, linker.registry, document))
    kept = {
        key: attrs.evolve(instance, edges=tuple(edge for edge in instance.edges if edge.target in instances))
        for key, instance in instances.items()
    }
    graph = Graph(kept)
    return graph, [*astray, *check_cycles(graph)]


@attrs.frozen
class _Expanded:
    """An instance with what came by reference in its values."""

    typed: Typed
    values: Mapping[str, Any]
    expanding: Expanding

    @property
    def secrets(self) -> list[Secret]:
        return self.expanding.secrets


def _expand(typed: Typed, base: FilePath) -> _Expanded:
    expanding = Expanding(base)
    values = {key: expanding.expand(value, (key,)) for key, value in typed.values.items()}
    return _Expanded(typed, values, expanding)


@attrs.frozen
class _Structured:
    """The instances that have a type, with their configs."""

    configured: tuple[Configured, ...]
    problems: tuple[Problem, ...]
    secrets: tuple[Secret, ...]
    """Without those that stand for numbers and the like: no message could have a `3` in it."""

    @classmethod
    def of(
        cls, expanded: Iterable[_Expanded], structurer: ConfigStructurer, document: Document
    ) -> _Structured:
        configured: list[Configured] = []
        problems: list[Problem] = []
        kept: list[Secret] = []
        for entry in expanded:
            path, type_ = entry.typed.path, entry.typed.type
            problems += (problem.under(*path) for problem in entry.expanding.problems)
            if type_ is None:
                kept += entry.secrets
                continue
            reading = structurer.read(entry.values, type_.config)
            secrets = [secret for secret in entry.secrets if not structurer.is_plain(secret)]
            kept += secrets
            problems += (
                scrubbed(problem.under(*path), [*secrets, *literally_hidden_in(entry.values)])
                for problem in reading.problems
                if not entry.expanding.has_reported(problem.path) and not _is_lost(problem, path, document)
            )
            config = None if entry.expanding.problems else reading.config
            values = reading.values if config is None else fields_of(config)
            configured.append(Configured(entry.typed.kind, path, type_, config, values, reading.written))
        return cls(tuple(configured), tuple(problems), tuple(kept))


def _is_lost(problem: Problem, path: Path, document: Document) -> bool:
    """Tell whether a key that is missing may stand in a line that could not be read."""
    return problem.code == "missing-key" and document.may_lack((*path, *problem.path))
