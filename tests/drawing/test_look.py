from __future__ import annotations

import re

import pytest

from castore.drawing.look import accent, stylesheet


def test_the_usual_types_each_have_a_colour_of_their_own() -> None:
    usual = ["cache", "grpc", "lru", "memory", "objectstore", "redb"]
    assert len({accent(type_) for type_ in usual}) == len(usual)


def test_a_type_keeps_its_colour_from_release_to_release() -> None:
    assert [accent("objectstore"), accent("memory"), accent("cache")] == ["a0", "a1", "a5"]


def test_a_colour_for_any_type_is_in_the_style_sheet() -> None:
    for type_ in ("", "日本", "\ud800", *map(str, range(50))):
        assert f".{accent(type_)}{{fill:#" in stylesheet()


def luminance(colour: str) -> float:
    parts = re.findall("..", colour) if len(colour) == 6 else [2 * digit for digit in colour]
    values = [int(part, 16) / 255 for part in parts]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("word", "ground"),
    [
        ("name", "card"),
        ("type", "card"),
        ("detail", "card"),
        ("caption", "paper"),
        ("field", "pill"),
        ("well-word", "well"),
        ("heed-word", "heed"),
    ],
)
def test_words_stand_out_from_their_ground(theme: str, word: str, ground: str) -> None:
    """A contrast of 4.5 : 1 is what WCAG 2.2 asks for text of this size (level AA)."""
    sheet = stylesheet().partition("@media")[0 if theme == "light" else 2]
    fills = dict(re.findall(r"^\.([\w-]+)\{fill:#([0-9a-f]+)", sheet, re.MULTILINE))
    dark, light = sorted((luminance(fills[word]), luminance(fills[ground])))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
