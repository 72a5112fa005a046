"""What the fields of a config class may be: enums of all sorts, bare references, dataclasses, aliases."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any

import attrs
import jsonschema
import pytest

from castore import BlobService, Composition, CompositionError, Ref, Registry
from castore.composition import Between, BuildContext, Secret
from castore.composition.config.fields import describe_fields
from castore.composition.schema import schema_of


class Mode(enum.StrEnum):
    FAST = "fast"
    SAFE = "safe"


class Old(str, enum.Enum):  # noqa: UP042 - as it was written before Python 3.11
    FAST = "fast"
    SAFE = "safe"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flat(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


class Odd(enum.Enum):
    """Values that TOML does not have: its members are written by their names."""

    LEFT = (0, 1)
    RIGHT = (1, 0)


class Name(str):
    """A string of somebody's own."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Point:
    """A dataclass in a config."""

    x: Annotated[int, Between(0, 9)]
    y: int = 0
    to: Ref | None = None  # type: ignore[type-arg] # of any kind
    names: list[str] = dataclasses.field(default_factory=list)


@attrs.frozen
class Shape:
    """A config with a field of each sort."""

    class Corner(enum.StrEnum):
        ROUND = "round"
        SHARP = "sharp"

    @attrs.frozen
    class Edge:
        corner: Shape.Corner
        width: int = 1

    @dataclasses.dataclass
    class Other:
        edge: Shape.Edge | None = None

    mode: Mode = Mode.SAFE
    old: Old = Old.SAFE
    level: Level = Level.LOW
    flat: Flat = Flat.SAFE
    odd: Odd = Odd.LEFT
    name: Name = Name("")  # noqa: RUF009 - a string
    modes: list[Mode] = attrs.field(factory=list)
    by_mode: dict[Mode, int] = attrs.field(factory=dict)
    either: Mode | int = 0
    bare: Ref | None = None  # type: ignore[type-arg] # of the kind of its owner
    refs: list[Ref] = attrs.field(factory=list)  # type: ignore[type-arg]
    point: Point | None = None
    points: list[Point] = attrs.field(factory=list)
    corner: Corner = Corner.ROUND
    edge: Edge | None = None
    other: Other | None = None
    _hidden: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    long_name: str = attrs.field(default="", alias="short")

    def build(self, name: str, context: BuildContext) -> BlobService:
        raise NotImplementedError


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(BlobService, "shape", Shape)
    return registry


def tables(**fields: Any) -> dict[str, Any]:
    return {"blobservices": {"root": {"type": "shape", **fields}, "other": {"type": "shape"}}}


