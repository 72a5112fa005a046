"""From tables to config objects: `cattrs` with castore's own types, and its errors made into problems."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal, TypeAlias, cast, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    list_structure_factory,
    mapping_structure_factory,
)
from cattrs.errors import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    StructureHandlerNotFoundError,
)
from cattrs.gen import make_dict_structure_fn

from castore.chunking import Chunker
from castore.composition.problems import Problem, did_you_mean, listing
from castore.composition.refs import Ref, check_reference
from castore.composition.registry import Registry
from castore.composition.spans import Path
from castore.composition.values import Between, ByteSize, Duration, kind_of, parse_duration, parse_size
from castore.errors import describe

Hook: TypeAlias = Callable[[object, object], Any]

FORMERLY: Final = "castore_formerly"


def formerly(*names: str) -> dict[str, tuple[str, ...]]:
    """Return the metadata of a config field that had other names: `attrs.field(metadata=formerly("local"))`."""
    return {FORMERLY: names}


class ConfigStructurer:
    """Makes config objects from tables, strictly: no value is coerced, no unknown key is passed over."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
        self._add_hooks(self._converter)

    def structure(self, table: Mapping[str, object], config: type, path: Path) -> tuple[Any, list[Problem]]:
        """Return the config object for *table*, or `None` and the problems that it has."""
        try:
            return self._converter.structure(table, config), []
        except BaseValidationError as error:
            return None, _Explainer(path).explain(error, config, ())
        except Exception as error:  # noqa: BLE001 - a constructor may raise anything; it is the value's fault
            return None, [Problem("wrong-value", path, _reason(error))]

    def structure_field(self, value: object, field: attrs.Attribute[Any]) -> tuple[Any, bool]:
        """Return the value of one field alone, and whether it has problems."""
        try:
            return self._converter.structure(value, cast("Any", field.type)), False
        except Exception:  # noqa: BLE001 - as above
            return None, True

    def _add_hooks(self, converter: cattrs.Converter) -> None:
        for kind, words in (
            (str, "a string"),
            (int, "a whole number"),
            (float, "a number"),
            (bool, "true or false"),
        ):
            converter.register_structure_hook(kind, _strict(kind, words))
        converter.register_structure_hook(
            FilePath, lambda value, _: FilePath(_strict(str, "a path")(value, str))
        )
        converter.register_structure_hook_func(lambda t: t is ByteSize, lambda value, _: parse_size(value))
        converter.register_structure_hook_func(
            lambda t: t is Duration, lambda value, _: parse_duration(value)
        )
        converter.register_structure_hook_func(_is_ref, _structure_ref)
        converter.register_structure_hook_func(_is_literal, _structure_literal)
        converter.register_structure_hook_func(
            lambda t: isinstance(t, type) and issubclass(t, enum.Enum), _structure_enum
        )
        converter.register_structure_hook_func(lambda t: t == type[Chunker], self._structure_chunker)
        for applies, make in (
            (_is_array, _array_hook),
            (_is_table, _table_hook),
            (_is_attrs, _attrs_hook),
            (_has_bounds, _bounded_hook),
        ):
            converter.register_structure_hook_factory(applies, partial(make, converter=converter))

    def _structure_chunker(self, value: object, _: object) -> type[Chunker]:
        chunkers = self._registry.chunkers
        tag = _strict(str, "the name of a chunker")(value, str)
        if tag not in chunkers:
            raise ValueError(f"unknown chunker {tag!r}; {did_you_mean(tag, chunkers) or _known(chunkers)}")
        return chunkers[tag]


def _known(words: Iterable[str]) -> str:
    return f"expected one of {listing(words)}"


def _strict(kind: type, words: str) -> Hook:
    def check(value: object, _: object) -> Any:
        right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not right:
            raise ValueError(f"expected {words}, found {kind_of(value)}")
        return value

    return check


def _is_ref(annotation: Any) -> bool:
    return annotation is Ref or get_origin(annotation) is Ref


