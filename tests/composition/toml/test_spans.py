from __future__ import annotations

import datetime
import math
import random
import re
import string
import time
from collections.abc import Iterator
from typing import Any

import pytest
import tomli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from castore.composition.toml.spans import Path, Place, Span, lookup, scan

# -- reading a place back from the text --


def shown(text: str, span: Span) -> str:
    """The characters that *span* covers, as an editor would mark them."""
    line = text.split("\n")[span.line - 1].removesuffix("\r")
    first = span.column - 1
    assert span.width >= 1
    assert first >= 0
    assert first + span.width <= len(line)
    return line[first : first + span.width]


def marks(text: str) -> dict[Path, tuple[str, str]]:
    """What the places of *text* cover, of a document that tomli accepts."""
    tomli.loads(text)
    return {path: (shown(text, place.key), shown(text, place.value)) for path, place in scan(text).items()}


def values(text: str) -> dict[Path, str]:
    return {path: value for path, (_, value) in marks(text).items()}


# -- exact places --


def test_a_pair_has_the_place_of_its_key_and_of_its_value() -> None:
    assert scan("name = 12\n") == {("name",): Place(Span(1, 1, 4), Span(1, 8, 2))}


def test_lines_and_columns_start_at_one_and_comments_and_blank_lines_count() -> None:
    assert scan('# a\n\n  b  =  "c"  # d\n') == {("b",): Place(Span(3, 3, 1), Span(3, 9, 3))}


def test_a_last_line_needs_no_end() -> None:
    assert scan("a = 1") == {("a",): Place(Span(1, 1, 1), Span(1, 5, 1))}


def test_nothing_has_no_places() -> None:
    assert scan("") == {}
    assert scan(" \t\r\n# only this") == {}


def test_a_table_is_its_whole_header_and_its_key_the_last_part_of_it() -> None:
    assert scan(" [ a . 'b c' ] # d\ne = true\n") == {
        ("a",): Place(Span(1, 4, 1), Span(1, 4, 1)),
        ("a", "b c"): Place(Span(1, 8, 5), Span(1, 2, 13)),
        ("a", "b c", "e"): Place(Span(2, 1, 1), Span(2, 5, 4)),
    }


def test_the_parents_in_a_header_stand_where_they_are_first_named() -> None:
    text = "[a.b.c]\n[a.b.d]\n"
    assert marks(text)["a", "b"] == ("b", "b")
    assert scan(text)["a", "b"].key == Span(1, 4, 1)


def test_a_header_of_its_own_replaces_the_place_of_a_parent() -> None:
    places = scan("[a.b.c]\nx = 1\n[a]\n[a.b]\n")
    assert places["a",] == Place(Span(3, 2, 1), Span(3, 1, 3))
    assert places["a", "b"] == Place(Span(4, 4, 1), Span(4, 1, 5))
    assert places["a", "b", "c"] == Place(Span(1, 6, 1), Span(1, 1, 7))


def test_a_later_header_leaves_the_place_of_an_earlier_table() -> None:
    assert scan("[a]\n[a.b]\n")["a",] == Place(Span(1, 2, 1), Span(1, 1, 3))


def test_each_part_of_a_dotted_key_has_its_place() -> None:
    assert scan('a . "b".c = 1\na.d = 2') == {
        ("a",): Place(Span(1, 1, 1), Span(1, 1, 1)),
        ("a", "b"): Place(Span(1, 5, 3), Span(1, 5, 3)),
        ("a", "b", "c"): Place(Span(1, 9, 1), Span(1, 13, 1)),
        ("a", "d"): Place(Span(2, 3, 1), Span(2, 7, 1)),
    }


