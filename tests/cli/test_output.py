"""The small parts: columns, sizes, what does not print."""

from __future__ import annotations

import pytest

from castore.cli.output import printable, table
from castore.text import size_text


def test_columns_are_as_wide_as_their_widest_cell():
    """Right where it is asked for, and with no spaces at the end."""
    assert table(("n", "word"), [("1", "a"), ("100", "bb")], right=(0,)) == "  n  word\n  1  a\n100  bb\n"


def test_cells_hold_no_control_codes():
    """They are written out, and counted so."""
    assert table(("a", "b"), [("\x1b", "c")]) == "a     b\n\\x1b  c\n"


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
