from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.drawing.words import DETAIL, NAME, fitted, shown, width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcode 日本", "plain ünïcode 日本"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\ud800", r"\ud800"),
        ("\ufffe", r"\ufffe"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text())
def test_shown_text_always_prints(text: str) -> None:
    assert shown(text).isprintable()


# Advance widths in DejaVu Sans Bold and DejaVu Sans Mono, in em, from the fonts themselves.
@pytest.mark.parametrize(
    ("text", "ems"),
    [("root", 0.493 + 0.687 + 0.687 + 0.478), ("Wm@", 1.103 + 1.042 + 1.000), ("illi", 4 * 0.343)],
)
def test_a_text_is_never_wider_than_estimated(text: str, ems: float) -> None:
    assert ems * 15 <= width(text, NAME) <= ems * 15 * 1.2


def test_a_character_of_full_width_counts_as_such() -> None:
    assert width("日", DETAIL) >= 11
    assert width("e\u0301", DETAIL) == width("e", DETAIL)


def test_a_long_text_keeps_both_ends() -> None:
    url = "s3://bucket/a/very/long/prefix/that/goes/on/eu-central-1"
    cut = fitted(url, 150, DETAIL)
    head, tail = cut.split("…")
    assert url.startswith(head)
    assert url.endswith(tail)
    assert abs(len(head) - len(tail)) <= 1


@given(st.text(), st.integers(min_value=20, max_value=300))
def test_a_fitted_text_fits(text: str, limit: int) -> None:
    cut = fitted(text, limit, NAME)
    assert width(cut, NAME) <= limit + 1e-6  # sums of floats
    assert cut == text or "…" in cut