def test_an_array_of_tables_has_its_first_header_and_each_table_its_own() -> None:
    assert scan("[[a.b]]\nx = 1\n[[a.b]]\nx = 2\n") == {
        ("a",): Place(Span(1, 3, 1), Span(1, 3, 1)),
        ("a", "b"): Place(Span(1, 5, 1), Span(1, 1, 7)),
        ("a", "b", 0): Place(Span(1, 1, 7), Span(1, 1, 7)),
        ("a", "b", 0, "x"): Place(Span(2, 1, 1), Span(2, 5, 1)),
        ("a", "b", 1): Place(Span(3, 1, 7), Span(3, 1, 7)),
        ("a", "b", 1, "x"): Place(Span(4, 1, 1), Span(4, 5, 1)),
    }


def test_a_table_below_an_array_of_tables_belongs_to_the_last_one() -> None:
    text = "[[a]]\n[a.b]\nx.y = 1\n[[a.c]]\n[[a.c]]\n[a.c.d]\n[[a]]\n[[a.c]]\n"
    assert values(text) == {
        ("a",): "[[a]]",
        ("a", 0): "[[a]]",
        ("a", 0, "b"): "[a.b]",
        ("a", 0, "b", "x"): "x",
        ("a", 0, "b", "x", "y"): "1",
        ("a", 0, "c"): "[[a.c]]",
        ("a", 0, "c", 0): "[[a.c]]",
        ("a", 0, "c", 1): "[[a.c]]",
        ("a", 0, "c", 1, "d"): "[a.c.d]",
        ("a", 1): "[[a]]",
        ("a", 1, "c"): "[[a.c]]",
        ("a", 1, "c", 0): "[[a.c]]",
    }
    places = scan(text)
    assert [places[path].value.line for path in (("a", 1), ("a", 1, "c"), ("a", 0, "c", 1))] == [7, 8, 5]


def test_pairs_before_the_first_header_belong_to_the_root() -> None:
    assert set(scan("a = 1\n[b]\nc = 1\n")) == {("a",), ("b",), ("b", "c")}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("bare_Key-1", "bare_Key-1"),
        ("1234", "1234"),
        ("true", "true"),
        ('""', ""),
        ("''", ""),
        ('"a b"', "a b"),
        ('"a.b"', "a.b"),
        ('"#"', "#"),
        ('"="', "="),
        (r"'a\n'", r"a\n"),
        ("'\"'", '"'),
        (r'"\""', '"'),
        (r'"\\"', "\\"),
        (r'"\u0041\U00000042\t"', "AB\t"),
        (r'"\x41\e"', "A\x1b"),
        ('"ünï"', "ünï"),
    ],
)
def test_a_key_is_known_by_its_name_and_covers_what_is_written(written: str, name: str) -> None:
    text = f"[{written}]\n{written} = 1\n"
    assert marks(text) == {(name,): (written, f"[{written}]"), (name, name): (written, "1")}


@pytest.mark.parametrize(
    "written",
    [
        '""',
        '"a"',
        r'"a\"b"',
        r'"\\"',
        '"# no comment"',
        '"it\'s"',
        "''",
        "'a'",
        r"'C:\'",
        "'\"'",
        '""""""',
        '"""a"""',
        '"""a"b""c"""',
        '"""a""""',
        '"""a"""""',
        '"""""a"""',
        r'"""\""""',
        r'"""\"""\""""',
        "''''''",
        "'''a'''",
        "'''a'b''c'''",
        "'''a''''",
        "'''a'''''",
        "'''''a'''",
        "'''\\'''",
        "0",
        "-17",
        "+1_000",
        "0xDEAD_beef",
        "0o755",
        "0b1101",
        "-3.14e-10",
        "6.26E+23",
        "inf",
        "-nan",
        "true",
        "false",
        "1979-05-27",
        "07:32:00",
        "07:32",
        "00:32:00.999999",
        "1979-05-27T07:32:00Z",
        "1979-05-27t07:32:00.5-07:00",
        "1979-05-27 07:32:00",
        "1979-05-27 07:32:00.25+01:00",
        "1979-05-27 07:32Z",
    ],
)
@pytest.mark.parametrize("after", ["", " # end", "\t", "\r\nz = 1", "\n", "\n# '''\n"])
def test_a_value_covers_what_is_written_and_no_more(written: str, after: str) -> None:
    assert values(f"k = {written}{after}")["k",] == written
    assert values(f"k = [{written},{written} ,\n]{after}")["k", 0] == written
    assert values(f"k = [{written},{written} ,\n]{after}")["k", 1] == written
    assert values(f"k = {{a={written}}}{after}")["k", "a"] == written


