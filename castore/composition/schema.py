"""The JSON Schema of compositions, made of what is installed: completion, docs and checks in an editor.

It says no to what an editor can know to be wrong, and never to what castore accepts. References to nothing,
cycles and URLs are for `castore check`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Final

from castore.composition.config.fields import describe_fields, summary_of
from castore.composition.config.settings import DocumentSettings
from castore.composition.config.shapes import ANY, Shape
from castore.composition.config.values import _DURATION_UNITS, _SIZE_UNITS, Between
from castore.composition.graph.declarations import TABLES_OF_OTHERS
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# A string may have `${NAME}` anywhere; what that stands for is not for a schema to say.
_VARIABLE: Final = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
# Without `properties`: editors would offer `.file` at every string.
_SECRET_FILE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "maxProperties": 1,
    "additionalProperties": {"type": "string"},
}


def schema_of(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of compositions with the types in *registry*."""
    builder = _Builder(registry)
    tables = {kind.table: builder.table(kind) for kind in registry.kinds.values()}
    others = {
        table: {"description": "Read by other tools; castore leaves it be."} for table in TABLES_OF_OTHERS
    }
    return {
        "$schema": DIALECT,
        "title": "castore composition",
        "description": "A stack of content-addressed blob stores.",
        "type": "object",
        "properties": {**builder.settings(), **tables, **others},
        "additionalProperties": False,
        "anyOf": [{"required": [table]} for table in tables],
        "$defs": dict(sorted(builder.definitions.items())),
    }


class _Builder:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.definitions: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """Return the schemas of the keys above the tables."""
        properties: dict[str, Any] = self._object(DocumentSettings)["properties"]
        return properties

    def table(self, kind: Kind) -> dict[str, Any]:
        """Return the schema of the table of one kind."""
        types = list(self._registry.types(kind).values())
        return {
            "description": f"The {kind.label}s by name; `root` is used unless another is named."
            + ("" if types else " No type of them is installed."),
            "type": "object",
            "required": ["root"],
            "additionalProperties": self._instance(kind, types) if types else False,
        }

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
    if "default" in schema:
        hint["default"] = schema["default"]
    for part in schema.get("anyOf", [schema]):
        if "enum" in part:
            hint["anyOf"] = [{"enum": part["enum"]}, {}]


def _name(entry: RegisteredType) -> str:
    return f"{entry.kind.table}.{entry.tag}"


def _escaped(name: str) -> str:
    return (
        name.replace("~", "~0").replace("/", "~1").replace("%", "%25").replace("<", "%3C").replace(">", "%3E")
    )


def _string(pattern: str | None = None) -> list[dict[str, Any]]:
    schema = (
        {"type": "string"} if pattern is None else {"type": "string", "pattern": f"{pattern}|{_VARIABLE}"}
    )
    return [schema, _SECRET_FILE]


def _quantity(units: Iterable[str]) -> list[dict[str, Any]]:
    return _string(rf"^\s*\+?\d[\d_]*(\.\d+)?\s*({'|'.join(units)})?\s*$")


def _choice(values: Sequence[Any]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(values)}, {"type": "string", "pattern": _VARIABLE}, _SECRET_FILE]}


_LEAVES: Final[dict[str, dict[str, Any]]] = {
    "string": {"anyOf": _string()},
    "path": {"anyOf": _string()},
    "whole number": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "size": {"anyOf": [{"type": "integer", "minimum": 0}, *_quantity(_SIZE_UNITS)]},
    "duration": {"anyOf": [{"type": "number", "minimum": 0}, *_quantity(_DURATION_UNITS)]},
    "reference": {"anyOf": _string(r"^&.|^[A-Za-z][A-Za-z0-9+.-]*:")},
}


def _bounded(schema: dict[str, Any], bounds: Between) -> dict[str, Any]:
    """Put bounds on the numbers of a schema; the numbers in strings are for castore to check."""
    for part in schema.get("anyOf", [schema]):
        if part.get("type") in {"integer", "number"}:
            part.update(minimum=bounds.low, maximum=bounds.high)
    return schema
