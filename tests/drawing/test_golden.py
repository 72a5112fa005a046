"""The drawings of four pictures, letter by letter.

After an intended change, renew them with `CASTORE_RENEW_GOLDEN=1 pytest tests/drawing/test_golden.py`, look
at the difference, and at the SVG files in a browser, light and dark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from castore.drawing import FORMATS, Picture

GOLDEN = Path(__file__).parent / "golden"
SUFFIXES = {"tree": ".txt", "mermaid": ".mmd", "dot": ".dot", "svg": ".svg", "json": ".json"}


def test_there_is_a_golden_file_for_each_format() -> None:
    assert SUFFIXES.keys() == FORMATS.keys()


@pytest.mark.parametrize("format_", FORMATS)
def test_the_drawing_is_as_it_was_when_someone_looked_at_it(
    name: str, picture: Picture, format_: str
) -> None:
    golden = GOLDEN / (name + SUFFIXES[format_])
    drawing = FORMATS[format_](picture)
    if os.environ.get("CASTORE_RENEW_GOLDEN"):
        golden.write_text(drawing, encoding="utf-8")
    assert drawing == golden.read_text(encoding="utf-8")


DRAW_ALL = """
import json, sys
from castore.drawing import FORMATS, Arrow, Node, Picture

given = json.load(sys.stdin)
picture = Picture(
    title=given["title"],
    nodes=tuple(Node(**node) for node in given["nodes"]),
    edges=tuple(Arrow(**edge) for edge in given["edges"]),
    roots=tuple(given["roots"]),
    unreachable=frozenset(given["unreachable"]),
)
json.dump({name: draw(picture) for name, draw in FORMATS.items()}, sys.stdout)
"""


def test_another_process_with_another_hash_seed_draws_the_same(unreached: Picture) -> None:
    # Sets with many members, so that their order does differ.
    nodes = [attrs.evolve(unreached.nodes[-1], id=f"loose{n}", type=f"type{n}") for n in range(20)]
    picture = attrs.evolve(
        unreached,
        nodes=(*unreached.nodes, *nodes),
        unreachable=unreached.unreachable | {node.id for node in nodes},
    )
    here = {name: draw(picture) for name, draw in FORMATS.items()}
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", DRAW_ALL],
            input=FORMATS["json"](picture),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert json.loads(there.stdout) == here
