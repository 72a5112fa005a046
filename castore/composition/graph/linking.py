"""From configs to the graph: the references in them, and the anonymous instances that URLs stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from castore.composition.config.expanding import DEEPEST
from castore.composition.config.refs import Ref
from castore.composition.config.structure import scrubbed
from castore.composition.graph.graph import Edge, Instance, instance_id
from castore.composition.types.addresses import config_from_url
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType
from castore.errors import PluginError
from castore.problems import Problem, dotted
from castore.secrets import Secret, fields_of, has_fields
from castore.urls import literally_hidden_in

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path
    from castore.composition.types.finding import TypeFinder


@attrs.frozen
class Configured:
    """An instance whose table was read: its config, or as far as it goes the values of its fields."""

    kind: Kind
    path: Path
    type: RegisteredType
    config: Any
    """`None` if there are problems; the references among the values are checked all the same."""
    values: Mapping[str, Any]
    written: Mapping[str, str]
    """The keys that fields were written as, where these differ."""


class Linker:
    """Makes instances of what was configured, and of the URLs in it.

    Arguments:
        registry: Knows the kinds, and the types that have URLs.
        finder: Says which types are allowed.
    """

    def __init__(self, registry: Registry, finder: TypeFinder) -> None:
        self.registry = registry
        self._finder = finder
        self.instances: dict[str, Instance] = {}
        """By id."""
        self.anonymous: dict[str, Path] = {}
        """Those that URLs stand for."""
        self.problems: list[Problem] = []
        self.secrets: list[Secret] = []

    def link_all(self, configured: Iterable[Configured]) -> None:
        """Make the instances."""
        for entry in configured:
            edges = [
                edge
                for field, value in entry.values.items()
                for edge in self._edges(
                    value, entry.kind, (*entry.path, entry.written.get(field, field)), (field,)
                )
            ]
            name = str(entry.path[-1])
            self.instances[dotted(entry.path)] = Instance(
                entry.kind, name, entry.type, entry.config, entry.path, tuple(edges)
            )

    def _edges(
        self, value: object, kind: Kind, path: Path, label: Path = (), depth: int = 0
    ) -> Iterator[Edge]:
        """Yield an edge for each reference in a config value, making the instances of URLs on the way."""
        if not isinstance(value, Ref):
            for key, item in _items(value):
                yield from self._edges(item, kind, (*path, key), (*label, key), depth)
            return
        try:
            kind = kind if value.kind is None else self.registry.kind(value.kind)
        except PluginError as error:
            hint = "the fault is in the plugin: tell its authors"
            self.problems.append(Problem("plugin", path, str(error), hint))
            return
        if value.name is not None:
            yield Edge(dotted(label), path, value, instance_id(kind, value.name))
        elif self.link_url(kind, value.text, path, depth):
            yield Edge(dotted(label), path, value, dotted(path))

    def link_url(self, kind: Kind, text: str, path: Path, depth: int = 0) -> bool:
        """Make the anonymous instance of a URL; report what is wrong and return False."""
        found = config_from_url(self.registry, kind, text)
        if depth > DEEPEST:
            message = "this URL stands for a service with a URL in it, and so on without end"
            found = [Problem("bad-url", (), message)]
        secrets = [text] if isinstance(text, Secret) else []
        self.secrets += secrets
        if isinstance(found, list):
            hidden = [*secrets, *literally_hidden_in(text)]
            self.problems += (scrubbed(problem.under(*path), hidden) for problem in found)
            return False
        entry, config = found
        self._finder.check_allowed(entry, path)
        key = dotted(path)
        self.anonymous[key] = path
        edges = tuple(self._edges(config, kind, path, (), depth + 1))
        self.instances[key] = Instance(kind, dotted(path[1:]), entry, config, path, edges, anonymous=True)
        return True


def _items(value: object) -> Iterator[tuple[str | int, object]]:
    """Yield the parts of a config value with their keys."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif has_fields(value):
        yield from fields_of(value).items()
