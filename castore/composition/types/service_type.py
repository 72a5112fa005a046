"""What a registry knows of a type of services, and what a config class must be."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import attrs

from castore.composition.config.classes import resolve_types
from castore.composition.config.settings import SETTINGS
from castore.composition.types.plugins import Plugin
from castore.errors import describe
from castore.problems import listing


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
    _config: type | str
    """The class, or where it is: `module:Class`."""
    plugin: Plugin | None = None
    formerly: tuple[str, ...] = ()
    """Tags it had before, for which an error says what to write now."""
    only_if: str | None = None
    """The setting without which a composition must not use it; `None` if it may be used anywhere."""
    sought_as: tuple[str, ...] = ()
    """Other words by which somebody may look for it."""

    @property
    def config(self) -> type:
        """The config class, imported now if it was not yet; raises whatever the import raises."""
        if isinstance(self._config, type):
            return self._config
        return EntryPoint(self.tag, self._config, "").load()  # type: ignore[no-any-return]

    @property
    def imported(self) -> bool:
        """Whether the class is at hand, and not only its place."""
        return isinstance(self._config, type)

    @property
    def owner(self) -> str:
        """Who registered it, in words."""
        return owner(self.plugin)

    def mistake(self) -> str | None:
        """Return what is wrong with what is said of it, `None` if nothing is; the class is not looked at."""
        if not self.tag or "+" in self.tag or ":" in self.tag:
            return f"{self.tag!r} cannot be the tag of a type: it must not be empty or have `+` or `:`"
        if self.only_if is not None and self.only_if not in SETTINGS:
            return f"`{self.tag}` asks for a setting `{self.only_if}`; there is {listing(SETTINGS)}"
        if isinstance(self._config, str) and not EntryPoint.pattern.fullmatch(self._config):
            return f"the config class of `{self.tag}` is named {self._config!r}, which is not `module:Class`"
        return None

    def mistake_in_config(self) -> str | None:
        """Return what is wrong with the class, `None` if nothing is; raises what importing it raises."""
        config = self.config
        about = f"the config class of `{self.tag}`"
        if not attrs.has(config):
            return f"{about}, {config!r}, is not an attrs class"
        if not callable(getattr(config, "build", None)):
            return f"{about}, {config!r}, has no method `build`"
        if "type" in {field.alias for field in attrs.fields(config)}:
            return f"{about} has a field `type`, but that key names the type"
        try:
            resolve_types(config)
        except Exception as error:  # noqa: BLE001 - an annotation is code
            return (
                f"{about}, {config!r}, has an annotation that means nothing at run time: {describe(error)};"
                " import its names outside of `if TYPE_CHECKING`"
            )
        return None


def owner(plugin: Plugin | None) -> str:
    """Return who registered something, in words."""
    return plugin.label if plugin else "the program itself"
