from __future__ import annotations

import re

import attrs

from castore.drawing import Picture
from castore.drawing.mermaid import mermaid


def test_a_line_for_each_node_and_edge(cache: Picture) -> None:
    lines = [line.strip() for line in mermaid(attrs.evolve(cache, title="")).splitlines()]
    assert lines == [
        "flowchart LR",
        'n0["<b>root</b><br/>cache"]',
        'n1["<b>local</b><br/>objectstore<br/>file#58;#46;/stores/near"]',
        'n2["<i>objectstore</i><br/>s3#58;//bucket/prefix"]',
        'n0 -->|"near"| n1',
        'n0 -->|"far"| n2',
        "classDef root stroke-width:3px",
        "class n0 root",
    ]


def test_no_punctuation_of_a_name_reaches_mermaid(names: Picture) -> None:
    body = mermaid(names).split("---\n")[2]
    for label in re.findall(r'"(.*)"', body):
        words = re.sub(r"</?[bi]>|<br/>|#\d+;", "", label)
        assert re.fullmatch(r"[\w /\-·…]*", words), label


def test_a_backslash_and_an_n_do_not_become_a_line_break(names: Picture) -> None:
    assert "C#58;#92;#8203;new" in mermaid(names)


def test_the_title_is_a_yaml_string_without_an_entity(names: Picture) -> None:
    assert mermaid(names).startswith('---\ntitle: "<&\\"> \\u00231; ]]> \\u00e9.toml"\n---\nflowchart LR\n')


def test_what_nobody_reaches_is_dashed(unreached: Picture) -> None:
    drawing = mermaid(unreached)
    assert 'n1 -.->|"near"| n2' in drawing
    assert 'n0 -->|"near"| n2' in drawing
    assert "class n1,n4,n5 unreached" in drawing


def test_an_edge_may_be_without_a_label(names: Picture) -> None:
    assert "  n2 --> n3\n" in mermaid(names)
