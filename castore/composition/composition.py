"""A composition: a declared graph of services, built on demand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from castore.composition.building import Builder
from castore.composition.graph.graph import Graph, Instance
from castore.composition.probing import PROBE_SECONDS, Probe, probe_all
from castore.composition.source import ConfigSource
from castore.composition.types.plugins import call_roots
from castore.composition.types.registry import Registry
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.errors import CompositionError, PluginError
from castore.metrics.model import Metrics
from castore.problems import Problem, did_you_mean, escaped, listing
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from types import TracebackType

    from castore.digest import B3Digest
    from castore.drawing import Picture

S = TypeVar("S")

_log: Final = logging.getLogger("castore.composition")


class Composition:
    """Named services, declared in TOML or in a mapping, built when they are first asked for.

    Everything that can be checked is checked when the composition is made; all problems come in one
    `CompositionError`. Each instance is built once and shared; `close` closes those that were built. A
    composition pickles as its config, without secrets, and is read anew where it lands. Its blob services are
    measured, unless *metrics* is false: see `metrics`.
    """

    def __init__(self, source: ConfigSource, registry: Registry | None = None, metrics: bool = True) -> None:
        self._source = source
        self._registry = registry
        self._measures = metrics
        known = registry or Registry.default()
        loaded = source.load(known)
        self.graph: Graph = loaded.graph
        self.warnings: tuple[Problem, ...] = loaded.warnings
        """What looks wrong, and works all the same; each is logged as well, by `castore.composition`."""
        for warning in loaded.warnings:
            _log.warning("%s", source.headline(warning))
        self.obstacles: tuple[Problem, ...] = loaded.obstacles
        """What keeps an instance from being built: more services in a row than a call can go through."""
        self.pool = Pool()
        """The pool of threads that all services of the composition share."""
        self._secrets = loaded.secrets
        self._builder = Builder(loaded.graph, source.base, self.pool, loaded.secrets, metrics=metrics)
        self._known = known

    @classmethod
    def from_toml(cls, path: str | Path, *, registry: Registry | None = None, metrics: bool = True) -> Self:
        """Read a composition from a file; relative paths in it start from the file's folder.

        Raises `CompositionError` with all problems of the file.
        """
        return cls(ConfigSource.of_file(Path(path)), registry, metrics)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        base: str | Path = ".",
        registry: Registry | None = None,
        metrics: bool = True,
    ) -> Self:
        """Take a composition as the tables that a file would have; relative paths in it start from *base*."""
        return cls(ConfigSource.of_mapping(mapping, Path(base)), registry, metrics)

    def check_buildable(self) -> None:
        """Raise `CompositionError` with the `obstacles`, if there are any; nothing is built."""
        if self.obstacles:
            raise self._source.error(self.obstacles)

    def describe_warnings(self) -> str:
        """Return the warnings as text, each with its place, as an error shows problems; empty if none."""
        return self._source.render(self.warnings)

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._source.base

    @property
    def name(self) -> str:
        """Where it comes from: the name of a file, or `<mapping>`."""
        return self._source.name

    def build(self, kind: Callable[..., S], name: str = "root") -> S:
        """Return the instance *name* of a kind, which is named by its contract, such as `BlobService`.

        Raises:
            CompositionError: No instance of this name is declared, or too many services stand in a row.
            BuildError: It, or one that it needs, could not be built.
            ClosedError: The composition is closed.
        """
        service: S = self._builder.build(self.instance(kind, name))
        return service

    def probe(
        self, instances: Iterable[Instance] | None = None, *, timeout: float = PROBE_SECONDS
    ) -> list[Probe]:
        """Build instances and ask each for a blob that is nowhere; return how that went, in their order.

        Nothing is written. All are asked at once, and none is waited for longer than *timeout* seconds.

        Arguments:
            instances: Of this composition, by default all, also those that are made by a URL.
            timeout: In seconds.
        """
        chosen = self.graph.instances.values() if instances is None else instances
        return probe_all(self._builder, list(chosen), timeout, self._secrets)

    def service(self, instance: Instance) -> Any:
        """Return the service of one of the instances in `graph`, named or not; raises as `build` does."""
        return self._builder.build(instance)

    def running(self, instance: Instance) -> Any:
        """Return the service of an instance if it is built already; else `None`."""
        return self._builder.running(instance.id)

    def instance(self, kind: Callable[..., Any], name: str = "root") -> Instance:
        """Return what is declared of an instance; raises `CompositionError` if it is not."""
        known = self._known.kind(kind)
        instance = self.graph.find(known, name)
        if instance is None:
            names = [entry.name for entry in self.graph.named(known)]
            hint = did_you_mean(name, names) or f"the names are {listing(names)}"
            raise CompositionError(f"{self.name}: no {known.label} is named `{escaped(name)}`; {hint}")
        return instance

    def blobs(self, name: str = "root") -> BlobService:
        """Return a blob service; as `build(BlobService, name)`."""
        return self.build(BlobService, name)

    def directories(self, name: str = "root") -> DirectoryService:
        """Return a directory service; as `build(DirectoryService, name)`.

        Where none is declared, `root` is one that keeps directories in the blob service `root`.
        """
        if name == "root" and not self.graph.named(self._known.kind(DirectoryService)):
            from castore.directories.in_blobs import BlobsDirectoryService  # noqa: PLC0415 - for trees alone

            return BlobsDirectoryService(self.blobs())
        return self.build(DirectoryService, name)

    def refs(self, name: str = "root") -> RefService:
        """Return a ref service; as `build(RefService, name)`.

        Where none is declared, `root` is one that keeps refs in the blob service `root`, if that can. Raises
        `CompositionError` if it cannot.
        """
        if name == "root" and not self.graph.named(self._known.kind(RefService)):
            return self.refs_of_blobs(name)
        return self.build(RefService, name)

    def refs_of_blobs(self, name: str) -> RefService:
        """Return a ref service that keeps refs where the blob service *name* keeps blobs.

        Raises `CompositionError` if there is no such place, or more than one.
        """
        refs = self.blobs(name).capability(RefService)
        if refs is None:
            tag = self.instance(BlobService, name).type.tag
            raise CompositionError(
                f"{self.name}: there is no place for refs: the blob service `{escaped(name)}`, a `{tag}`,"
                " keeps none; write a table for them, such as\n"
                '  [refservices.root]\n  type = "sqlite"\n  path = "./refs.sqlite"'
            )
        return refs

    def roots(self) -> Iterator[B3Digest]:
        """Yield the digests of the blobs that plugins refer to, by their hook `castore_roots`.

        Raises `PluginError` if such a hook fails, and if a plugin did not load: nobody knows then what it
        refers to.
        """
        for broken in self._known.broken:
            raise PluginError(
                f"{broken}; it may refer to blobs: mend it or uninstall it first",
                plugin=broken.plugin.name,
                distribution=broken.plugin.distribution,
            )
        for plugin in self._known.plugins:
            yield from call_roots(plugin, self)

    def released(self) -> tuple[BlobService, list[Any]]:
        """Build `root` for a caller who keeps it without the composition.

        Returns the service, which the caller closes, and what it needs, in the order to close it after that.
        """
        service = self.blobs()
        return service, self._builder.release(service)

    def metrics(self) -> Metrics:
        """Return what each instance was asked, and how it stands, as it is now.

        Counters begin with the composition and are never set back. Also after `close`; what services tell of
        themselves is then what they told before. Any thread may ask.
        """
        return self._builder.metrics()

    def picture(self, probes: Iterable[Probe] = ()) -> Picture:
        """Return the graph as something to draw, in one of `castore.drawing.FORMATS`; it has no secrets.

        With *probes*, which `probe` returns, it shows how the instances are.
        """
        from castore.composition.portrait import picture_of  # noqa: PLC0415 - drawing is for who asks for it

        return picture_of(self.graph, Path(self.name).name, probes)

    def close(self) -> None:
        """Close the services that were built, dependants first. Closing again does nothing."""
        self._builder.close()

    def __del__(self) -> None:
        # Its services may have work that waits; a collector of garbage must not do that.
        builder = getattr(self, "_builder", None)
        if builder is not None and builder.has_to_close:
            warnings.warn(f"a composition was not closed: {self!r}", ResourceWarning, 2, source=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source, self._registry, self._measures)

    def __repr__(self) -> str:
        return f"<Composition {self.name}: {', '.join(self.graph.instances)}>"