def _is_literal(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _structure_ref(value: object, annotation: Any) -> Ref[Any]:
    if not isinstance(value, str):
        raise ValueError(f'expected a reference such as "&name" or a URL, found {kind_of(value)}')  # noqa: TRY004
    check_reference(value)
    kinds = get_args(annotation)
    return Ref(value, kinds[0] if kinds else None)


def _structure_literal(value: object, annotation: Any) -> object:
    allowed = get_args(annotation)
    for choice in allowed:
        if type(choice) is type(value) and choice == value:
            return choice
    return _refuse_choice(value, [str(choice) for choice in allowed])


def _structure_enum(value: object, annotation: Any) -> object:
    for member in annotation:
        if member.value == value:
            return member
    return _refuse_choice(value, [str(member.value) for member in annotation])


def _refuse_choice(value: object, allowed: list[str]) -> object:
    suggestion = did_you_mean(value, allowed) if isinstance(value, str) else None
    raise ValueError(
        f"expected one of {listing(allowed)}, found {kind_of(value)}"
        + (f"; {suggestion}" if suggestion else "")
    )


def _is_array(annotation: Any) -> bool:
    return get_origin(annotation) is list or (
        get_origin(annotation) is tuple and get_args(annotation)[-1:] == (...,)
    )


def _array_hook(annotation: Any, converter: cattrs.Converter) -> Hook:
    """Refuse a string where an array belongs: cattrs would take it for an array of letters."""
    factory = list_structure_factory if get_origin(annotation) is list else homogenous_tuple_structure_factory
    return _checked((list, tuple), "an array", factory(annotation, converter))


def _is_table(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _table_hook(annotation: Any, converter: cattrs.Converter) -> Hook:
    return _checked(Mapping, "a table", mapping_structure_factory(annotation, converter))


def _checked(shape: type | tuple[type, ...], words: str, inner: Callable[..., Any]) -> Hook:
    def check(value: object, annotation: object) -> Any:
        if not isinstance(value, shape):
            raise ValueError(f"expected {words}, found {kind_of(value)}")  # noqa: TRY004
        return inner(value, annotation)

    return check


def _is_attrs(annotation: Any) -> bool:
    return isinstance(annotation, type) and attrs.has(annotation)


def _attrs_hook(annotation: Any, converter: cattrs.Converter) -> Hook:
    inner = make_dict_structure_fn(
        annotation, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )
    return _checked(Mapping, "a table", inner)


def _has_bounds(annotation: Any) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(a, Between) for a in annotation.__metadata__
    )


def _bounded_hook(annotation: Any, converter: cattrs.Converter) -> Hook:
    bounds = [entry for entry in annotation.__metadata__ if isinstance(entry, Between)]

    def check(value: object, _: object) -> Any:
        structured = converter.structure(value, annotation.__origin__)
        for bound in bounds:
            bound.check(structured)
        return structured

    return check


class _Explainer:
    """Turns the group of errors that cattrs raises into problems with paths."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def explain(self, error: BaseException, owner: Any, path: Path) -> list[Problem]:
        if isinstance(error, ClassValidationError):
            located, others = error.group_exceptions()
            problems = [
                problem
                for inner, note in located
                for problem in self._explain_field(inner, error.cl, note.name, path)
            ]
            return problems + [p for inner in others for p in self.explain(inner, error.cl, path)]
        if isinstance(error, IterableValidationError):
            noted, others = error.group_exceptions()
            problems = [
                p for inner, note in noted for p in self.explain(inner, note.type, (*path, note.index))
            ]
            return problems + [p for inner in others for p in self.explain(inner, owner, path)]
        if isinstance(error, ForbiddenExtraKeysError):
            return [self._unknown_key(name, owner, path) for name in sorted(error.extra_fields)]
        return [self._wrong_value(error, owner, path)]

    def _explain_field(self, error: BaseException, owner: type, name: str, path: Path) -> list[Problem]:
        if isinstance(error, KeyError) and error.args == (name,):
            field = attrs.fields_dict(owner)[name]
            hint = _example(field)
            return [Problem("missing-key", self._at(path), f"the key `{name}` is missing", hint, at="key")]
        return self.explain(error, owner, (*path, name))

    def _unknown_key(self, name: str, owner: type, path: Path) -> Problem:
        fields = attrs.fields_dict(owner)
        for field in fields.values():
            if name in field.metadata.get(FORMERLY, ()):
                hint = f"`{name}` is the old name: write `{field.name}`"
                return Problem("old-name", self._at((*path, name)), f"unknown key `{name}`", hint, at="key")
        hint = did_you_mean(name, fields) or (
            f"the keys here are {listing(fields)}" if fields else "there are no keys here beside `type`"
        )
        return Problem("unknown-key", self._at((*path, name)), f"unknown key `{name}`", hint, at="key")

    def _wrong_value(self, error: BaseException, owner: Any, path: Path) -> Problem:
        field = _field_of(error, owner)
        if field is not None:
            path = (*path, field)
        message, _, hint = _reason(error).partition("; ")
        return Problem("wrong-value", self._at(path), message, hint or None)

    def _at(self, path: Path) -> Path:
        return (*self._root, *path)


def _field_of(error: BaseException, owner: Any) -> str | None:
    """Return the field that an error of an `attrs` validator is about: it names it, or carries it."""
    if not _is_attrs(owner):
        return None
    for argument in error.args:
        if isinstance(argument, attrs.Attribute):
            return argument.name
    quoted = re.match(r"'(\w+)' must ", str(error.args[0]) if error.args else "")
    return quoted[1] if quoted and quoted[1] in attrs.fields_dict(owner) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, StructureHandlerNotFoundError):
        return f"castore cannot read a value of type {error.type_!r}"
    if isinstance(error, (ValueError, TypeError)) and error.args:
        return str(error.args[0])
    return describe(error)


def _example(field: Any) -> str | None:
    """Return what a missing key could look like."""
    if _is_ref(field.type):
        return f'write `{field.name} = "&name"`'
    return None
