"""The shapes that values in a config can have, read from the annotations of its class."""

from __future__ import annotations

import enum
import types
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import attrs

from castore.composition.config.classes import is_table_class
from castore.composition.config.refs import Ref
from castore.composition.config.values import Between, ByteSize, Duration
from castore.format.chunking import Chunker

_SIMPLE: Final[dict[object, str]] = {
    str: "string",
    Path: "path",
    int: "whole number",
    float: "number",
    bool: "boolean",
    ByteSize: "size",
    Duration: "duration",
    type[Chunker]: "chunker",
}


@attrs.frozen
class Shape:
    """What a value looks like.

    Attributes:
        name: A simple one, `string`, `path`, `whole number`, `number`, `boolean`, `size`, `duration` or
            `chunker`; or `reference`, `choice`, `union`, `array`, `table`, `object` or `any value`.
        parts: The members of a union; the items of an array or the values of a table, if they are known.
        choices: The values of a choice.
        cls: The contract that a reference asks for, if it says so; the class of an object.
        bounds: The least and the greatest value of a number.
    """

    name: str
    parts: tuple[Shape, ...] = ()
    choices: tuple[Any, ...] = ()
    cls: type | None = None
    bounds: Between | None = None


ANY: Final = Shape("any value")


def shape_of(annotation: Any) -> Shape:
    """Return the shape of the values of a type, `ANY` for a type that is not known."""
    if get_origin(annotation) is Annotated:
        base, *notes = get_args(annotation)
        bounds = next((note for note in notes if isinstance(note, Between)), None)
        return attrs.evolve(shape_of(base), bounds=bounds)
    return _simple(annotation) or _generic(annotation) or _of_class(annotation) or ANY


def _simple(annotation: Any) -> Shape | None:
    name = next((name for known, name in _SIMPLE.items() if annotation == known), None)
    if name is None and isinstance(annotation, type) and not issubclass(annotation, enum.Enum):
        # A class made of one of these is read as that one.
        made_of = (
            name for known, name in _SIMPLE.items() if isinstance(known, type) and known in annotation.__mro__
        )
        name = next(made_of, None)
    return Shape(name) if name else None


def _generic(annotation: Any) -> Shape | None:
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Ref:
        return Shape("reference", cls=args[0] if args and isinstance(args[0], type) else None)
    if origin is Literal:
        return Shape("choice", choices=args)
    if origin in {Union, types.UnionType}:
        # TOML has no null: a key that may be `None` is left out.
        return Shape("union", tuple(shape_of(arg) for arg in args if arg is not type(None)))
    if origin in {list, tuple}:
        return Shape("array", (shape_of(args[0]),) if args else ())
    if origin is dict:
        return Shape("table", (shape_of(args[1]),) if args else ())
    return None


def _of_class(annotation: Any) -> Shape | None:
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, enum.Enum):
        return Shape("choice", choices=tuple(word_of(member) for member in annotation))
    return Shape("object", cls=annotation) if is_table_class(annotation) else None


def word_of(member: enum.Enum) -> Any:
    """Return how a member of an enum is written: by its value, or its name if TOML has no such value."""
    value = member.value
    return value if isinstance(value, (str, int, float)) else member.name
