"""The JSON Schema of compositions, made of what is installed: completion, docs and checks in an editor.

It says no to what an editor can know to be wrong, and never to what castore accepts. References to nothing,
cycles and URLs are for `castore check`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from castore.composition.config.fields import describe_fields, summary_of, toml
from castore.composition.config.settings import DocumentSettings
from castore.composition.config.shapes import ANY, Shape
from castore.composition.config.values import _DURATION_UNITS, _SIZE_UNITS, Between
from castore.composition.graph.declarations import TABLES_OF_OTHERS
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# A string may have `${NAME}` anywhere; what that stands for is not for a schema to say.
_VARIABLE: Final = r"\$\{[A-Za-z_][A-Za-z0-9_]*(\}|:-)"
# Without `properties`: editors would offer `.file` at every string.
_SECRET_FILE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "maxProperties": 1,
    "additionalProperties": {"type": "string"},
}


def schema_of(registry: Registry, tables: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of compositions with the types in *registry*.

    With the *tables* of a composition, which may be half written, it is a schema for that one: each instance
    has the keys of its type and no others, and references are completed by the names that there are.
    """
    builder = _Builder(registry, tables or {})
    kinds = {kind.table: builder.table(kind) for kind in registry.kinds.values()}
    others = {
        table: {"description": "Read by other tools; castore leaves it be."} for table in TABLES_OF_OTHERS
    }
    return {
        "$schema": DIALECT,
        "title": "castore composition",
        "description": "A stack of content-addressed blob stores.",
        "type": "object",
        "properties": {**builder.settings(), **kinds, **others},
        "additionalProperties": False,
        "anyOf": [{"required": [table]} for table in kinds],
        "$defs": dict(sorted(builder.definitions.items())),
    }


class _Builder:
    def __init__(self, registry: Registry, tables: Mapping[str, object]) -> None:
        self._registry = registry
        self._tables = {
            kind.table: entries
            for kind in registry.kinds.values()
            if isinstance(entries := tables.get(kind.table), Mapping)
        }
        self.definitions: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """Return the schemas of the keys above the tables."""
        properties: dict[str, Any] = self._object(DocumentSettings)["properties"]
        return properties

    def table(self, kind: Kind) -> dict[str, Any]:
        """Return the schema of the table of one kind."""
        types = list(self._registry.types(kind).values())
        schema: dict[str, Any] = {
            "description": f"The {kind.label}s by name; `root` is used unless another is named."
            + ("" if types else " No type of them is installed."),
            "type": "object",
            "required": ["root"],
            "additionalProperties": self._instance(kind, types) if types else False,
        }
        places = {entry.tag: f"#/$defs/{_escaped(_name(entry))}" for entry in types}
        tags = {
            name: str(table.get("type"))
            for name, table in self._tables.get(kind.table, {}).items()
            if isinstance(table, Mapping)
        }
        named = {name: {"$ref": places[tag]} for name, tag in tags.items() if tag in places}
        return {**schema, "properties": named} if named else schema

    def _reference(self, contract: type | None) -> dict[str, Any]:
        """Return the schema of a reference: to one of the instances that there are, if these are known."""
        schema = copy.deepcopy(_LEAVES["reference"])
        kinds = [kind for kind in self._registry.kinds.values() if contract in {kind.contract, None}]
        names = [f"&{name}" for kind in kinds for name in self._tables.get(kind.table, {})]
        if not names:
            return schema
        url = {"type": "string", "pattern": f"{_URL}|^&?{_VARIABLE}", "examples": _URLS, **_said(_NAMED)}
        return {**schema, "anyOf": [{"enum": names, **_said(_NAMED)}, url, _SECRET_FILE], "examples": names}

    def _instance(self, kind: Kind, types: list[RegisteredType]) -> dict[str, Any]:
        for entry in types:
            self.definitions[_name(entry)] = self._type(entry)
        tag = {
            "description": "\n\n".join(f"`{entry.tag}`: {summary_of(entry.config)}" for entry in types),
            "enum": [entry.tag for entry in types],
        }
        return {
            "description": f"A {kind.label}.",
            "type": "object",
            "required": ["type"],
            "allOf": [
                # Taplo overlooks it beside `allOf`, but not in it.
                {"properties": {"type": tag, **self._hints(types)}},
                # Not `oneOf`: so a validator speaks of the type that is meant, and of no other.
                *(
                    {
                        "if": {"properties": {"type": {"const": entry.tag}}, "required": ["type"]},
                        "then": {"$ref": f"#/$defs/{_escaped(_name(entry))}"},
                    }
                    for entry in types
                ),
            ],
        }

    def _hints(self, types: list[RegisteredType]) -> dict[str, Any]:
        """Return what there is to know of each key; it forbids nothing.

        Taplo completes and explains keys by these alone: it does not look behind `if`.
        """
        hints: dict[str, Any] = {}
        for entry in types:
            for name, schema in self.definitions[_name(entry)]["properties"].items():
                if name != "type":
                    _add_hint(hints.setdefault(name, {}), entry.tag, schema)
        return hints

    def _type(self, entry: RegisteredType) -> dict[str, Any]:
        schema = self._object(entry.config)
        tag = {"const": entry.tag, "description": f"From {entry.owner}."}
        schema["properties"] = {"type": tag, **schema["properties"]}
        schema["required"] = ["type", *schema["required"]]
        return schema

    def _object(self, config: type) -> dict[str, Any]:
        fields = describe_fields(config, self._registry)
        properties = {}
        for field in fields:
            properties[field.name] = self.value(field.shape)
            if field.doc:
                properties[field.name]["description"] = field.doc
            if field.default is not None:
                properties[field.name]["default"] = field.default
        return {
            "description": summary_of(config),
            "type": "object",
            "properties": properties,
            "required": [field.name for field in fields if field.required],
            "additionalProperties": False,
        }

    def value(self, shape: Shape) -> dict[str, Any]:
        """Return the schema of the values of a shape."""
        match shape.name:
            case "union":
                schema: dict[str, Any] = {"anyOf": [self.value(part) for part in shape.parts]}
            case "array":
                schema = {"type": "array", "items": self.value(shape.parts[0] if shape.parts else ANY)}
            case "table":
                inner = self.value(shape.parts[0] if shape.parts else ANY)
                schema = {"type": "object", "additionalProperties": inner}
            case "object" if shape.cls is not None:
                schema = self._nested(shape.cls)
            case "choice":
                schema = _choice(shape.choices)
            case "reference":
                schema = self._reference(shape.cls)
            case "chunker":
                schema = _choice(sorted(self._registry.chunkers))
            case name:
                # What is shared must not be changed.
                schema = copy.deepcopy(_LEAVES.get(name, {}))
        return schema if shape.bounds is None else _bounded(schema, shape.bounds)

    def _nested(self, config: type) -> dict[str, Any]:
        name = f"{config.__module__}.{config.__qualname__}"
        if name not in self.definitions:
            self.definitions[name] = {}  # It may hold itself.
            self.definitions[name] = self._object(config)
        return {"$ref": f"#/$defs/{_escaped(name)}"}


