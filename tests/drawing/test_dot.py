from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from castore.drawing import Picture
from castore.drawing.dot import dot


def test_a_line_for_each_node_and_edge(cache: Picture) -> None:
    drawing = dot(cache)
    assert '  n0 [label=<<b>root</b><br/><font point-size="10">cache</font>>, penwidth=2];\n' in drawing
    assert "  n0 -> n1 [label=<near>];\n" in drawing


def test_the_characters_of_a_name_are_not_markup(names: Picture) -> None:
    drawing = dot(names)
    assert '<b>&lt;b&gt;&amp;"evil"</b>' in drawing
    assert 'label=<near&lt;&amp;"&gt;>' in drawing


def test_an_edge_without_a_label_has_none(names: Picture) -> None:
    assert "  n2 -> n3;\n" in dot(names)


def test_what_nobody_reaches_is_dashed(unreached: Picture) -> None:
    assert len(re.findall("dashed", dot(unreached))) == 3 + 2


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_graphviz_reads_every_picture_without_a_word(picture: Picture) -> None:
    drawn = subprocess.run(
        ["dot", "-Tplain"], input=dot(picture), capture_output=True, encoding="utf-8", check=True
    )
    assert drawn.stderr == ""
    assert drawn.stdout.count("\nnode ") == len(picture.nodes)
    assert drawn.stdout.count("\nedge ") == len(picture.edges)
