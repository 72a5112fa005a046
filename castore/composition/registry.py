"""Which types of services there are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import attrs

from castore.blobservice import BlobService
from castore.chunking import BUNDLED_CHUNKERS, Chunker
from castore.composition.problems import did_you_mean, listing
from castore.directoryservice import DirectoryService
from castore.errors import DuplicatePluginError, PluginError, describe
from castore.plugins import Plugin, call_register, discover

S_co = TypeVar("S_co", covariant=True)


class ServiceConfig(Protocol[S_co]):
    """What a config class offers: an `attrs` class whose objects build their service.

    It may also have a class method `from_url(cls, url: str)`, if the type has a URL form.
    """

    def build(self, name: str, context: Any) -> S_co:
        """Return the service. *name* is the instance's; *context* is a `BuildContext`."""


@attrs.frozen
class Kind:
    """A kind of service."""

    contract: type
    table: str
    """The name of its table in a composition."""
    label: str
    """The kind in words, as in `blob service`."""


@attrs.frozen
class RegisteredType:
    """A type of service: its tag, its config class, and who registered it."""

    kind: Kind
    tag: str
    config: type
    plugin: Plugin | None = None
    formerly: tuple[str, ...] = ()
    """Tags it had before, for which an error says what to write now."""

    @property
    def owner(self) -> str:
        """Who registered it, in words."""
        return self.plugin.label if self.plugin else "the program itself"


@attrs.frozen
class BrokenPlugin:
    """A plugin that could not be imported, or whose hook failed."""

    plugin: Plugin
    cause: str

    def __str__(self) -> str:
        return f"{self.plugin.label} does not load: {self.cause}"