def _add_hint(hint: dict[str, Any], tag: str, schema: dict[str, Any]) -> None:
    line = f"`{tag}`: {schema.get('description', '')}".rstrip(": ")
    hint["description"] = f"{hint['description']}\n\n{line}" if "description" in hint else line
    for key in ("default", "examples"):
        if key in schema:
            hint[key] = schema[key]
    for part in schema.get("anyOf", [schema]):
        if "enum" in part:
            hint["anyOf"] = [{"enum": part["enum"]}, {}]


def _name(entry: RegisteredType) -> str:
    return f"{entry.kind.table}.{entry.tag}"


def _escaped(name: str) -> str:
    return (
        name.replace("~", "~0").replace("/", "~1").replace("%", "%25").replace("<", "%3C").replace(">", "%3E")
    )


def _said(words: str) -> dict[str, Any]:
    """Return what editors show in the place of a regular expression that does not match."""
    return {"errorMessage": words, "patternErrorMessage": words}


def _string(pattern: str | None = None, words: str = "") -> list[dict[str, Any]]:
    schema: dict[str, Any] = {"type": "string"}
    if pattern is not None:
        schema |= {"pattern": f"{pattern}|{_VARIABLE}", **_said(words)}
    return [schema, _SECRET_FILE]


def _variable(words: str) -> dict[str, Any]:
    return {"type": "string", "pattern": _VARIABLE, **_said(words)}


def _quantity(units: Iterable[str], words: str) -> list[dict[str, Any]]:
    return _string(rf"^\s*\+?\d[\d_]*(\.\d+)?\s*({'|'.join(units)})?\s*$", words)


def _plain(schema: dict[str, Any], words: str) -> dict[str, Any]:
    return {"anyOf": [schema, _variable(words), _SECRET_FILE]}


def _choice(values: Sequence[Any]) -> dict[str, Any]:
    shown = " or ".join(map(toml, values))
    return {"anyOf": [{"enum": list(values)}, _variable(f"write {shown}"), _SECRET_FILE]}


_URL: Final = "^[A-Za-z][A-Za-z0-9+.-]*:"
_URLS: Final = ["memory:", "objectstore+file:./stores/archive"]
_REFERENCE: Final = "write `&name` for an instance, or a URL such as `objectstore+file:./stores/archive`"
_NAMED: Final = "no instance has this name; write the `&name` of one, or a URL"
_SIZE: Final = "write a number of bytes, or a number and a unit, such as `256 KiB`"
_DURATION: Final = "write a number and a unit, such as `30 s` or `250 ms`"


_LEAVES: Final[dict[str, dict[str, Any]]] = {
    "string": {"anyOf": _string()},
    "path": {"anyOf": _string()},
    "whole number": _plain({"type": "integer"}, "write a whole number"),
    "number": _plain({"type": "number"}, "write a number"),
    "boolean": _plain({"type": "boolean"}, "write true or false"),
    "size": {
        "anyOf": [{"type": "integer", "minimum": 0}, *_quantity(_SIZE_UNITS, _SIZE)],
        "examples": ["64 KiB", "10 GiB"],
    },
    "duration": {
        "anyOf": [{"type": "number", "minimum": 0}, *_quantity(_DURATION_UNITS, _DURATION)],
        "examples": ["250 ms", "30 s"],
    },
    "reference": {"anyOf": _string(f"^&.|{_URL}", _REFERENCE), "examples": ["&name", *_URLS]},
}


def _bounded(schema: dict[str, Any], bounds: Between) -> dict[str, Any]:
    """Put bounds on the numbers of a schema; the numbers in strings are for castore to check."""
    for part in schema.get("anyOf", [schema]):
        if part.get("type") in {"integer", "number"}:
            part.update(minimum=bounds.low, maximum=bounds.high)
    return schema
