"""What a config class says of itself is read from its source, as far as there is one."""

from __future__ import annotations

import enum
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest

from castore import BlobService, Ref, Registry
from castore.composition import Between, ByteSize, Duration, ServiceUrl
from castore.composition.config.fields import describe_fields, field_docs, summary_of, toml, words_for
from castore.composition.config.shapes import shape_of
from castore.composition.config.values import parse_duration
from castore.contract.directories import DirectoryService
from castore.format.chunking import Chunker, FastCdc2016

LARGE = ByteSize(3 << 20)
SMALL = ByteSize(0)
ODD = ByteSize(1500)
REF: Ref[BlobService] = Ref("&x", BlobService)


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Base:
    """A base."""

    first: int
    """The first."""
    second: str = "x"
    """The second, of
    two lines."""
    third: bool = False
    made_later: int = attrs.field(init=False, default=0)


@attrs.frozen
class Derived(Base):
    second: str = "y"
    """Said anew."""
    fourth: ByteSize = LARGE
    """Ends in a colon:"""
    "Not this one."

    def build(self) -> None:
        """Not this either."""


def test_fields_have_the_strings_below_them():
    """Of the class and of those it inherits from; the nearest counts."""
    assert field_docs(Derived) == {
        "first": "The first.",
        "second": "Said anew.",
        "fourth": "Ends in a colon:",
    }
    assert field_docs(Base)["second"] == "The second, of\ntwo lines."


def test_a_class_without_source_has_no_docs():
    """It was made at run time."""
    made = attrs.make_class("Made", {"a": attrs.field(type=int)})

    assert field_docs(made) == {}
    assert [field.name for field in describe_fields(made, Registry())] == ["a"]


def test_fields_are_in_order_with_their_defaults():
    """Those that a config cannot set are left out."""
    fields = {field.name: field for field in describe_fields(Derived, Registry())}

    assert set(fields) == {"first", "second", "third", "fourth"}
    assert fields["first"].required
    assert (fields["second"].default, fields["third"].default, fields["fourth"].default) == (
        "y",
        False,
        "3 MiB",
    )
    assert not any(fields[name].required for name in ("second", "third", "fourth"))


def test_the_summary_is_the_docstring_of_the_class_itself():
    """Not one that it inherits."""
    assert summary_of(Base) == "A base."
    assert summary_of(Derived) == ""


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "string"),
        (int, "whole number"),
        (float, "number"),
        (bool, "true or false"),
        (Path, "path"),
        (ByteSize, "size"),
        (Duration, "duration"),
        (type[Chunker], "chunker"),
        (Ref[BlobService], "reference to a blob service"),
        (Ref[DirectoryService], "reference to a directory service"),
        (Ref, "reference to a service"),
        (Literal["a", 1], '"a" or 1'),
        (Colour, '"red"'),
        (str | None, "string"),
        (int | str, "whole number or string"),
        (list[Ref[BlobService]], "array of: reference to a blob service"),
        (tuple[int, ...], "array of: whole number"),
        (list, "array"),
        (dict[str, Any], "table"),
        (dict, "table"),
        (Base, "table of: first, second, third"),
        (Annotated[int, Between(1, 5)], "whole number from 1 to 5"),
        (Annotated[ByteSize, Between(1, 5)], "size from 1 to 5 bytes"),
        (Annotated[Duration, "a note", Between(1, 5)], "duration from 1 s to 5 s"),
        (Any, "any value"),
        (ServiceUrl | bytes, "table of: text, tag, scheme, authority, path, query or any value"),
    ],
)
def test_types_in_words(annotation, words):
    """As a composition's author thinks of them."""
    assert words_for(shape_of(annotation), Registry()) == words


def test_defaults_that_toml_cannot_have_are_not_shown():
    """A function, nothing at all, or one that depends on the object."""

    @attrs.frozen
    class Config:
        a: Any = print
        b: str | None = None
        c: str = attrs.Factory(lambda self: "x", takes_self=True)
        d: type[Chunker] = FastCdc2016
        e: Ref[BlobService] = REF
        f: ByteSize = SMALL
        g: ByteSize = ODD

    defaults = {field.name: field.default for field in describe_fields(Config, Registry())}

    assert defaults == {"a": None, "b": None, "c": None, "d": "fastcdc-2016", "e": "&x", "f": 0, "g": 1500}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (30.0, "30 s"), (0.25, "250 ms"), (1.5, "1.5 s"), (90.0, "90 s"), (120.0, "2 min"), (7200.0, "2 h"),
        (86400.0, "1 d"), (0.0, "0 s"), (1 / 3, f"{1 / 3} s"), (1e-7, 1e-7),
    ],
)  # fmt: skip
def test_durations_have_a_unit(seconds, shown):
    """As one would write them, and read back they are the same."""
    made = attrs.make_class("Config", {"wait": attrs.field(type=Duration, default=Duration(seconds))})
    (field,) = describe_fields(made, Registry())
    assert field.default == shown
    assert parse_duration(shown) == seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ('a"\\\n', '"a\\"\\\\\\n"'),
        (1.5, "1.5"),
        ([1, "x"], '[1, "x"]'),
        ({}, "{}"),
        ({"a": 1, "b": {"c": []}}, "{ a = 1, b = { c = [] } }"),
    ],
)
def test_values_are_written_as_toml(value, text):
    """On one line; a parser reads them back."""
    assert toml(value) == text
    assert tomllib.loads(f"x = {text}")["x"] == value
