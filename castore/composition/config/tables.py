"""Reading a table as the attrs class that says what belongs in it, with every problem found."""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

import attrs
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError

from castore.composition.config.classes import TableField, table_fields
from castore.composition.config.refs import is_ref
from castore.composition.config.shapes import word_of
from castore.composition.config.values import ByteSize, Duration
from castore.errors import describe
from castore.problems import InvalidValueError, Problem, ProblemsError, dotted, listing, nearest

FORMERLY: Final = "castore_formerly"

Structure: TypeAlias = Callable[[object, Any], Any]
"""Takes a value and the type that is asked for."""


def formerly(*names: str) -> dict[str, tuple[str, ...]]:
    """Return the metadata of a field that had other names: `attrs.field(metadata=formerly("local"))`."""
    return {FORMERLY: names}


@attrs.frozen
class Reading:
    """What became of a table."""

    config: Any
    """The object of the class, or `None` if there are problems."""
    values: Mapping[str, Any]
    """The values of the fields by their keys; of those that are not right, what is right in them."""
    written: Mapping[str, str]
    """The key under which each field stands in the table; another than its own if it is misspelt."""
    problems: tuple[Problem, ...]
    """Their paths start from the table."""

    @property
    def by_key(self) -> dict[str, Any]:
        """The values by the keys under which they stand."""
        return {self.written[name]: value for name, value in self.values.items()}


def read_table(
    table: Mapping[Any, object], cls: type, structure: Structure, *, beside: str | None = None
) -> Reading:
    """Read *table* as an object of *cls*, an attrs class or a dataclass.

    *structure* reads the values of the fields; *beside* is a key of the table that is no field.
    """
    keys = _Keys(table, cls, beside)
    problems, values, partial = list(keys.problems), {}, {}
    for name, field in keys.fields.items():
        key = keys.written.get(name)
        if key is None:
            if field.default is attrs.NOTHING:
                problems.append(_missing(field))
            continue
        try:
            values[name] = structure(table[key], field.type)
        except Exception as error:  # noqa: BLE001 - a type may raise anything; it is the value's fault
            # Where the key is only a guess, so would be what is wrong with the value.
            if name not in keys.guesses:
                problems += [problem.under(key) for problem in problems_of(error)]
                if isinstance(error, ProblemsError):
                    partial[name] = error.partial
    config, failure = None, None
    if not problems:
        try:
            config = cls(**values)
        except Exception as error:  # noqa: BLE001 - as above
            failure = error
    if config is None:
        problems += _check_fields(cls, keys, values)
        if failure is not None and not problems:
            problems += problems_of(failure)
    return Reading(config, {**values, **partial}, keys.written, tuple(problems))


class _Keys:
    """Which key of a table is which field of a class."""

    def __init__(self, table: Mapping[Any, object], cls: type, beside: str | None) -> None:
        self.fields = {field.key: field for field in table_fields(cls)}
        self.written: dict[str, Any] = {name: name for name in self.fields if name in table}
        self.guesses: set[str] = set()
        self.problems: list[Problem] = []
        for key in table:
            if key not in self.fields:
                self._assign(key, beside)

    def _assign(self, key: Any, beside: str | None) -> None:
        """Report a key that no field has, and take it for the one that is meant, if that can be told."""
        renamed = [name for name, field in self.fields.items() if key in field.metadata.get(FORMERLY, ())]
        if renamed:
            self._assign_renamed(key, renamed[0])
            return
        missing = [name for name in self.fields if name not in self.written]
        meant = nearest(str(key), missing)
        if meant is not None:
            self.written[meant] = key
            self.guesses.add(meant)
            hint = f"did you mean `{meant}`?"
        else:
            hint = f"the keys here are {listing(self.fields)}"
            if not self.fields:
                hint = "this table has no keys" + (f" beside `{beside}`" if beside else "")
        message = f"unknown key `{dotted(_path(key))}`"
        self.problems.append(Problem("unknown-key", _path(key), message, hint, at="key"))

    def _assign_renamed(self, key: Any, name: str) -> None:
        if name in self.written:
            message, hint = f"`{key}` is the old name of `{name}`, which is here as well", f"remove `{key}`"
        else:
            message, hint = f"`{key}` is now called `{name}`", f"write `{name}`"
            self.written[name] = key
        self.problems.append(Problem("old-name", _path(key), message, hint, at="key"))