def test_a_date_with_a_comment_behind_it_ends_before_the_space() -> None:
    assert values("a = 1979-05-27 # 07:32:00")["a",] == "1979-05-27"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_string_over_several_lines_covers_the_rest_of_its_first(quotes: str, end: str) -> None:
    text = end.join([f"a = {quotes}b  ", "# c", "[d]", f"e = 1{quotes} # f", "g = 2", ""])
    assert scan(text) == {
        ("a",): Place(Span(1, 1, 1), Span(1, 5, 6)),
        ("g",): Place(Span(5, 1, 1), Span(5, 5, 1)),
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_string_that_starts_with_a_line_end_covers_its_quotes(end: str) -> None:
    assert scan(f'a = """{end}b"""')["a",].value == Span(1, 5, 3)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_backslash_at_a_line_end_does_not_end_the_string(end: str) -> None:
    text = f'a = """b \\{end}  c\\""" {end}"""{end}d = 1'
    assert values(text) == {("a",): '"""b \\', ("d",): "1"}


def test_arrays_may_be_nested_and_spread_over_lines_with_comments() -> None:
    text = 'a = [ # ]\n  [1, 2], # "\n\n  [ ],\n  "x", # ,\n] # end\nb = 3\n'
    assert scan(text) == {
        ("a",): Place(Span(1, 1, 1), Span(1, 5, 5)),
        ("a", 0): Place(Span(2, 3, 6), Span(2, 3, 6)),
        ("a", 0, 0): Place(Span(2, 4, 1), Span(2, 4, 1)),
        ("a", 0, 1): Place(Span(2, 7, 1), Span(2, 7, 1)),
        ("a", 1): Place(Span(4, 3, 3), Span(4, 3, 3)),
        ("a", 2): Place(Span(5, 3, 3), Span(5, 3, 3)),
        ("b",): Place(Span(7, 1, 1), Span(7, 5, 1)),
    }


def test_an_inline_table_has_places_for_its_keys() -> None:
    assert scan('a = { b.c = 1, "d"=[{}] } # x') == {
        ("a",): Place(Span(1, 1, 1), Span(1, 5, 21)),
        ("a", "b"): Place(Span(1, 7, 1), Span(1, 7, 1)),
        ("a", "b", "c"): Place(Span(1, 9, 1), Span(1, 13, 1)),
        ("a", "d"): Place(Span(1, 16, 3), Span(1, 20, 4)),
        ("a", "d", 0): Place(Span(1, 21, 2), Span(1, 21, 2)),
    }


def test_an_inline_table_may_go_over_lines_and_end_with_a_comma() -> None:
    text = "a = {\r\n  b = 1, # }\r\n\tc = {\r\n  },\r\n}\r\nd = 1"
    assert scan(text) == {
        ("a",): Place(Span(1, 1, 1), Span(1, 5, 1)),
        ("a", "b"): Place(Span(2, 3, 1), Span(2, 7, 1)),
        ("a", "c"): Place(Span(3, 2, 1), Span(3, 6, 1)),
        ("d",): Place(Span(6, 1, 1), Span(6, 5, 1)),
    }
    assert tomli.loads(text) == {"a": {"b": 1, "c": {}}, "d": 1}


def test_columns_count_characters_and_a_tab_is_one() -> None:
    text = "\t\"ä😀\"\t=\t['é', 1]"
    assert marks(text)["ä😀", 1] == ("1", "1")
    assert scan(text)["ä😀", 1].value == Span(1, 15, 1)


def test_only_a_line_feed_ends_a_line() -> None:
    text = "# \u2028 \x85 \u2029\na = '\u2028\x85'\nb = 1\n"
    assert scan(text)["b",].value == Span(3, 5, 1)
    assert shown(text, scan(text)["a",].value) == "'\u2028\x85'"


def test_values_as_deep_as_tomli_takes_them_are_followed() -> None:
    text = "a = " + "[" * 400 + "]" * 400 + "\nb = 1"
    tomli.loads(text)
    assert scan(text)["b",] == Place(Span(2, 1, 1), Span(2, 5, 1))
    assert scan(text)["a", *[0] * 399].value == Span(1, 404, 2)


# -- lookup --


def test_lookup_finds_the_place_or_that_of_the_nearest_entry_around() -> None:
    places = scan("[a.b]\nc = [1]\n")
    assert lookup(places, ("a", "b", "c", 0)) == places["a", "b", "c", 0]
    assert lookup(places, ("a", "b", "c", 7, "d")) == places["a", "b", "c"]
    assert lookup(places, ("a", "b", "x")) == places["a", "b"]
    assert lookup(places, ("x", "y")) is None
    assert lookup(places, ()) is None
    assert lookup({}, ("a",)) is None


# -- agreement with tomli, on documents made up here --

NAMES = st.one_of(st.sampled_from(["a", "b", "near", "1", "x-y"]), st.text(max_size=4))
TEXTS = st.one_of(
    st.text(alphabet="\"'\\\n #[]{}=,.a", max_size=8),
    st.text(max_size=8),
)
NUMBERS = ["0", "-1", "1_000", "0xff", "0b1", "1.5", "-2e-3", "inf", "+nan"]
TIMES = ["1979-05-27", "07:32:00", "1979-05-27T07:32:00.5Z", "1979-05-27 07:32:00", "1979-05-27 07:32-01:00"]
LITERALS = st.sampled_from([*NUMBERS, *TIMES, "true", "false"])
CONTROLS = {chr(code) for code in range(32)} | {"\x7f"}
SCALARS = st.one_of(st.tuples(st.just("literal"), LITERALS), st.tuples(st.just("text"), TEXTS))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=4),
        st.lists(st.dictionaries(NAMES, inner, max_size=3), min_size=1, max_size=3),
    ),
    max_leaves=16,
)