class Registry:
    """The types that compositions are made of, by kind and tag. An object: there is no global one.

    `Registry()` knows the kinds, the bundled chunkers and no service type; `Registry.default()` also has
    what the installed plugins register.
    """

    def __init__(self) -> None:
        self._kinds: dict[type, Kind] = {}
        self._types: dict[tuple[type, str], RegisteredType] = {}
        self._chunkers: dict[str, type[Chunker]] = dict(BUNDLED_CHUNKERS)
        self._plugin: Plugin | None = None
        self.broken: list[BrokenPlugin] = []
        """Plugins that could not be used; they stop nothing but the configs that need them."""
        self.plugins: list[Plugin] = []
        """The plugins that were loaded."""
        self.add_kind(BlobService, "blobservices", "blob service")
        self.add_kind(DirectoryService, "directoryservices", "directory service")

    @classmethod
    def default(cls) -> Registry:
        """Return a new registry with the types of all installed plugins.

        Raises `DuplicatePluginError` if two plugins have one name, or two types one tag. A plugin that
        fails to import is kept in `broken`.
        """
        registry = cls()
        for plugin in discover():
            registry.load(plugin)
        return registry

    def load(self, plugin: Plugin) -> None:
        """Import one plugin and let it register; a failure is kept in `broken`."""
        try:
            with self._registering(plugin):
                call_register(plugin, plugin.load(), self)
        except DuplicatePluginError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a plugin does wrong concerns it alone
            self.broken.append(BrokenPlugin(plugin, describe(error)))
        else:
            self.plugins.append(plugin)

    @contextlib.contextmanager
    def _registering(self, plugin: Plugin) -> Iterator[None]:
        kinds, types, chunkers = dict(self._kinds), dict(self._types), dict(self._chunkers)
        self._plugin = plugin
        try:
            yield
        except Exception:
            # Half a plugin would be found later, far from the reason why it is only half.
            self._kinds, self._types, self._chunkers = kinds, types, chunkers
            raise
        finally:
            self._plugin = None

    def add_kind(self, contract: type, table: str, label: str) -> None:
        """Add a kind of service: its contract, its table in a composition, its name in words."""
        for kind in self._kinds.values():
            if kind.contract is contract or kind.table == table:
                raise DuplicatePluginError(f"the kind with the table `{kind.table}` is registered already")
        self._kinds[contract] = Kind(contract, table, label)

    def register(self, kind: type, tag: str, config: type, *, formerly: tuple[str, ...] = ()) -> None:
        """Add a type of service.

        Arguments:
            kind: The contract of its services, such as `BlobService`.
            tag: What `type = "..."` in a composition says.
            config: An `attrs` class with a method `build(name, context)`.
            formerly: Tags of the past; an error tells who uses one what to write instead.

        Raises:
            DuplicatePluginError: The tag is taken; both owners are named.
            PluginError: The kind is unknown, the tag empty, or the class is no config class.
        """
        registered = RegisteredType(self.kind(kind), tag, config, self._plugin, formerly)
        self._check(registered)
        other = self._types.get((kind, tag))
        if other is not None:
            raise DuplicatePluginError(
                f"two types of {other.kind.label} have the tag `{tag}`: one from {other.owner},"
                f" one from {registered.owner}; uninstall or rename one of them",
                plugin=self._plugin.name if self._plugin else None,
                distribution=self._plugin.distribution if self._plugin else None,
            )
        self._types[kind, tag] = registered

    def _check(self, registered: RegisteredType) -> None:
        wrong = None
        if not registered.tag or "+" in registered.tag or ":" in registered.tag:
            wrong = f"{registered.tag!r} cannot be the tag of a type: it must not be empty or have `+` or `:`"
        elif not attrs.has(registered.config):
            wrong = f"the config class of `{registered.tag}`, {registered.config!r}, is not an attrs class"
        elif not callable(getattr(registered.config, "build", None)):
            wrong = f"the config class of `{registered.tag}`, {registered.config!r}, has no method `build`"
        if wrong:
            raise PluginError(wrong, plugin=self._plugin.name if self._plugin else None)

    def register_chunker(self, tag: str, chunker: type[Chunker]) -> None:
        """Add a way to cut blobs into chunks, for config fields of type `type[Chunker]`."""
        if tag in self._chunkers:
            raise DuplicatePluginError(f"two chunkers have the tag `{tag}`")
        self._chunkers[tag] = chunker

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """The kinds by the names of their tables."""
        return {kind.table: kind for kind in self._kinds.values()}

    @property
    def chunkers(self) -> Mapping[str, type[Chunker]]:
        """The chunkers by tag."""
        return dict(self._chunkers)

    def kind(self, contract: type | Callable[..., object]) -> Kind:
        """Return the kind of a contract; raises `PluginError` if there is none."""
        for kind in self._kinds.values():
            if kind.contract is contract:
                return kind
        raise PluginError(f"{contract!r} is no kind of service; the kinds are {listing(self.kinds)}")

    def types(self, kind: Kind) -> Mapping[str, RegisteredType]:
        """The types of a kind by tag."""
        return {entry.tag: entry for entry in self._types.values() if entry.kind == kind}

    def all_types(self) -> list[RegisteredType]:
        """Return all types, by kind and tag."""
        return sorted(self._types.values(), key=lambda entry: (entry.kind.table, entry.tag))

    def find(self, kind: Kind, tag: str) -> RegisteredType | None:
        """Return the type of a kind by its tag, `None` if there is none."""
        return self._types.get((kind.contract, tag))

    def renamed(self, kind: Kind, tag: str) -> RegisteredType | None:
        """Return the type that once had the tag *tag*, if any."""
        return next((entry for entry in self.types(kind).values() if tag in entry.formerly), None)

    def why_unknown(self, kind: Kind, tag: str) -> str:
        """Return what to tell someone who asked for a type that is not there."""
        for broken in self.broken:
            if broken.plugin.name == tag:
                return str(broken)
        known = self.types(kind)
        installed = f"the installed types of {kind.label} are {listing(known)}"
        suggestion = did_you_mean(tag, known)
        parts = [suggestion, installed] if suggestion else [installed]
        if self.broken:
            parts.append("not loaded: " + "; ".join(str(broken) for broken in self.broken))
        return "; ".join(parts)
