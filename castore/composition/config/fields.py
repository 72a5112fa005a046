"""What a config class says of itself: its fields, what they take, their defaults and their docs."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.composition.config.classes import table_fields
from castore.composition.config.shapes import Shape, shape_of, word_of
from castore.format.chunking import Chunker

if TYPE_CHECKING:
    from castore.composition.types.registry import Registry

_BINARY: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))

_ENDLESS: Final = 1 << 50
"""So many seconds are no bound."""

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@attrs.frozen
class Field:
    """One key of a config table."""

    name: str
    shape: Shape
    required: bool
    default: Any
    """As TOML would have it: a string, number, boolean, array or table; `None` if there is none to show."""
    doc: str
    """The string under the field in its class, or nothing."""


def describe_fields(config: type, registry: Registry) -> list[Field]:
    """Return the fields of an attrs class in order; *registry* knows the names of the chunkers."""
    docs = field_docs(config)
    fields = []
    for field in table_fields(config):
        shape = shape_of(field.type)
        required = field.default is attrs.NOTHING
        default = None if required else _default(field.default, shape, registry)
        fields.append(Field(field.key, shape, required, default, docs.get(field.name, "")))
    return fields


def summary_of(config: type) -> str:
    """Return the docstring of a class, nothing if it has none."""
    doc = config.__dict__.get("__doc__")
    return inspect.cleandoc(doc) if doc else ""


def field_docs(config: type) -> dict[str, str]:
    """Return the strings that stand under the fields of a class and of those that it inherits from."""
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        docs.update(_own_docs(cls))
    return docs


def _own_docs(cls: type) -> Iterator[tuple[str, str]]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return  # Made at run time, or installed without its source.
    if not isinstance(definition, ast.ClassDef):
        return
    for statement, below in pairwise(definition.body):
        match statement, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, inspect.cleandoc(text)


def words_for(shape: Shape, registry: Registry) -> str:
    """Return a shape in words, such as `reference to a blob service`."""
    match shape.name:
        case "boolean":
            words = "true or false"
        case "reference":
            labels = [kind.label for kind in registry.kinds.values() if kind.contract is shape.cls]
            words = f"reference to a {labels[0] if labels else 'service'}"
        case "choice":
            words = " or ".join(map(toml, shape.choices))
        case "union":
            words = " or ".join(words_for(part, registry) for part in shape.parts)
        case "array" if shape.parts:
            words = f"array of: {words_for(shape.parts[0], registry)}"
        case "object":
            words = f"table of: {', '.join(field.key for field in table_fields(shape.cls))}"
        case _:
            words = shape.name
    if shape.bounds is not None and shape.name == "duration":
        least, most = _duration(shape.bounds.low), _duration(shape.bounds.high)
        words += f" from {least} to {most}" if shape.bounds.high < _ENDLESS else f" of {least} at least"
    elif shape.bounds is not None:
        words += f" from {shape.bounds.low} to {shape.bounds.high}{' bytes' if shape.name == 'size' else ''}"
    return words


def toml(value: Any) -> str:
    """Return a value as it could be written in TOML on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)  # JSON's strings are TOML's, too.
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case Mapping():
            inner = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case _:
            return str(value)


def _default(default: Any, shape: Shape, registry: Registry) -> Any:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = None if default.takes_self else default.factory()
    if shape.name == "size" and isinstance(default, int):
        return _size(default)
    if _is_duration(shape) and isinstance(default, (int, float)) and not isinstance(default, bool):
        return _duration(default)
    if isinstance(default, type) and issubclass(default, Chunker):
        return next((tag for tag, chunker in registry.chunkers.items() if chunker is default), None)
    return _plain(default)


def _plain(value: Any) -> Any:
    """Return a value as TOML would have it, `None` if TOML cannot have it."""
    match value:
        case enum.Enum():
            return word_of(value)
        case bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case _:
            return getattr(value, "text", None)  # That of a reference.


def _is_duration(shape: Shape) -> bool:
    """Tell whether a number of this shape is one of seconds; also beside words."""
    return shape.name == "duration" or any(part.name == "duration" for part in shape.parts)


def _duration(seconds: float) -> float | str:
    """Return a duration with the largest unit that divides it; a tiny one in plain seconds."""
    for scale, unit in _UNITS:
        if seconds and seconds % scale == 0:
            return f"{seconds / scale:.0f} {unit}"
    milliseconds = round(seconds * 1000)
    if 0 < seconds < 1 and milliseconds / 1000 == seconds:
        return f"{milliseconds} ms"
    shown = repr(seconds).removesuffix(".0")
    return seconds if "e" in shown else f"{shown} s"


def _size(size: int) -> int | str:
    """Return a size with the largest unit that divides it."""
    for scale, unit in _BINARY:
        if size and size % scale == 0:
            return f"{size // scale} {unit}"
    return size
