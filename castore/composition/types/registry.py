"""Which types of services there are."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from castore.composition.types.plugins import Plugin, call_register, discover, why
from castore.composition.types.service_type import Kind, RegisteredType, owner
from castore.composition.types.strangers import is_fault, printing_to_stderr
from castore.composition.types.versions import unmet
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.errors import DuplicatePluginError, PluginError
from castore.format.chunking import BUNDLED_CHUNKERS, Chunker
from castore.problems import did_you_mean, listing
from castore.threads import forks

_OF_THE_REFERENCE: Final = frozenset({"redb", "bigtable"})
"""Types of services of directories whose formats nothing else reads."""


def _has_place(cls: type) -> bool:
    """Tell whether a class can be found by its name in its module, as a pickle does."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


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
        self._owners: dict[str, Plugin | None] = {}
        self._contested: dict[tuple[type | None, str], str] = {}
        self._plugin: Plugin | None = None
        self._checking = forks.free_in_child(threading.RLock())
        self._broken: list[BrokenPlugin] = []
        self.plugins: list[Plugin] = []
        """The plugins that were loaded."""
        self.add_kind(BlobService, "blobservices", "blob service")
        self.add_kind(DirectoryService, "directoryservices", "directory service")
        self.add_kind(RefService, "refservices", "ref service")

    @classmethod
    def default(cls) -> Registry:
        """Return a new registry with the types of all installed plugins.

        A plugin that fails to import is kept in `broken`. A tag that two of them bring is no type: whoever
        uses it is told of both.
        """
        registry = cls()
        for plugin in discover():
            registry.load(plugin)
        return registry

    def load(self, plugin: Plugin) -> None:
        """Import one plugin and let it register; a failure is kept in `broken`."""
        wanted = unmet(plugin.entry_point.dist)
        if wanted is not None:
            self._broken.append(BrokenPlugin(plugin, wanted))
            return
        try:
            with self._registering(plugin):
                call_register(plugin, plugin.load(), self)
        except BaseException as error:
            if not is_fault(error):
                raise
            # What a plugin does wrong concerns it alone.
            self._broken.append(BrokenPlugin(plugin, why(error)))
        else:
            self.plugins.append(plugin)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle has: classes by their places, so that those of plugins are imported there.

        Raises `TypeError` if a class of the program has no place, as one that is made in a function.
        """
        classes = [entry.config for entry in self._types.values() if entry.imported]
        for cls in (*classes, *self._chunkers.values(), *self._kinds):
            if not _has_place(cls):
                raise TypeError(
                    f"a registry with `{cls.__module__}.{cls.__qualname__}` cannot be pickled: define it at"
                    " the top of a module, or make the registry anew where it is needed"
                )
        return {name: value for name, value in vars(self).items() if name != "_checking"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._checking = forks.free_in_child(threading.RLock())

    @contextlib.contextmanager
    def _registering(self, plugin: Plugin) -> Iterator[None]:
        kinds, types, chunkers = dict(self._kinds), dict(self._types), dict(self._chunkers)
        contested = dict(self._contested)
        self._plugin = plugin
        try:
            yield
        except BaseException:
            # Half a plugin would be found later, far from the reason why it is only half.
            self._kinds, self._types, self._chunkers = kinds, types, chunkers
            self._contested = contested
            raise
        finally:
            self._plugin = None

    def add_kind(self, contract: type, table: str, label: str) -> None:
        """Add a kind of service: its contract, its table in a composition, its name in words."""
        for kind in self._kinds.values():
            if kind.contract is contract or kind.table == table:
                message = f"a kind of service with the table `{kind.table}` is there already"
                raise DuplicatePluginError(message, **self._blame())
        self._kinds[contract] = Kind(contract, table, label)

    def register(
        self,
        kind: type,
        tag: str,
        config: type | str,
        *,
        formerly: tuple[str, ...] = (),
        only_if: str | None = None,
        sought_as: tuple[str, ...] = (),
    ) -> None:
        """Add a type of service.

        Arguments:
            kind: The contract of its services, such as `BlobService`.
            tag: What `type = "..."` in a composition says.
            config: An `attrs` class with a method `build(name, context)`; or where it is, as `module:Class`,
                which is imported when a composition first uses the type.
            formerly: Tags of the past; an error tells who uses one what to write instead.
            only_if: The setting without which a composition must not use it, such as `allow_faults`.
            sought_as: Words by which somebody may look for it, such as `s3` for a type with buckets; an error
                tells who writes one as a type what to write instead.

        Raises:
            DuplicatePluginError: The tag is taken; both owners are named. If both are plugins, nobody is told
                before the tag is used.
            PluginError: The kind or the setting is unknown, the tag empty, or the class is no config class.
        """
        registered = RegisteredType(self.kind(kind), tag, config, self._plugin, formerly, only_if, sought_as)
        wrong = registered.mistake() or (registered.mistake_in_config() if registered.imported else None)
        if wrong:
            raise PluginError(wrong, **self._blame())
        other = self._types.get((kind, tag))
        if other is not None:
            words = f"two types of {other.kind.label} have the tag `{tag}`: {self._both(other.plugin)}"
            self._contest(kind, tag, words, other.plugin)
            del self._types[kind, tag]
        elif (kind, tag) in self._contested:
            self._contest(kind, tag, self._contested[kind, tag], None)
        else:
            self._types[kind, tag] = registered

    def _contest(self, kind: type | None, tag: str, words: str, other: Plugin | None) -> None:
        """Note that two plugins want one tag; raise if it is anybody's own mistake.

        What one installs must not end the work with what another has brought.
        """
        if self._plugin is None or self._plugin == other:
            raise DuplicatePluginError(words, **self._blame())
        self._contested[kind, tag] = words

    @property
    def contested(self) -> list[str]:
        """The tags that two plugins want, in words; none of them can be used."""
        return sorted(self._contested.values())

    def why_contested(self, kind: Kind, tag: str) -> str | None:
        """Return which two plugins bring a type of that tag, in words; `None` if no two do."""
        return self._contested.get((kind.contract, tag))

    def _both(self, other: Plugin | None) -> str:
        """Return who registered the two things of one name, *other* the first, and what to do."""
        if other == self._plugin:
            return f"both from {owner(other)}"
        return f"one from {owner(other)}, one from {owner(self._plugin)}; uninstall one of the two"

    def _blame(self) -> dict[str, str | None]:
        plugin = self._plugin
        return {
            "plugin": plugin.name if plugin else None,
            "distribution": plugin.distribution if plugin else None,
        }

    def register_chunker(self, tag: str, chunker: type[Chunker]) -> None:
        """Add a way to cut blobs into chunks, for config fields of type `type[Chunker]`."""
        if tag in self._chunkers and (None, tag) not in self._contested:
            owner = self._owners.get(tag)
            # Those that castore itself has keep their tags: they are what stores were cut with.
            words = f"two chunkers have the tag `{tag}`: {self._both(owner)}"
            if tag in BUNDLED_CHUNKERS:
                raise DuplicatePluginError(words, **self._blame())
            self._contest(None, tag, words, owner)
        self._chunkers[tag] = chunker
        self._owners[tag] = self._plugin

    @property
    def kinds(self) -> Mapping[str, Kind]:
        """The kinds by the names of their tables."""
        return {kind.table: kind for kind in self._kinds.values()}

    @property
    def chunkers(self) -> Mapping[str, type[Chunker]]:
        """The chunkers by tag."""
        return {tag: chunker for tag, chunker in self._chunkers.items() if (None, tag) not in self._contested}

    @property
    def contested_chunkers(self) -> Mapping[str, str]:
        """The tags of chunkers that two plugins want, with both in words."""
        return {tag: words for (kind, tag), words in self._contested.items() if kind is None}

    def kind(self, contract: type | Callable[..., object]) -> Kind:
        """Return the kind of a contract; raises `PluginError` if there is none."""
        for kind in self._kinds.values():
            if kind.contract is contract:
                return kind
        raise PluginError(f"{contract!r} is no kind of service; the kinds are {listing(self.kinds)}")

    @property
    def broken(self) -> list[BrokenPlugin]:
        """Plugins that could not be used, or not wholly; they stop nothing but the configs that need them."""
        self._check_all()
        return self._broken

    def types(self, kind: Kind) -> Mapping[str, RegisteredType]:
        """Return the types of a kind by tag."""
        self._check_all()
        return {entry.tag: entry for entry in self._types.values() if entry.kind == kind}

    def all_types(self) -> list[RegisteredType]:
        """Return all types, by kind and tag."""
        self._check_all()
        return sorted(self._types.values(), key=lambda entry: (entry.kind.table, entry.tag))

    def find(self, kind: Kind, tag: str) -> RegisteredType | None:
        """Return the type of a kind by its tag, `None` if there is none."""
        self._check(kind.contract, tag)
        return self._types.get((kind.contract, tag))

    def _check_all(self) -> None:
        for contract, tag in sorted(self._types, key=lambda key: key[1]):
            self._check(contract, tag)

    def _check(self, contract: type, tag: str) -> None:
        """Import the config class of a type that only says where it is; a failure is kept in `broken`."""
        with self._checking:
            registered = self._types.get((contract, tag))
            if registered is None or registered.imported:
                return
            try:
                with printing_to_stderr():
                    wrong = registered.mistake_in_config()
            except BaseException as error:
                if not is_fault(error):
                    raise
                wrong = why(error)
            if wrong is None:
                self._types[contract, tag] = attrs.evolve(registered, config=registered.config)
                return
            del self._types[contract, tag]
            if registered.plugin is None:
                raise PluginError(f"the type `{tag}` does not load: {wrong}")
            self._broken.append(BrokenPlugin(registered.plugin, wrong))

    def renamed(self, kind: Kind, tag: str) -> RegisteredType | None:
        """Return the type that once had the tag *tag*, if any."""
        return next((entry for entry in self.types(kind).values() if tag in entry.formerly), None)

    def installed(self, kind: Kind) -> str:
        """Return which types of a kind there are, in words."""
        known = self.types(kind)
        if not known:
            return f"no type of {kind.label} is installed"
        return f"installed types of {kind.label}: {listing(known)}"

    def why_unknown(self, kind: Kind, tag: str) -> str:
        """Return what to tell someone who asked for a type that is not there, in lines."""
        contested = self.why_contested(kind, tag)
        if contested is not None:
            return contested
        for broken in self.broken:
            if broken.plugin.name == tag:
                return str(broken)
        word = tag.lower()
        sought = [entry for entry in self.types(kind).values() if word in entry.sought_as]
        if sought:
            meant = " or ".join(f'`type = "{entry.tag}"`' for entry in sought)
            return f"for `{word}` write {meant}; `castore plugins {sought[0].tag}` shows what it takes"
        if kind.contract is DirectoryService and word in _OF_THE_REFERENCE:
            return (
                f"only the reference's programs read what `{word}` keeps: let its daemon serve that,"
                ' and write `type = "grpc"` and `url = "grpc+http://localhost:8000"`'
            )
        suggestion = did_you_mean(tag, self.types(kind))
        if suggestion:
            return suggestion
        others = [entry.kind.label for entry in self._types.values() if entry.tag == tag]
        lines = [f"`{tag}` is a type of {label}" for label in others] + [self.installed(kind)]
        if self.broken:
            lines.append("it may be in a plugin that does not load:")
            lines += [f"  {broken.plugin.label}: {broken.cause}" for broken in self.broken]
        return "\n".join(lines)