def _path(key: object) -> tuple[str | int, ...]:
    return (key if isinstance(key, (str, int)) else str(key),)


def _missing(field: TableField) -> Problem:
    example = _example(field.type)
    hint = f"write `{field.key} = {example}`" if example else None
    return Problem("missing-key", (), f"the key `{field.key}` is missing", hint, at="key")


def _example(annotation: Any) -> str | None:
    """Return what a value of a type may look like, if there is an answer."""
    if is_ref(annotation):
        return '"&name"'
    plain = annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation
    origin = get_origin(plain) or plain
    is_enum = isinstance(origin, type) and issubclass(origin, enum.Enum)
    if origin is Literal or is_enum:
        first = word_of(next(iter(origin))) if is_enum else get_args(plain)[0]
        return f'"{first}"' if isinstance(first, str) else str(first).lower()
    return _EXAMPLES.get(origin)


_EXAMPLES: Final[dict[object, str]] = {
    str: '"..."',
    Path: '"..."',
    bool: "true",
    dict: "{ ... }",
    list: "[...]",
    tuple: "[...]",
    ByteSize: '"256 KiB"',
    Duration: '"30 s"',
}


def _check_fields(cls: type, keys: _Keys, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what the converters and validators of single fields have to say.

    The class itself would stop at the first, and not tell which field it is about.
    """
    # A stand-in for the object, as there is none: validators may look at other fields.
    shell: Any = object.__new__(cls)
    with contextlib.suppress(AttributeError, TypeError):
        for key, field in keys.fields.items():
            default = field.default
            if isinstance(default, attrs.Factory) and not default.takes_self:  # type: ignore[arg-type]
                default = default.factory()
            if key in values or not isinstance(default, (type(attrs.NOTHING), attrs.Factory)):  # type: ignore[arg-type]
                object.__setattr__(shell, field.name, values.get(key, default))
    attributes = attrs.fields_dict(cls) if attrs.has(cls) else {}
    for name, value in values.items():
        field = keys.fields[name]
        try:
            if callable(field.converter):
                value = field.converter(value)  # noqa: PLW2901
            if field.validator is not None:
                field.validator(shell, attributes[field.name], value)
        except AttributeError:
            continue  # It looks at a field that has problems of its own.
        except Exception as error:  # noqa: BLE001 - a validator may raise anything
            yield from (problem.under(keys.written[name]) for problem in problems_of(error, field.name))


def problems_of(error: Exception, field: str | None = None) -> list[Problem]:
    """Return what is wrong with a value by the error that it led to. *field*: whose validator raised it."""
    match error:
        case ProblemsError():
            return error.problems
        case InvalidValueError():
            return [Problem("wrong-value", error.under, error.message, error.hint, part=error.part)]
        case StructureHandlerNotFoundError():
            message = f"this key asks for a `{error.type_!r}`, which no config can have"
            return [Problem("wrong-value", (), message, "the fault is in the plugin: tell its authors")]
        case BaseValidationError():
            return [
                p for inner in error.exceptions if isinstance(inner, Exception) for p in problems_of(inner)
            ]
        case ValueError() | TypeError() if error.args and isinstance(error.args[0], str):
            # The validators of attrs name the field, which the problem's path does already.
            message = re.sub(rf"^'{field}' (?=must )", "", error.args[0]) if field else error.args[0]
            message = re.sub(r"^(must be [<>]=? .*): (.*)$", r"\1, found \2", message)
            return [Problem("wrong-value", (), message)]
        case _:
            return [Problem("wrong-value", (), describe(error))]
