from __future__ import annotations

import json

import attrs

from castore.drawing import Arrow, Node, Picture
from castore.drawing.document import document


def test_the_document_has_all_of_the_picture(picture: Picture) -> None:
    given = json.loads(document(picture))
    assert (
        Picture(
            title=given["title"],
            nodes=tuple(Node(**node) for node in given["nodes"]),
            edges=tuple(Arrow(**edge) for edge in given["edges"]),
            roots=tuple(given["roots"]),
            unreachable=frozenset(given["unreachable"]),
        )
        == picture
    )


def test_the_keys_are_those_that_programs_rely_on(cache: Picture) -> None:
    given = json.loads(document(cache))
    assert list(given) == ["title", "nodes", "edges", "roots", "unreachable"]
    assert list(given["nodes"][0]) == [
        *("id", "name", "kind", "type", "detail", "state", "note", "gauges"),
    ]
    assert list(given["edges"][0]) == ["source", "target", "label"]


def test_the_document_is_ascii_whatever_the_names(names: Picture) -> None:
    lone_surrogate = attrs.evolve(names.nodes[0], name="\ud800")
    assert document(attrs.evolve(names, nodes=(lone_surrogate, *names.nodes[1:]))).isascii()
