"""A composition: a declared graph of services, built on demand."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from castore.composition.building import Builder, raise_all
from castore.composition.graph.graph import Graph, Instance
from castore.composition.loading import Loaded
from castore.composition.probing import PROBE_SECONDS, Probe, probe_all
from castore.composition.reloading import Reloaded, ReloadPlan, plan_reload
from castore.composition.source import ConfigSource
from castore.composition.types.plugins import call_roots
from castore.composition.types.registry import Registry
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.errors import ClosedError, CompositionError, PluginError
from castore.metrics.model import Metrics
from castore.problems import Problem, did_you_mean, escaped, listing
from castore.threads import forks
from castore.threads.pool import Pool

if TYPE_CHECKING:
    from types import TracebackType

    from castore.digest import B3Digest
    from castore.drawing import Picture

S = TypeVar("S")

_log: Final = logging.getLogger("castore.composition")


@attrs.frozen
class _State:
    """What was read, and what builds it."""

    source: ConfigSource
    loaded: Loaded
    builder: Builder


def _as_source(source: ConfigSource | str | Path) -> ConfigSource:
    return source if isinstance(source, ConfigSource) else ConfigSource.of_file(Path(source))


class Composition:
    """Named services, declared in TOML or in a mapping, built when they are first asked for.

    Everything that can be checked is checked when the composition is made; all problems come in one
    `CompositionError`. Each instance is built once and shared; `close` closes those that were built. A
    composition pickles as its config, without secrets, and is read anew where it lands. Its blob services are
    measured, unless *metrics* is false: see `metrics`.
    """

    def __init__(self, source: ConfigSource, registry: Registry | None = None, metrics: bool = True) -> None:
        self._registry = registry
        self._measures = metrics
        self._known = registry or Registry.default()
        self.pool = Pool()
        """The pool of threads that all services of the composition share."""
        self._reloading = forks.new_lock()
        self._retired: list[Builder] = []
        self._ended: set[Builder] = set()
        """Those of them that nobody uses any more."""
        self._closed = False
        self._state = self._read(source)

    def _read(self, source: ConfigSource, told: Collection[Problem] = ()) -> _State:
        loaded = source.load(self._known)
        for warning in loaded.warnings:
            if warning in told:
                continue
            _log.warning("%s", source.headline(warning))
        builder = Builder(loaded.graph, source.base, self.pool, loaded.secrets, metrics=self._measures)
        return _State(source, loaded, builder)

    @property
    def graph(self) -> Graph:
        """What is declared: the instances, and how they refer to each other."""
        return self._state.loaded.graph

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What looks wrong, and works all the same; each is logged as well, by `castore.composition`."""
        return self._state.loaded.warnings

    @property
    def obstacles(self) -> tuple[Problem, ...]:
        """What keeps an instance from being built: more services in a row than a call can go through."""
        return self._state.loaded.obstacles

    @property
    def _source(self) -> ConfigSource:
        return self._state.source

    @property
    def _builder(self) -> Builder:
        return self._state.builder

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
        while True:
            state = self._state  # All of one reading: another thread may be about to put a new one here.
            try:
                service: S = state.builder.build(self._instance(state, kind, name))
            except ClosedError:
                if state is self._state:
                    raise
            else:
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
        return probe_all(self._builder, list(chosen), timeout, self._state.loaded.secrets)

    def service(self, instance: Instance) -> Any:
        """Return the service of one of the instances in `graph`, named or not; raises as `build` does."""
        state = self._state
        return state.builder.build(state.loaded.graph.instances.get(instance.id, instance))

    def running(self, instance: Instance) -> Any:
        """Return the service of an instance if it is built already; else `None`."""
        return self._builder.running(instance.id)

    def instance(self, kind: Callable[..., Any], name: str = "root") -> Instance:
        """Return what is declared of an instance; raises `CompositionError` if it is not."""
        return self._instance(self._state, kind, name)

    def _instance(self, state: _State, kind: Callable[..., Any], name: str) -> Instance:
        known = self._known.kind(kind)
        instance = state.loaded.graph.find(known, name)
        if instance is None:
            names = [entry.name for entry in state.loaded.graph.named(known)]
            hint = did_you_mean(name, names) or f"the names are {listing(names)}"
            raise CompositionError(
                f"{state.source.name}: no {known.label} is named `{escaped(name)}`; {hint}"
            )
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

    def plan_reload(self, new: Composition) -> ReloadPlan:
        """Return what `reload` would do if it read *new*; nothing is built or closed."""
        return plan_reload(self.graph, new.graph, same_folder=self.base == new.base)

    def reload(self, source: ConfigSource | str | Path | None = None) -> Reloaded:
        """Read the composition anew, and put what is new in the place of what has changed, in one step.

        What did not change, and refers to nothing that did, is kept as it is; see `ReloadPlan`. What was
        built and has changed is built before the step, beside the old one. So those who ask afterwards get
        the new services. Those that were handed out before go on until `Reloaded.close`.

        Arguments:
            source: A file, or what `ConfigSource` takes; by default the file that was read before.

        Raises:
            CompositionError: Something is wrong with the new one; or there is no file to read again.
            BuildError: An instance that is in use could not be built anew.
            ClosedError: The composition is closed.

        In all these cases the composition is as it was.
        """
        with self._reloading:
            if self._closed:
                raise ClosedError("the composition is closed")
            old = self._state
            new = self._read(
                old.source.again() if source is None else _as_source(source), old.loaded.warnings
            )
            plan = plan_reload(
                old.loaded.graph, new.loaded.graph, same_folder=old.source.base == new.source.base
            )
            new.builder.stand_beside(old.builder, plan.of("kept"))
            try:
                for key in plan.of("changed"):
                    if old.builder.running(key) is not None:
                        new.builder.build(new.loaded.graph.instances[key])
            except BaseException:
                new.builder.close(last=False)
                raise
            # In this order an interrupt leaves nothing that `close` would not close.
            self._retired.append(old.builder)
            self._state = new
            new.builder.succeed(old.builder)
        return Reloaded(plan, lambda: self._retire(old.builder))

    def _retire(self, builder: Builder) -> None:
        self._ended.add(builder)
        while True:
            with self._reloading:
                # One that is earlier, and goes on, may use what this one has.
                first = next(iter(self._retired), None)
                if first is None or first not in self._ended:
                    return
            first.close(last=False)  # If this is interrupted `close` comes back to it.
            with self._reloading, contextlib.suppress(ValueError):
                self._retired.remove(first)
                self._ended.discard(first)

    def close(self) -> None:
        """Close the services that were built, dependants first. Closing again does nothing."""
        with self._reloading:
            self._closed = True
        errors: list[Exception] = []
        # What is shared has come to the later ones, so all that use it are in it or in earlier ones.
        for builder in [*self._retired, self._builder]:
            try:
                builder.close(last=builder is self._builder)
            except Exception as error:  # noqa: BLE001 - the others must still be closed
                errors.append(error)
        raise_all(errors)

    def __del__(self) -> None:
        # Its services may have work that waits; a collector of garbage must not do that.
        state = getattr(self, "_state", None)
        if state is not None and any(each.has_to_close for each in (state.builder, *self._retired)):
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
