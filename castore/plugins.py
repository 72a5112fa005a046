"""Finding plugins by their entry points, with every failure kept apart from the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import attrs
import pluggy

from castore import hookspecs
from castore.errors import DuplicatePluginError


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
        module = self.entry_point.load()
        if not hasattr(module, "castore_register"):
            raise AttributeError(
                f"{self.entry_point.value} has no function `castore_register` marked with `castore.hookimpl`"
            )
        return module  # type: ignore[no-any-return]


def discover(found: Iterable[EntryPoint] | None = None) -> list[Plugin]:
    """List the installed plugins by name, without importing any.

    Raises `DuplicatePluginError` if two distributions have a plugin of the same name: which one would be
    used is not for the order of `sys.path` to say.
    """
    by_name: defaultdict[str, dict[tuple[str, str], Plugin]] = defaultdict(dict)
    for entry_point in entry_points(group=hookspecs.PROJECT) if found is None else found:
        plugin = Plugin(entry_point.name, _distribution(entry_point), entry_point)
        # An editable checkout on sys.path shows the same distribution twice.
        by_name[plugin.name].setdefault((plugin.distribution, entry_point.value), plugin)
    for name, plugins in by_name.items():
        if len(plugins) > 1:
            owners = " and ".join(sorted(plugin.distribution for plugin in plugins.values()))
            raise DuplicatePluginError(
                f"two plugins are named `{name}`: {owners}; uninstall one of them",
                plugin=name,
                distribution=owners,
            )
    return [next(iter(by_name[name].values())) for name in sorted(by_name)]


def call_register(plugin: Plugin, module: ModuleType, registry: object) -> None:
    """Let one plugin register its types; raises whatever its hook raises."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module, name=plugin.name)
    manager.hook.castore_register(registry=registry)


def _distribution(entry_point: EntryPoint) -> str:
    if entry_point.dist is None:
        return "an unknown distribution"
    return f"{entry_point.dist.name} {entry_point.dist.version}"