class Writer:
    """Writes a tree as TOML, and throws dice for every choice of form.

    Dice and not hypothesis: there are hundreds of choices to a document, and each would take its time.
    """

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.end = self.one_of("\n", "\r\n")

    def one_of(self, *options: str) -> str:
        return self.dice.choice(options)

    def yes(self) -> bool:
        return self.dice.random() < 0.5

    def blank(self) -> str:
        return self.one_of("", " ", "\t", "  ")

    def comment(self) -> str:
        return self.one_of("", "", "# c", '#"', "#'''", "#]", "# [x]", "# a = 1", "#\u2028é")

    def line_end(self) -> str:
        return self.blank() + self.comment() + self.end

    def gap(self) -> str:
        """What may stand between the items of an array or inline table."""
        return self.blank() if self.yes() else self.line_end() + self.blank()

    def basic(self, text: str, keep: str = "") -> str:
        bad = CONTROLS | {'"', "\\"}
        return "".join(f"\\U{ord(c):08x}" if c in bad and c not in keep else c for c in text)

    def name(self, name: str) -> str:
        forms = [f'"{self.basic(name)}"']
        if name and set(name) <= set(string.ascii_letters + string.digits + "-_"):
            forms.append(name)
        if not set(name) & (CONTROLS | {"'"}):
            forms.append(f"'{name}'")
        return self.one_of(*forms)

    def key(self, names: list[str]) -> str:
        dot = self.blank() + "." + self.blank()
        return dot.join(self.name(name) for name in names)

    def text(self, text: str) -> str:
        forms = [f'"{self.basic(text)}"']
        lines = text.replace("\n", self.end)
        quoted = self.basic(text, keep="\n\"'").replace("\n", self.end)
        if '"""' not in quoted and not quoted.startswith("\r"):
            forms.append(f'"""{quoted}"""')
            forms.append(f'"""{self.end}{quoted}"""')
            forms.append(f'"""{quoted} \\{self.end}  {self.end} """')
        if not set(text) & (CONTROLS | {"'"}):
            forms.append(f"'{text}'")
        if not set(text) & (CONTROLS - {"\n"}) and "'''" not in text:
            forms.append(f"'''{lines}'''")
        form = self.one_of(*forms)
        return form if accepted(f"x = {form}") else forms[0]

    def value(self, tree: Any) -> str:
        if isinstance(tree, tuple):
            return tree[1] if tree[0] == "literal" else self.text(tree[1])
        if isinstance(tree, list):
            return "[" + self.items([self.value(item) for item in tree]) + "]"
        return "{" + self.items([self.pair([name], item) for name, item in tree.items()]) + "}"

    def items(self, items: list[str]) -> str:
        written = [self.gap() + item + self.gap() for item in items]
        return ",".join(written) + ("," + self.gap() if written and self.yes() else self.gap())

    def pair(self, names: list[str], tree: Any) -> str:
        if isinstance(tree, dict) and len(tree) == 1 and self.yes():
            ((name, inner),) = tree.items()
            return self.pair([*names, name], inner)
        return self.key(names) + self.blank() + "=" + self.blank() + self.value(tree)

    def table(self, path: list[str], tree: dict[str, Any]) -> Iterator[str]:
        """The pairs of a table, then the tables below it, with headers."""
        below = []
        for name, inner in tree.items():
            tables = isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner)
            if (tables or isinstance(inner, dict)) and self.yes():
                below.append((name, inner))
            elif isinstance(inner, dict) and inner and self.yes():
                for last, innermost in inner.items():
                    yield self.blank() + self.pair([name, last], innermost) + self.line_end()
            else:
                yield self.blank() + self.pair([name], inner) + self.line_end()
        for name, inner in below:
            if isinstance(inner, list):
                for item in inner:
                    yield self.header("[[", [*path, name], "]]")
                    yield from self.table([*path, name], item)
            elif not inner or self.yes() or not any(isinstance(item, dict) for item in inner.values()):
                yield self.header("[", [*path, name], "]")
                yield from self.table([*path, name], inner)
            else:
                yield from self.parent_last([*path, name], inner)

    def parent_last(self, path: list[str], tree: dict[str, Any]) -> Iterator[str]:
        """The tables below first, so that this one exists before its own header."""
        for name, inner in tree.items():
            if isinstance(inner, dict):
                yield self.header("[", [*path, name], "]")
                yield from self.table([*path, name], inner)
        rest = {name: inner for name, inner in tree.items() if not isinstance(inner, dict)}
        if rest or self.yes():
            yield self.header("[", path, "]")
            yield from self.table(path, rest)

    def header(self, opening: str, path: list[str], closing: str) -> str:
        return (
            self.blank()
            + opening
            + self.blank()
            + self.key(path)
            + self.blank()
            + closing
            + self.line_end()
            + self.one_of("", "", self.line_end())
        )


