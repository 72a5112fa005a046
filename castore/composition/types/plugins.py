"""Finding plugins by their entry points, with every failure kept apart from the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import ModuleType
from typing import Any

import attrs
import pluggy

from castore.composition.types import hookspecs
from castore.composition.types.strangers import is_fault, printing_to_stderr
from castore.digest import B3Digest
from castore.errors import PluginError, describe


@attrs.frozen
class Plugin:
    """An installed plugin: the name of its entry point, and the distribution it came in."""

    name: str
    distribution: str
    """Name and version, as in `castore 0.1.0`."""
    entry_point: EntryPoint = attrs.field(repr=False, eq=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Where a distribution lies is another matter elsewhere.
        entry_point = EntryPoint(self.entry_point.name, self.entry_point.value, self.entry_point.group)
        return type(self), (self.name, self.distribution, entry_point)

    @property
    def label(self) -> str:
        """The plugin as it is named in messages."""
        return f"plugin `{self.name}` of {self.distribution}"

    def load(self) -> ModuleType:
        """Import the module; raises whatever the import raises."""
        with printing_to_stderr():
            return self.entry_point.load()  # type: ignore[no-any-return]


def discover(found: Iterable[EntryPoint] | None = None) -> list[Plugin]:
    """List the installed plugins by name, without importing any.

    Two of one name are both there: they are told apart by their distributions.
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
    return [plugin for name in sorted(by_name) for _, plugin in sorted(by_name[name].items())]


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
    with printing_to_stderr():
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
    except BaseException as error:
        if not is_fault(error):
            raise
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
    return describe(error) if isinstance(error, Exception) else f"it raises {type(error).__name__}: {error}"


def _distribution(entry_point: EntryPoint) -> str:
    try:
        if entry_point.dist is not None:
            metadata = entry_point.dist.metadata
            return f"{metadata['Name']} {metadata['Version']}"
    except Exception:  # noqa: BLE001 - whatever is wrong with its metadata, the plugin may do
        pass
    return "an unknown distribution"