READ = [
    ("mode", "fast", Mode.FAST),
    ("old", "fast", Old.FAST),
    ("level", 2, Level.HIGH),
    ("flat", "fast", Flat.FAST),
    ("odd", "RIGHT", Odd.RIGHT),
    ("name", "x", Name("x")),
    ("modes", ["fast", "safe"], [Mode.FAST, Mode.SAFE]),
    ("by_mode", {"fast": 1}, {Mode.FAST: 1}),
    ("either", "fast", Mode.FAST),
    ("either", 3, 3),
    ("bare", "&other", Ref("&other")),
    ("refs", ["&other"], [Ref("&other")]),
    ("point", {"x": 1, "to": "&other"}, Point(1, 0, Ref("&other"))),
    ("points", [{"x": 1}, {"x": 2, "y": 3}], [Point(1), Point(2, 3)]),
    ("corner", "sharp", Shape.Corner.SHARP),
    ("edge", {"corner": "sharp"}, Shape.Edge(Shape.Corner.SHARP)),
    ("other", {"edge": {"corner": "round"}}, Shape.Other(Shape.Edge(Shape.Corner.ROUND))),
    ("hidden", 3, 3),
    ("short", "x", "x"),
]
WRONG = [
    ("mode", "fsat", "mode", "did you mean `fast`?"),
    ("old", "fsat", "old", "did you mean `fast`?"),
    ("flat", "FAST", "flat", "did you mean `fast`?"),
    ("level", 3, "level", "expected 1 or 2, found the number 3"),
    ("level", True, "level", "expected 1 or 2, found true"),
    ("level", "HIGH", "level", "expected 1 or 2"),
    ("odd", "RIHGT", "odd", "did you mean `RIGHT`?"),
    ("name", 3, "name", "expected a string"),
    ("modes", ["fast", "slow"], "modes[1]", 'expected "fast" or "safe"'),
    ("by_mode", {"fsat": 1}, "by_mode.fsat", "did you mean `fast`?"),
    ("bare", "&othr", "bare", "did you mean `&other`?"),
    ("bare", "other", "bare", "the `&` is missing"),
    ("bare", {"text": "&other"}, "bare", "expected a reference"),
    ("refs", ["&other", "&othr"], "refs[1]", "did you mean `&other`?"),
    ("point", {}, "point", "the key `x` is missing"),
    ("point", {"x": 10}, "point.x", "expected 0 to 9"),
    ("point", {"x": 1, "z": 3}, "point.z", "unknown key `z`"),
    ("point", {"x": 1, "to": "&othr"}, "point.to", "did you mean `&other`?"),
    ("points", [{"x": 1}, {"x": "2"}], "points[1].x", "expected a whole number"),
    ("corner", "shrp", "corner", "did you mean `sharp`?"),
    ("edge", {"corner": "shrp"}, "edge.corner", "did you mean `sharp`?"),
    ("other", {"edge": {"corner": "shrp"}}, "other.edge.corner", "did you mean `sharp`?"),
    ("_hidden", 3, "_hidden", "unknown key `_hidden`; did you mean `hidden`?"),
    ("hidden", -1, "hidden", "must be >= 0"),
    ("long_name", "x", "long_name", "unknown key `long_name`"),
    ("sohrt", "x", "sohrt", "did you mean `short`?"),
]


@pytest.mark.parametrize(("field", "value", "read"), READ)
def test_a_field_is_read_as_what_it_is(field: str, value: Any, read: Any, registry: Registry) -> None:
    name = {"hidden": "_hidden", "short": "long_name"}.get(field, field)
    with Composition.from_mapping(tables(**{field: value}), registry=registry) as stores:
        found = getattr(stores.graph.instances["blobservices.root"].config, name)
    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(("field", "value", "where", "words"), WRONG)
def test_what_is_wrong_is_told_with_its_place(
    field: str, value: Any, where: str, words: str, registry: Registry
) -> None:
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping(tables(**{field: value}), registry=registry)
    (problem,) = caught.value.problems
    assert problem.dotted == f"blobservices.root.{where}"
    assert words in f"{problem.message}; {problem.hint}"


@pytest.mark.parametrize(("field", "value"), [row[:2] for row in READ if row[0] in {"bare", "refs", "point"}])
def test_a_reference_anywhere_is_an_edge(field: str, value: Any, registry: Registry) -> None:
    """Also a bare one, and one in a dataclass."""
    with Composition.from_mapping(tables(**{field: value}), registry=registry) as stores:
        edges = stores.graph.instances["blobservices.root"].edges
    assert [edge.target for edge in edges] == ([] if value == {"x": 1} else ["blobservices.other"])


def test_a_secret_in_a_dataclass_is_one(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "swordfish")
    with Composition.from_mapping(tables(point={"x": 1, "names": ["${TOKEN}"]}), registry=registry) as stores:
        config = stores.graph.instances["blobservices.root"].config
    assert isinstance(config.point.names[0], Secret)
    assert "swordfish" not in repr(config)


@pytest.mark.parametrize(("field", "value", "_read"), READ)
def test_the_schema_allows_it(field: str, value: Any, _read: Any, registry: Registry) -> None:
    jsonschema.validate(tables(**{field: value}), schema_of(registry))


def test_it_is_described_by_the_keys_of_a_table(registry: Registry) -> None:
    fields = {field.name: field for field in describe_fields(Shape, registry)}
    assert {"hidden", "short"} < fields.keys()
    assert (fields["mode"].default, fields["level"].default, fields["odd"].default) == ("safe", 1, "LEFT")
    assert fields["corner"].shape.choices == ("round", "sharp")
    assert type(fields["mode"].default) in {str, Mode}
