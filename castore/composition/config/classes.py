"""Classes that say what belongs in a table: those of `attrs`, and dataclasses within them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any, get_type_hints

import attrs

from castore.composition.config.refs import Ref


@attrs.frozen
class TableField:
    """A field of such a class that a table may set."""

    name: str
    key: str
    """What it is called in a table, and as an argument of the class: its alias, in the words of `attrs`."""
    type: Any
    default: Any = attrs.NOTHING
    """`attrs.NOTHING` if there is none; an `attrs.Factory` for one that is made each time."""
    metadata: Any = attrs.field(factory=dict)
    converter: Any = None
    validator: Any = None


def is_table_class(annotation: Any) -> bool:
    """Tell whether an annotation is a class of fields, which a table is read as."""
    if not isinstance(annotation, type) or issubclass(annotation, Ref):
        return False
    return attrs.has(annotation) or dataclasses.is_dataclass(annotation)


@functools.lru_cache(maxsize=256)
def table_fields(cls: type) -> tuple[TableField, ...]:
    """Return the fields of a class in order, with their types; raises what its annotations raise."""
    if attrs.has(cls):
        resolve_types(cls)
        return tuple(
            TableField(
                field.name,
                field.alias or field.name,
                field.type if field.type is not None else Any,
                field.default,
                field.metadata,
                field.converter,
                field.validator,
            )
            for field in attrs.fields(cls)
            if field.init
        )
    hints = get_type_hints(cls, localns=_names_around(cls), include_extras=True)
    return tuple(
        TableField(field.name, field.name, hints[field.name], _default(field), field.metadata)
        for field in dataclasses.fields(cls)
        if field.init
    )


def resolve_types(cls: type) -> None:
    """Turn the annotations of an attrs class into types; raises what they raise.

    They may name classes that stand within the class, or beside it in another one.
    """
    attrs.resolve_types(cls, localns=_names_around(cls))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return attrs.Factory(field.default_factory)
    return attrs.NOTHING if field.default is dataclasses.MISSING else field.default


def _names_around(cls: type) -> dict[str, type]:
    """Return the classes that are defined in a class, in those that it is made of, and around it."""
    around: Any = sys.modules.get(cls.__module__)
    scopes = []
    for part in cls.__qualname__.split("."):
        around = getattr(around, part, None)
        scopes.append(around)
    scopes += reversed(cls.__mro__)
    return {
        name: value
        for scope in scopes
        if isinstance(scope, type)
        for name, value in vars(scope).items()
        if isinstance(value, type) and not name.startswith("__")
    }