def accepted(text: str) -> bool:
    try:
        tomli.loads(text)
    except tomli.TOMLDecodeError:
        return False
    return True


@st.composite
def documents(draw: Any) -> str:
    tree = draw(st.dictionaries(NAMES, TREES, max_size=5))
    text = "".join(Writer(draw(st.integers(0, 2**32))).table([], tree))
    return text.rstrip("\r\n") if draw(st.booleans()) else text


def entries(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every entry of what tomli read, with its path; the root is none."""
    if path:
        yield path, tree
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from entries(inner, (*path, name))
    elif isinstance(tree, list):
        for index, inner in enumerate(tree):
            yield from entries(inner, (*path, index))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def read_alone(written: str) -> Any:
    """The value that *written* is, with nothing before or behind it, or an error."""
    # In an array, on one line: a comment taken for a part of the value would swallow the bracket.
    value, end = tomli.loads(f"x = [{written}, 'end']")["x"]
    assert end == "end"
    return value


@settings(deadline=None)
@given(documents())
def test_every_entry_that_tomli_reads_has_a_place_and_no_other(text: str) -> None:
    assert set(scan(text)) == {path for path, _ in entries(tomli.loads(text))}


def by_header(place: Place, written: str, value: Any) -> bool:
    """Whether a table, or an array of tables, is there by a header and not by a value."""
    inside = place.value.line == place.key.line and place.value.column < place.key.column
    return written.startswith("[") and (isinstance(value, dict) or (isinstance(value, list) and inside))


@settings(deadline=None)
@given(documents())
def test_a_value_that_fits_on_its_line_can_be_read_from_its_place_alone(text: str) -> None:
    places = scan(text)
    for path, expected in entries(tomli.loads(text)):
        place = places[path]
        written = shown(text, place.value)
        named_only = place.key == place.value and isinstance(path[-1], str)
        if named_only or by_header(place, written, expected):
            continue
        try:
            value = read_alone(written)
        except tomli.TOMLDecodeError:
            # It goes on in the next line, so it takes all that is left of this one.
            line = text.split("\n")[place.value.line - 1].removesuffix("\r")
            assert isinstance(expected, (str, list, dict))
            assert line.endswith(written)
            assert place.value.column - 1 + place.value.width == len(line)
        else:
            assert written == written.strip()
            assert same(value, expected)


@settings(deadline=None)
@given(documents())
def test_a_table_with_a_header_can_be_read_from_its_place_alone(text: str) -> None:
    places = scan(text)
    for path, expected in entries(tomli.loads(text)):
        written = shown(text, places[path].value)
        if by_header(places[path], written, expected):
            # In the header alone each array of tables has one table.
            (*_, (found, _)) = entries(tomli.loads(written))
            assert names_of(found) == names_of(path)


def names_of(path: Path) -> list[str]:
    return [step for step in path if isinstance(step, str)]


@settings(deadline=None)
@given(documents())
def test_a_key_can_be_read_from_its_place_alone(text: str) -> None:
    for path, place in scan(text).items():
        name = path[-1]
        if isinstance(name, int):
            assert place.key == place.value
        else:
            written = shown(text, place.key)
            assert written == written.strip()
            assert tomli.loads(f"{written} = 1") == {name: 1}


def test_the_writer_of_these_documents_uses_every_form() -> None:
    pair = {"b": ("text", "c\nd"), "e": {"f": ("literal", "1979-05-27 07:32:00"), "g": []}}
    tree = {"a": {"a": pair, "b": [pair, pair]}, "x y": [pair]}
    written = ["".join(Writer(seed).table([], tree)) for seed in range(100)]
    forms = {
        "CRLF": "\r\n",
        "header": r"^[ \t]*\[[^\[]",
        "array of tables": r"^[ \t]*\[\[",
        "table after its tables": r"(?s)^[ \t]*\[\s*\W?a\W?\s*\.[^\]]*\].*^[ \t]*\[\s*\W?a\W?\s*\]",
        "dotted key": r"^[^\[\n=#]*\.[^\n=]*=",
        "quoted key": r"""^["']a["']""",
        "inline table on one line": r"\{[^\n]*=[^\n]*\}",
        "inline table over lines": r"\{[ \t]*\r?\n",
        "comma at the end": r",\s*\}",
        "comment in an array": r"=\s*\[[ \t]*#",
        "literal over lines": r"'''[^']*\n",
        "basic over lines": r'"""[^"]*\n',
        "basic over lines, folded": r'"""[^"]*\\\r?\n',
    }
    found = {
        form: any(re.search(regex, text, re.MULTILINE) for text in written) for form, regex in forms.items()
    }
    unused = {form for form, used in found.items() if not used}
    assert unused == set()


# -- whatever the text --

SINGLE = "[]{}=,.#\"'\\ \t\n\rae1-:"
LONGER = ["[[", "]]", '"""', "'''", "\r\n", "a = ", "\n[a]\n", r"\u", "1979-05-27 "]
ALMOST_TOML = st.lists(st.sampled_from([*SINGLE, *LONGER]), max_size=60).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.text(st.characters(exclude_categories=[])), ALMOST_TOML))
@example('"\\UFFFFFFFF" = 1')
@example('"\\q" = 1')
@example('"\\ud800" = 1')
@example("a = '")
@example('a = """')
@example("a = [")
@example("a = {b")
@example("[")
@example("[[a]")
@example("a.")
@example("a =")
@example("a = é")
def test_any_text_is_scanned_without_an_error_and_the_places_are_in_the_text(text: str) -> None:
    for place in scan(text).values():
        assert shown(text, place.key)
        assert shown(text, place.value)


