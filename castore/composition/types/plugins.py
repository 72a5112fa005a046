"""Finding plugins by their entry points, with every failure kept apart from the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType

import attrs
import pluggy

from castore.composition.types import hookspecs
from castore.digest import B3Digest
from castore.errors import DuplicatePluginError, PluginError, describe


@attrs.frozen
class Plugin:
    """An installed plugin: the name of its entry point, and the distribution it came in."""

    name: str
    distribution: str
    """Name and version, as in `castore 0.1.0`."""
    entry_point: EntryPoint = attrs.field(repr=False, eq=False)

    @property
    def label(self) -> str:
        """The plugin as it is named in messages."""
        return f"plugin `{self.name}` of {self.distribution}"

    def load(self) -> ModuleType:
        """Import the module; raises whatever the import raises."""
        return self.entry_point.load()  # type: ignore[no-any-return]


def discover(found: Iterable[EntryPoint] | None = None) -> list[Plugin]:
    """List the installed plugins by name, without importing any.

    Raises `DuplicatePluginError` if there are two plugins of the same name: which one would be used is not
    for the order of `sys.path` to say.
    """
    by_name: defaultdict[str, dict[tuple[str, str], Plugin]] = defaultdict(dict)
    # Each look at the metadata of a distribution parses all of it; many plugins may come in one.
    labels: dict[Distribution | None, str] = {}
    for entry_point in entry_points(group=hookspecs.PROJECT) if found is None else found:
        if entry_point.dist not in labels:
            labels[entry_point.dist] = _distribution(entry_point)
        plugin = Plugin(entry_point.name, labels[entry_point.dist], entry_point)
        # An editable checkout on sys.path shows the same distribution twice.
        by_name[plugin.name].setdefault((plugin.distribution, entry_point.value), plugin)
    for name, plugins in by_name.items():
        if len(plugins) > 1:
            owners = [plugin.distribution for plugin in plugins.values()]
            raise DuplicatePluginError(
                f"two plugins are named `{name}`: {_both(owners)}",
                plugin=name,
                distribution=" and ".join(sorted(set(owners))),
            )
    return [next(iter(by_name[name].values())) for name in sorted(by_name)]


def _both(owners: list[str]) -> str:
    if len(set(owners)) == 1:
        return f"{owners[0]} has both; it has to rename one of them"
    return f"one of {' and one of '.join(sorted(owners))}; uninstall one of the two"


def call_register(plugin: Plugin, module: ModuleType, registry: object) -> None:
    """Let one plugin register its types.

    Raises whatever its hook raises, and `PluginError` if it has none.
    """
    manager = _manager_of(plugin, module)
    # A hook of another name, perhaps misspelt.
    manager.check_pending()
    if not manager.hook.castore_register.get_hookimpls():
        missing = (
            "is not marked with" if hasattr(module, "castore_register") else "is missing: define it with"
        )
        raise PluginError(
            f"in `{plugin.entry_point.value}` the function `castore_register` {missing} `@castore.hookimpl`",
            plugin=plugin.name,
            distribution=plugin.distribution,
        )
    manager.hook.castore_register(registry=registry)


def call_roots(plugin: Plugin, composition: object) -> Iterator[B3Digest]:
    """Yield the digests of blobs that one plugin wants to be kept; none if it has no such hook.

    Raises `PluginError` if its hook fails, or gives something else than digests.
    """
    try:
        hook = _manager_of(plugin, plugin.load()).hook.castore_roots
        answers = hook(composition=composition)
        if len(answers) < len(hook.get_hookimpls()):
            raise TypeError("it returned None; if there are no roots it must return an empty list")
        for answer in answers:
            for digest in answer:
                if not isinstance(digest, B3Digest):
                    raise TypeError(f"{digest!r} is no B3Digest")
                yield digest
    except Exception as error:
        raise PluginError(
            f"the hook `castore_roots` of {plugin.label} failed: {why(error)}",
            plugin=plugin.name,
            distribution=plugin.distribution,
        ) from error


def _manager_of(plugin: Plugin, module: ModuleType) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin.name)
    return manager


def why(error: BaseException) -> str:
    """Return why a plugin cannot be used, by the error it raised."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the module `{error.name}` is not installed"
    if isinstance(error, SystemExit):
        return "it ends the program while it is imported"
    return describe(error)


def _distribution(entry_point: EntryPoint) -> str:
    try:
        if entry_point.dist is not None:
            metadata = entry_point.dist.metadata
            return f"{metadata['Name']} {metadata['Version']}"
    except Exception:  # noqa: BLE001 - whatever is wrong with its metadata, the plugin may do
        pass
    return "an unknown distribution"
