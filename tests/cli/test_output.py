"""The small parts: columns, sizes, what does not print."""

from __future__ import annotations

import json

import pytest

from castore.cli.output import JsonRows, OutputError, PlainText, printable, table
from castore.text import size_text


def test_columns_are_as_wide_as_their_widest_cell():
    """Right where it is asked for, and with no spaces at the end."""
    assert table(("n", "word"), [("1", "a"), ("100", "bb")], right=(0,)) == "  n  word\n  1  a\n100  bb\n"


def test_cells_hold_no_control_codes():
    """They are written out, and counted so."""
    assert table(("a", "b"), [("\x1b", "c")]) == "a     b\n\\x1b  c\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße\n\tfrom a file\r\n".encode(), True), (b"", True), ("é".encode()[:1], True),
        (bytes(range(256)), False), (b"a title: \x1b]0;mine\x07", False), ("c1: \x9b2J".encode(), False),
        (b"no UTF-8: \xff", False), (b"hidden\rshown", False), (b"\0", False),
    ],
)  # fmt: skip
def test_plain_text_is_what_a_terminal_cannot_obey(capfdbinary, data, text):
    """In pieces of any size; nothing of a piece that is none is written."""
    write = PlainText("do so")
    if text:
        for place in range(len(data)):
            write(memoryview(data[place : place + 1]))
    else:
        with pytest.raises(OutputError, match="is no text, and stdout is a terminal; do so"):
            write(memoryview(data))

    assert capfdbinary.readouterr().out == (data if text else b"")


@pytest.mark.parametrize("rows", [[], [1], [{"a": [1, {"b": "c"}], "d": []}, "e"]])
@pytest.mark.parametrize("rest", [{}, {"errors": []}, {"errors": [{"x": [1]}], "more": {"y": None}}])
def test_rows_of_json_are_what_json_would_write(capfdbinary, rows, rest):
    """Written one by one."""
    document = JsonRows("rows")
    for row in rows:
        document.add(row)
    document.end(**rest)

    assert capfdbinary.readouterr().out.decode() == json.dumps({"rows": rows} | rest, indent=2) + "\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"), ((1 << 30) + (1 << 29), "1.5 GiB"), (1 << 40, "1.0 TiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)  # fmt: skip
def test_sizes_are_for_people(size, text):
    """In the largest unit that leaves a number of at least 1."""
    assert size_text(size) == text


def test_what_does_not_print_is_written_out():
    """But for line ends and tabs."""
    assert printable("a\x00\x1b[1m\u202e\udcff\nb\tä") == "a\\x00\\x1b[1m\\u202e\\udcff\nb\tä"