@settings(deadline=None)
@given(documents(), st.data())
def test_a_document_cut_short_keeps_the_places_before_the_cut(text: str, data: st.DataObject) -> None:
    lines = text.split("\n")
    kept = data.draw(st.integers(0, len(lines)))
    cut = "\n".join([*lines[:kept], "= nothing to understand"])
    places = scan(cut)
    if accepted("\n".join(lines[:kept])):
        assert places == scan("\n".join(lines[:kept]))


@pytest.mark.parametrize("quotes", ["'", '"', "'''", '"""'])
def test_a_string_without_an_end_has_no_place(quotes: str) -> None:
    assert scan(f"a = 1\nb = {quotes}c\nd = 1\n").keys() == {("a",)}


def test_what_cannot_be_followed_ends_the_scan_with_what_was_found() -> None:
    assert scan("a = 1\nb = [2, ?]\nc = 3") == {
        ("a",): Place(Span(1, 1, 1), Span(1, 5, 1)),
        ("b", 0): Place(Span(2, 6, 1), Span(2, 6, 1)),
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("key = 'value' # comment\n" * 12_000, id="lines"),
        pytest.param("a = [" + "1, " * 100_000 + "]", id="one long line"),
        pytest.param("a = [\n" + "{b = 1},\n" * 33_000 + "]", id="inline tables"),
        pytest.param("[[a.b]]\nc = 1\n[a.b.d]\n" * 13_000, id="arrays of tables"),
        pytest.param('a = """' + '\\"""\\n' * 50_000 + '"""', id="escapes"),
        pytest.param('a = """' + '\\"" ' * 70_000, id="a string without an end"),
        pytest.param("a = '''" + "'' " * 100_000, id="a literal string without an end"),
        pytest.param('a = "' + "\\\\" * 150_000, id="a line string without an end"),
        pytest.param("a = " + "[" * 300_000, id="opening brackets"),
        pytest.param("a = " + "{a=" * 100_000, id="opening braces"),
        pytest.param("a." * 150_000, id="a dotted key without an end"),
        pytest.param("a = 1" + " " * 300_000, id="blanks"),
        pytest.param("\n" * 300_000, id="blank lines"),
        pytest.param("#\n" * 150_000, id="empty comments"),
    ],
)
def test_a_large_text_takes_no_more_than_a_few_seconds(text: str) -> None:
    begin = time.monotonic()
    scan(text)
    # A scan in quadratic time would take minutes.
    assert time.monotonic() - begin < 5


def test_dates_are_one_value_with_and_without_their_time() -> None:
    text = "a = [1979-05-27, 1979-05-27 07:32:00, 07:32:00]"
    assert tomli.loads(text)["a"][1] == datetime.datetime(1979, 5, 27, 7, 32)
    assert [values(text)["a", index] for index in range(3)] == [
        "1979-05-27",
        "1979-05-27 07:32:00",
        "07:32:00",
    ]
