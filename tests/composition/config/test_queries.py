"""The fields of a config in the query of its URL, and text that is read as what a field asks for."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest

from castore import BlobService, Composition, CompositionError, Ref, Registry
from castore.composition import (
    Between,
    BuildContext,
    ByteSize,
    Duration,
    ProblemsError,
    Secret,
    ServiceUrl,
    read_query,
)
from castore_memory.config import MemoryConfig, MemoryDirectoriesConfig


class Mode(enum.Enum):
    FAST = "fast"
    SAFE = "safe"


@attrs.frozen
class Everything:
    """A config with a field of each sort."""

    path: str
    flag: bool = False
    count: Annotated[int, Between(0, 9)] = 1
    ratio: float = 1.0
    size: ByteSize = ByteSize(1)  # noqa: RUF009 - it is a number
    wait: Duration = Duration(1.0)  # noqa: RUF009 - as above
    mode: Mode = Mode.SAFE
    word: Literal["a", "b", 3, True] = "a"
    maybe: int | None = None
    either: int | Literal["none"] = "none"
    since: datetime.date | None = None
    folder: Path = Path()
    inner: Ref[BlobService] | None = None
    tags: list[str] = attrs.field(factory=list)
    label: str = ""

    @classmethod
    def from_url(cls, url: str) -> Everything:
        parsed = ServiceUrl.parse(url)
        return read_query(cls, parsed, {"path": parsed.path})

    def build(self, name: str, context: BuildContext) -> BlobService:
        raise NotImplementedError


TYPED = [
    ("flag", "true", True),
    ("flag", "False", False),
    ("count", "7", 7),
    ("ratio", "2.5", 2.5),
    ("ratio", "1e3", 1000.0),
    ("ratio", "2", 2.0),
    ("size", "64 KiB", 65536),
    ("size", "7", 7),
    ("wait", "250 ms", 0.25),
    ("mode", "fast", Mode.FAST),
    ("word", "b", "b"),
    ("word", "3", 3),
    ("word", "true", True),
    ("maybe", "12", 12),
    ("either", "12", 12),
    ("either", "none", "none"),
    ("since", "2030-01-31", datetime.date(2030, 1, 31)),
    ("folder", "a/b", Path("a/b")),
    ("inner", "&other", Ref("&other", BlobService)),
    ("label", "true", "true"),
    ("label", "3", "3"),
]
WRONG = [
    ("flag", "1", "expected true or false"),
    ("flag", "", "expected true or false"),
    ("count", "x", "expected a whole number"),
    ("count", "1.5", "expected a whole number"),
    ("count", "10", "expected 0 to 9"),
    ("count", "9" * 5000, "expected a whole number"),
    ("ratio", "high", "expected a number"),
    ("wait", "soon", "is not a duration"),
    ("mode", "fsat", "did you mean `fast`?"),
    ("word", "c", 'expected "a", "b", 3 or true'),
    ("tags", "a", "expected an array"),
    ("since", "tomorrow", "expected a date"),
]


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(BlobService, "everything", Everything)
    return registry


def quoted(text: str) -> str:
    return text.replace("&", "%26").replace(" ", "+")


@pytest.mark.parametrize(("field", "text", "value"), TYPED)
def test_a_text_in_a_query_is_what_its_field_asks_for(field: str, text: str, value: Any) -> None:
    found = getattr(Everything.from_url(f"everything:/x?{field}={quoted(text)}"), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("field", "text", "words"), WRONG)
def test_what_is_wrong_is_told_by_name(field: str, text: str, words: str, registry: Registry) -> None:
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping(
            {
                "blobservices": {
                    "root": {"type": "everything", "path": "", "inner": f"everything:/x?{field}={text}"}
                }
            },
            registry=registry,
        )
    (problem,) = caught.value.problems
    assert f"`{field}`: " in problem.message
    assert words in f"{problem.message}; {problem.hint}"


def test_all_of_it_is_told_at_once() -> None:
    with pytest.raises(ProblemsError) as caught:
        Everything.from_url("everything:/x?flag=1&nonsense=1&path=/y&cuont=3&mode=fast")
    assert len(caught.value.problems) == 4
    for words in (
        "`flag`: expected true",
        "unknown key `nonsense`",
        "`path` is not for the query",
        "`cuont`",
    ):
        assert words in str(caught.value)


def test_a_memory_service_of_either_kind_refuses_by_name() -> None:
    assert MemoryDirectoriesConfig.from_url("memory:?max_size=64+KiB").max_size == 65536
    with pytest.raises(ValueError, match="unknown key `max_siz`"):
        MemoryDirectoriesConfig.from_url("memory:?max_siz=1")
    with pytest.raises(ValueError, match="no field `a`"):
        MemoryConfig.from_url("memory:?a=b")


@pytest.mark.parametrize("url", ["everything:/x?flag=true&flag=false", "everything:/x?flag=true&%66lag=true"])
def test_a_key_is_there_once(url: str) -> None:
    """Whatever a type does with its query: the two would not be told apart."""
    with pytest.raises(ValueError, match="`flag` is given twice"):
        ServiceUrl.parse(url)


@pytest.mark.parametrize(("field", "text", "value"), TYPED)
@pytest.mark.parametrize("form", ["${VALUE}", "${NOTHING:-%s}", "${NOTHING:-${VALUE}}"])
def test_what_a_variable_stands_for_is_typed(
    field: str, text: str, value: Any, form: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it was put in its place; a default as well."""
    monkeypatch.setenv("VALUE", text)
    table = {"type": "everything", "path": "x", field: form.replace("%s", text)}
    if field == "inner":
        table = {**table, "inner": {"file": "/dev/null"}, "label": table["inner"]}
        field, value = "label", text
        del table["inner"]
    with Composition.from_mapping({"blobservices": {"root": table}}, registry=registry) as stores:
        found = getattr(stores.graph.instances["blobservices.root"].config, field)
    assert found == value
    assert type(found) is type(value) or isinstance(found, (Secret, Path))


