"""The JSON Schema says no to what an editor can know to be wrong, and never to what castore accepts."""

from __future__ import annotations

import copy
import enum
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from jsonschema import Draft202012Validator

from castore import BlobService, Composition, CompositionError, Ref, Registry
from castore.composition import Between, ByteSize, Duration
from castore.composition.schema import schema_of
from castore.format.chunking import Chunker, FastCdc2020

ROOT = Path(__file__).parents[2]


BYTE = ByteSize(1)
KIB = ByteSize(1024)
SECONDS = Duration(1.5)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Inner:
    """Something inside."""

    size: ByteSize = BYTE
    more: list[Inner] = attrs.field(factory=list)


@attrs.frozen
class Everything:
    """A config with a field of each sort.

    In two paragraphs.
    """

    text: str
    """What it says."""
    number: int = 1
    ratio: float = 0.5
    flag: bool = True
    path: Path = Path("x")
    size: Annotated[ByteSize, Between(512, 4096)] = KIB
    time: Duration = SECONDS
    level: Annotated[int, Between(-7, 22)] = 3
    ref: Ref[BlobService] | None = None
    refs: tuple[Ref[BlobService], ...] = ()
    choice: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    chunker: type[Chunker] = FastCdc2020
    names: list[str] = attrs.field(factory=lambda: ["x"])
    sizes: dict[str, ByteSize] = attrs.field(factory=dict)
    anything: dict[str, Any] = attrs.field(factory=dict)
    inner: Inner = attrs.field(factory=Inner)
    hidden: int = attrs.field(default=0, init=False)

    def build(self, name: str, context: Any) -> BlobService:
        raise NotImplementedError


def registry() -> Registry:
    made = Registry.default()
    made.register(BlobService, "everything", Everything)
    return made


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return schema_of(registry())


def accepts(schema: dict[str, Any], composition: dict[str, Any]) -> bool:
    return bool(Draft202012Validator(schema).is_valid(composition))


def with_everything(**fields: Any) -> dict[str, Any]:
    return {"blobservices": {"root": {"type": "everything", "text": "", **fields}, "b": {"type": "memory"}}}


def test_is_a_schema_itself(schema):
    """Of the draft that it names."""
    Draft202012Validator.check_schema(schema)

    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def examples() -> dict[str, str]:
    """The compositions of the repository: files, and the examples in the docs of plugins."""
    found = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in [ROOT / "composition.toml", *ROOT.glob("examples/**/*composition*.toml")]
    }
    for path in ROOT.glob("plugins/castore_*/config.py"):
        doc = import_module(f"{path.parent.name}.config").__doc__ or ""
        found[path.parent.name] = re.sub(r"(?m)^    ", "", doc.partition("Example::")[2])
    return found


@pytest.mark.parametrize("name", examples())
def test_accepts_the_examples(schema, name):
    """Those at the root, in `examples/` and in the docs of the plugins."""
    composition = tomllib.loads(examples()[name])

    assert composition
    Draft202012Validator(schema).validate(composition)


VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "text": (
        ["", "x", "${VARIABLE}", {"file": "secret"}],
        [1, True, [], {}, {"file": "secret", "b": 1}, {"file": 1}],
    ),
    "number": ([0, -5], ["1", 1.5, True, [1]]),
    "ratio": ([0, 1.5], ["1", False]),
    "flag": ([True, False], [1, "true"]),
    "path": (["x", {"file": "secret"}], [1]),
    "size": (
        [512, 4096, "512", "1 KiB", "1KiB", " 1.5 KiB ", "1_000 B", "+1 kB", "${VARIABLE}"],
        [511, 4097, -1, True, 1.5, "", "KiB", "-1 KiB", "1 XiB", "1 kib", "1 KiB x", [1]],
    ),
    "time": ([0, 1, 0.25, "250 ms", "1.5s", "2 d"], [-1, "-1 s", "1 week", "s", True]),
    "level": ([-7, 22], [-8, 23, "3"]),
    "ref": (["&b", "memory:"], ["b", "", "&", 1, []]),
    "refs": ([[], ["&b", "memory:"]], ["&b", [1], ["b"]]),
    "choice": (["a", "b"], ["c", "A", 1]),
    "colour": (["red", "blue"], ["RED", "green"]),
    "chunker": (["fastcdc-2020", "fastcdc-2016", "${CHUNKER}"], ["fastcdc", 1]),
    "names": ([[], ["x", "${VARIABLE}"]], ["x", [1]]),
    "sizes": ([{}, {"x": "1 KiB"}], [{"x": "1 Kibi"}, []]),
    "anything": ([{}, {"x": [{"y": 1}]}], [1, [], "x"]),
    "inner": ([{}, {"size": "1 KiB", "more": [{"more": []}]}], [{"sise": 1}, {"more": [{"size": "x"}]}, 1]),
    "hidden": ([], [0]),
    "unknown": ([], [1]),
}


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """What the references to secrets in the values lead to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VARIABLE", "1024")
    monkeypatch.setenv("CHUNKER", "fastcdc-2016")
    (tmp_path / "secret").write_text("x")


def castore_accepts(composition: dict[str, Any]) -> bool:
    try:
        Composition.from_mapping(composition, registry=registry()).close()
    except CompositionError:
        return False
    return True


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        (key, value, right)
        for key, (good, bad) in VALUES.items()
        for right, values in ((True, good), (False, bad))
        for value in values
    ],
)
def test_agrees_with_castore_about_a_value(schema, key, value, right):
    """Both accept it, or both refuse it."""
    composition = with_everything(**{key: value})

    assert (accepts(schema, composition), castore_accepts(copy.deepcopy(composition))) == (right, right)


SHAPES: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"pathinfoservices": {"root": {"type": "grpc"}}}, False),
    ({"blobservices": {}}, False),
    ({"blobservices": {"other": {"type": "memory"}}}, False),
    ({"blobservices": {"root": {}}}, False),
    ({"blobservices": {"root": {"type": "nothing"}}}, False),
    ({"blobservices": {"root": {"type": 1}}}, False),
    ({"blobservices": {"root": "memory:"}}, False),
    ({"blobservices": []}, False),
    ({"blobservice": {"root": {"type": "memory"}}}, False),
    ({"directoryservices": {"root": {"type": "memory", "max_size": "1 MiB"}}}, True),
    ({"directoryservices": {"root": {"type": "objectstore"}}}, False),
    ({"directoryservices": {"root": {"type": "objectstore", "object_store_url": "file:./x"}}}, True),
    ({"blobservices": {"root": {"type": "combined", "near": "memory:", "far": "memory:"}}}, False),
    ({"blobservices": {"root": {"type": "cache", "near": "memory:"}}}, False),
    ({"blobservices": {"root": {"type": "cache", "local": "memory:", "far": "memory:"}}}, False),
    ({"blobservices": {"root": {"type": "memory"}, "other": {"type": "memory", "near": "&root"}}}, False),
    ({"blobservices": {"root": {"type": "memory"}}}, True),
    ({"blobservices": {"root": {"type": "memory"}}, "pathinfoservices": {"root": {"type": "grpc"}}}, True),
    (
        {
            "blobservices": {
                "root": {"type": "cache", "near": "memory:", "far": "memory:"},
                "$ x": {"type": "memory"},
            }
        },
        True,
    ),
]


@pytest.mark.parametrize(("composition", "right"), SHAPES)
def test_agrees_with_castore_about_a_composition(schema, composition, right):
    """Its tables, its root, the types and their keys."""
    assert (accepts(schema, composition), castore_accepts(copy.deepcopy(composition))) == (right, right)


def test_an_error_is_about_the_type_that_is_meant(schema):
    """Not about every type that it could have been, as with `oneOf`."""
    composition = {"blobservices": {"root": {"type": "cache", "near": "&a", "far": "b", "x": 1}}}

    found = {
        (error.json_path, error.validator) for error in Draft202012Validator(schema).iter_errors(composition)
    }

    assert found == {("$.blobservices.root", "additionalProperties"), ("$.blobservices.root.far", "anyOf")}


def test_has_the_words_and_defaults_of_the_classes(schema):
    """That is what an editor shows."""
    definition = schema["$defs"]["blobservices.everything"]
    properties = definition["properties"]

    assert definition["description"] == "A config with a field of each sort.\n\nIn two paragraphs."
    assert properties["text"]["description"] == "What it says."
    defaults = {key: value["default"] for key, value in properties.items() if "default" in value}
    assert defaults == {
        "number": 1, "ratio": 0.5, "flag": True, "path": "x", "size": "1 KiB", "time": "1.5 s", "level": 3,
        "refs": [], "choice": "a", "colour": "red", "chunker": "fastcdc-2020", "names": ["x"], "sizes": {},
        "anything": {},
    }  # fmt: skip
    assert definition["required"] == ["type", "text"]


def test_every_key_of_every_type_can_be_completed(schema):
    """Editors that do not look behind `if` find them in the first part of `allOf`, which forbids nothing."""
    instance = schema["properties"]["blobservices"]["additionalProperties"]
    hints = instance["allOf"][0]["properties"]

    assert {"cache", "memory", "objectstore", "everything"} <= set(hints["type"]["enum"])
    assert "A near service in front of a far one" in hints["type"]["description"]
    assert hints["near"]["description"].startswith("`cache`: Asked first")
    assert hints["write"]["anyOf"][0]["enum"] == ["near", "far", "both", "behind"]
    without_type = {name: hint for name, hint in hints.items() if name != "type"}
    assert accepts({"properties": without_type}, {name: ["whatever"] for name in without_type})


TABLES = {
    "blobservices": {
        "root": {"type": "cache", "near": "&local", "far": "objectstore+file:./far"},
        "local": {"type": "memory"},
        "half": {"type": "mem"},
        "none": 3,
        "odd": {"type": ["memory"]},
    }
}


def test_of_one_composition_it_has_the_keys_of_each_type_and_the_names(shelf):
    """And it says yes and no to what castore does."""
    schema = schema_of(shelf, TABLES)
    Draft202012Validator.check_schema(schema)
    table = schema["properties"]["blobservices"]
    assert table["properties"] == {
        "root": {"$ref": "#/$defs/blobservices.cache"},
        "local": {"$ref": "#/$defs/blobservices.memory"},
    }
    assert list(schema["$defs"]["blobservices.memory"]["properties"]) == ["type"]
    near = schema["$defs"]["blobservices.cache"]["properties"]["near"]
    assert near["anyOf"][0]["enum"] == ["&root", "&local", "&half", "&none", "&odd"]

    right = {"blobservices": {"root": TABLES["blobservices"]["root"], "local": {"type": "memory"}}}
    assert accepts(schema, right)
    for near, fine in (
        ("&lcoal", False),
        ("memory:", True),
        ("${NEAR}", True),
        ("&${NEAR}", True),
        ("x", False),
    ):
        changed = {"root": {**right["blobservices"]["root"], "near": near}, "local": {"type": "memory"}}
        assert accepts(schema, {"blobservices": changed}) is fine, near
    assert not accepts(
        schema, {"blobservices": {**right["blobservices"], "local": {"type": "memory", "near": 1}}}
    )


def test_a_pattern_is_said_in_words_and_has_examples(schema):
    """An editor that knows these keywords shows no regular expression to anybody."""

    def patterns(value):
        if isinstance(value, dict):
            if "pattern" in value:
                yield value
            for item in value.values():
                yield from patterns(item)
        elif isinstance(value, list):
            for item in value:
                yield from patterns(item)

    found = list(patterns(schema))
    assert found
    for entry in found:
        assert entry["errorMessage"] == entry["patternErrorMessage"]
        assert entry["errorMessage"].startswith("write ")
    properties = schema["$defs"]["blobservices.cache"]["properties"]
    assert properties["near"]["examples"] == ["&name", "memory:", "objectstore+file:./stores/archive"]
    assert properties["fill_wait"]["examples"] == ["250 ms", "30 s"]


@pytest.mark.parametrize("text", ["${LEVEL}", "${LEVEL:-3}"])
@pytest.mark.parametrize("key", ["number", "ratio", "flag", "size", "time", "choice"])
def test_a_variable_may_stand_for_any_value(schema, key, text):
    root = {"type": "everything", "text": "x", key: text}
    assert accepts(schema, {"blobservices": {"root": root}})


def test_a_kind_of_a_plugin_has_its_table():
    """With its own types, under its own name."""

    class Clock:
        """A kind."""

    made = registry()
    made.add_kind(Clock, "clocks", "clock")
    made.register(Clock, "a/b~c", attrs.make_class("Sun", {}, class_body={"build": lambda *_: Clock()}))

    schema = schema_of(made)

    Draft202012Validator.check_schema(schema)
    assert accepts(schema, {"clocks": {"root": {"type": "a/b~c"}}})
    assert not accepts(schema, {"clocks": {"root": {"type": "a/b~c", "x": 1}}})
    assert not accepts(schema, {"clocks": {"root": {"type": "memory"}}})
