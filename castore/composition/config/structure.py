"""From values of TOML to what config classes ask for: `cattrs` with castore's own types, and strict."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import attrs
import cattrs

from castore.composition.config.classes import is_table_class
from castore.composition.config.refs import Ref, check_reference, is_ref
from castore.composition.config.shapes import word_of
from castore.composition.config.tables import FORMERLY, Reading, formerly, problems_of, read_table
from castore.composition.config.values import (
    Between,
    ByteSize,
    Duration,
    WrongTypeError,
    expected,
    parse_duration,
    parse_plain,
    parse_size,
)
from castore.format.chunking import BUNDLED_CHUNKERS, Chunker
from castore.places import expand_user
from castore.problems import (
    InvalidValueError,
    Problem,
    ProblemsError,
    did_you_mean,
    escaped,
    toml_string,
)
from castore.secrets import Secret, SecretPath, Untyped, scrub

__all__ = ["FORMERLY", "ConfigStructurer", "Reading", "formerly"]

Hook: TypeAlias = Callable[[Any, Any], Any]

_ARRAYS: Final[dict[object, type]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
_TABLES: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class ConfigStructurer:
    """Makes config objects from tables, strictly: no value is coerced, no unknown key is passed over.

    Only an `Untyped` text is read as what the field asks for.

    Arguments:
        chunkers: Those that a field may name.
        contested: Those that it may not, and why.
    """

    def __init__(
        self,
        chunkers: Mapping[str, type[Chunker]] = BUNDLED_CHUNKERS,
        contested: Mapping[str, str] | None = None,
    ) -> None:
        self._chunkers = chunkers
        self._contested = contested or {}
        self._read_as_plain: dict[int, Untyped] = {}
        self._converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
        self._add_hooks(self._converter)

    def read(self, table: Mapping[str, object], config: type) -> Reading:
        """Read *table* as an object of the class *config*."""
        return read_table(table, config, self._converter.structure, beside="type")

    def is_plain(self, text: Untyped) -> bool:
        """Tell whether *text* was read as a number, a word of a choice or the like, which keeps no secret."""
        return id(text) in self._read_as_plain

    def _plain(self, text: Untyped, value: Any) -> Any:
        self._read_as_plain[id(text)] = text  # While it is kept here, no other has its number.
        return value

    def _add_hooks(self, converter: cattrs.Converter) -> None:
        # Of two hooks that apply, the one added last is used.
        plain: dict[type, Hook] = {kind: self._strict(kind, words) for kind, words in _PLAIN.items()}
        plain |= {str: _structure_string, bytes: _refuse_bytes, FilePath: _structure_path}
        for kind, hook in plain.items():
            converter.register_structure_hook(kind, self._exact(kind, hook))
        converter.register_structure_hook(enum.Enum, self._structure_enum)
        hooks: tuple[tuple[Callable[[Any], bool], Hook], ...] = (
            (lambda t: t is ByteSize, self._quantity(parse_size)),
            (lambda t: t is Duration, self._quantity(parse_duration)),
            (is_ref, _structure_ref),
            (lambda t: get_origin(t) is Literal, self._structure_literal),
            (lambda t: t == type[Chunker], self._structure_chunker),
            (lambda t: (get_origin(t) or t) in _ARRAYS, self._structure_array),
            (lambda t: (get_origin(t) or t) in _TABLES, self._structure_table),
            (is_table_class, self._structure_class),
            (lambda t: get_origin(t) in {Union, types.UnionType}, self._structure_union),
            (_has_bounds, self._structure_bounded),
        )
        for applies, hook in hooks:
            converter.register_structure_hook_func(applies, hook)

    def _strict(self, kind: type, words: str) -> Hook:
        def structure(value: object, _: object) -> Any:
            # A boolean is an integer for Python, and a date and time a date, but not for who writes a config.
            if type(value) is kind:
                return value
            if kind is float and type(value) is int:
                return _as_float(value)
            if isinstance(value, Untyped):
                found = parse_plain(value, kind)
                if found is not None:
                    return self._plain(value, found)
            raise expected(words, value, _hint(kind, value))

        return structure

    def _quantity(self, parse: Callable[[object], Any]) -> Hook:
        def structure(value: object, _: object) -> Any:
            found = parse(value)
            return self._plain(value, found) if isinstance(value, Untyped) else found

        return structure

    def _structure_literal(self, value: object, annotation: Any) -> object:
        return self._choose(value, [(choice, choice) for choice in get_args(annotation)])

    def _structure_enum(self, value: object, annotation: Any) -> object:
        return self._choose(value, [(word_of(member), member) for member in annotation])

    def _choose(self, value: object, choices: Sequence[tuple[Any, object]]) -> object:
        for choice, meaning in choices:
            if isinstance(value, Untyped):
                if value == (choice if isinstance(choice, str) else _toml(choice)):
                    return self._plain(value, meaning)
            # 1 is not True here.
            elif choice == value and type(choice) is type(value):
                return meaning
        words = ", ".join(_toml(choice) for choice, _ in choices)
        words = " or ".join(words.rsplit(", ", 1))
        suggestion = _STANDS_FOR if isinstance(value, Secret) else None
        if isinstance(value, str) and not isinstance(value, Secret):
            suggestion = did_you_mean(value, [choice for choice, _ in choices if isinstance(choice, str)])
        raise expected(words, value, suggestion)

    def _structure_chunker(self, value: object, _: object) -> type[Chunker]:
        chunkers = self._chunkers
        if not isinstance(value, str):
            raise expected("the name of a chunker", value)
        if value in self._contested:
            raise InvalidValueError(*self._contested[value].rsplit("; ", 1))
        if value not in chunkers:
            hint = did_you_mean(value, chunkers) or _the("chunkers", chunkers)
            raise InvalidValueError(f"unknown chunker {toml_string(value)}", hint)
        found = chunkers[value]
        return self._plain(value, found) if isinstance(value, Untyped) else found

    def _structure_class(self, value: object, annotation: Any) -> Any:
        if not isinstance(value, Mapping):
            raise expected("a table", value)
        reading = read_table(value, annotation, self._converter.structure)
        if reading.problems:
            raise ProblemsError(reading.problems, reading.by_key)
        return reading.config

    def _exact(self, kind: type, hook: Hook) -> Hook:
        """Return *hook*, which is for *kind*, for the classes that are made of it as well."""

        def structure(value: object, annotation: Any) -> Any:
            if annotation is kind:
                return hook(value, annotation)
            # An enum may be made of strings, or of numbers.
            if issubclass(annotation, enum.Enum):
                return self._structure_enum(value, annotation)
            return annotation(hook(value, kind))

        return structure

    def _structure_array(self, value: object, annotation: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            single = isinstance(value, (str, int, float)) and not isinstance(value, Untyped)
            hint = f"for an array of one write `[{_toml(value)}]`" if single else None
            raise expected("an array", value, hint)
        origin, kinds = get_origin(annotation) or annotation, get_args(annotation) or (Any,)
        if origin is tuple and kinds[-1] is not ... and get_args(annotation):
            if len(value) != len(kinds):
                raise InvalidValueError(f"expected an array of {len(kinds)}, found one of {len(value)}")
        else:
            kinds = (kinds[0],) * len(value)
        return _ARRAYS[origin](self._each(zip(range(len(value)), value, kinds, strict=True)).values())

    def _structure_table(self, value: object, annotation: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise expected("a table", value)
        key_kind, value_kind = get_args(annotation) or (Any, Any)
        problems: list[Problem] = []
        keys: dict[Any, Any] = {}
        try:
            keys = self._each((key, _number_key(key, key_kind), key_kind) for key in value)
        except ProblemsError as error:
            problems += (attrs.evolve(problem, at="key") for problem in error.problems)
        try:
            values = self._each((key, item, value_kind) for key, item in value.items())
        except ProblemsError as error:
            raise ProblemsError([*problems, *error.problems], error.partial) from None
        if problems:
            raise ProblemsError(problems, values)
        return {keys[key]: item for key, item in values.items()}

    def _each(self, items: Iterable[tuple[Any, object, Any]]) -> dict[Any, Any]:
        """Read values with their keys and types; all that is wrong is raised together."""
        read: dict[Any, Any] = {}
        problems: list[Problem] = []
        for key, value, annotation in items:
            try:
                read[key] = self._converter.structure(value, annotation)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the value's fault
                problems += [problem.under(key) for problem in problems_of(error)]
                if isinstance(error, ProblemsError) and error.partial:
                    read[key] = error.partial
        if problems:
            raise ProblemsError(problems, read)
        return read

    def _structure_union(self, value: object, annotation: Any) -> Any:
        members = [member for member in get_args(annotation) if member is not type(None)]
        if value is None and len(members) < len(get_args(annotation)):
            return None
        words, other = [], None
        for member in members:
            try:
                return self._converter.structure(value, member)
            except WrongTypeError as error:
                words.append(error)
            except Exception as error:  # noqa: BLE001 - it is raised if no member fits
                other = other or error
        if other is not None:
            raise other
        raise words[0] if len(words) == 1 else expected(" or ".join(error.words for error in words), value)

    def _structure_bounded(self, value: object, annotation: Any) -> Any:
        structured = self._converter.structure(value, annotation.__origin__)
        for bound in annotation.__metadata__:
            if isinstance(bound, Between) and structured is not None:
                unit = {ByteSize: " bytes", Duration: " seconds"}.get(annotation.__origin__, "")
                bound.check(structured, found=_toml(value), unit=unit, secret=isinstance(value, Secret))
        return structured


_STANDS_FOR: Final = "so it is written; what it stands for is something else"

_PLAIN: Final[dict[type, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    datetime.datetime: "a date and time",
    datetime.date: "a date",
    datetime.time: "a time",
}


def _structure_string(value: object, _: object) -> str:
    if type(value) is Untyped:
        return str(value)
    if isinstance(value, str):
        return value
    raise expected("a string", value, _hint(str, value))


def _hint(kind: type, value: object) -> str | None:
    """Return how to write *value* so that it is of *kind*."""
    if kind is str:
        if isinstance(value, (int, float)):
            return f'put it in quotes: `"{_toml(value)}"`'
        is_file = isinstance(value, Mapping) and len(value) == 1
        return 'a string from a file is written `{ file = "path" }`' if is_file else None
    if isinstance(value, Untyped):
        return _STANDS_FOR if isinstance(value, Secret) else None
    if kind is bool and isinstance(value, (int, float)) and value in {0, 1}:
        return f"write `{'true' if value else 'false'}`"
    wanted = "true|false" if kind is bool else "-?(0|[1-9][0-9]{0,17})"
    if kind in {bool, int, float} and isinstance(value, str) and re.fullmatch(wanted, value.lower()):
        return f"leave the quotes out: `{value.lower()}`"
    return None


def _toml(value: object) -> str:
    if isinstance(value, str):
        return toml_string(value)
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidValueError("this number is too large") from None


def _structure_path(value: object, _: object) -> FilePath:
    if not isinstance(value, str):
        raise expected("a path", value)
    if "\0" in value:
        raise InvalidValueError("a path cannot have a NUL character in it")
    if isinstance(value, Secret):
        return SecretPath.of(value)
    try:
        return FilePath(expand_user(value))
    except OSError:
        return FilePath(value)  # Nobody knows that home, which is told to who needs it.


def _structure_ref(value: object, annotation: Any) -> Ref[Any]:
    if not isinstance(value, str):
        raise expected('a reference such as "&name", or a URL', value)
    check_reference(value)
    kinds = get_args(annotation)
    return Ref(value, kinds[0] if kinds else None)


def _refuse_bytes(_: object, __: object) -> Any:
    raise InvalidValueError("this key asks for bytes, which no config can have", "the fault is in the plugin")


def _number_key(key: object, kind: Any) -> object:
    """Return a key as a number if numbers are asked for: TOML has only strings as keys."""
    numeric = kind is int and isinstance(key, str) and re.fullmatch(r"[0-9]{1,18}", key)
    return int(str(key)) if numeric else key


def _has_bounds(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(entry, Between) for entry in annotation.__metadata__
    )


def _the(words: str, names: Iterable[str]) -> str:
    return f"the {words} are {', '.join(f'`{escaped(name)}`' for name in sorted(names))}"


def scrubbed(problem: Problem, secrets: Sequence[str]) -> Problem:
    """Return *problem* without *secrets* in its words."""
    if not secrets:
        return problem
    hint = None if problem.hint is None else scrub(problem.hint, secrets)
    part = problem.part if scrub(problem.part, secrets) == problem.part else ""
    return attrs.evolve(problem, message=scrub(problem.message, secrets), hint=hint, part=part)