@pytest.mark.parametrize(("field", "text", "words"), [row for row in WRONG if row[0] != "mode"])
def test_what_a_variable_stands_for_is_not_shown_if_it_is_wrong(
    field: str, text: str, words: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", text)
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping(
            {"blobservices": {"root": {"type": "everything", "path": "x", field: "${VALUE}"}}},
            registry=registry,
        )
    (problem,) = caught.value.problems
    assert words.replace(text, "***") in problem.message or words in problem.message
    assert "${VALUE}" in problem.message
    assert len(text) < 3 or text not in problem.message


def test_a_number_from_a_variable_is_left_in_messages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is no secret: else each 3 in each message would be stars."""
    monkeypatch.setenv("LEVEL", "3")
    monkeypatch.setenv("FOLDER", str(tmp_path / "secret-place"))
    table = {
        "type": "objectstore", "object_store_url": "file:${FOLDER}", "compression_level": "${LEVEL}",
        "durability": "${DURABILITY:-process}",
    }  # fmt: skip
    with Composition.from_mapping({"blobservices": {"root": table}}) as stores:
        assert [str(secret) for secret in stores._state.loaded.secrets] == [
            f"file:{tmp_path / 'secret-place'}"
        ]
        assert stores.graph.instances["blobservices.root"].config.compression_level == 3


@pytest.mark.parametrize("place", ["allow_faults", "type"])
def test_above_the_tables_and_for_a_type_there_are_no_variables(
    place: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which services there are must be seen in the file."""
    monkeypatch.setenv("VALUE", "true" if place == "allow_faults" else "memory")
    root = {"type": "everything", "path": "x"}
    top: dict[str, Any] = {"blobservices": {"root": root}}
    (top if place == "allow_faults" else root)[place] = "${VALUE}"
    with pytest.raises(CompositionError):
        Composition.from_mapping(top, registry=registry)
