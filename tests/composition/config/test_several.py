"""Lists of services: their edges, their names, and what can be wrong with them, at the place of the entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from castore import Composition, CompositionError
from castore.composition.portrait import picture_of

TAIL = '\n[blobservices.near]\ntype = "memory"\n\n[blobservices.remote]\ntype = "memory"\n'


def problems(tmp_path: Path, *lines: str) -> list[tuple[int, int, str, str, str | None]]:
    """What is wrong with a fallback of these lines."""
    path = tmp_path / "composition.toml"
    path.write_text("\n".join(["[blobservices.root]", 'type = "fallback"', *lines, TAIL]))
    with pytest.raises(CompositionError) as caught:
        Composition.from_toml(path)
    return [
        (
            problem.line,
            problem.column,
            problem.dotted.removeprefix("blobservices.root."),
            problem.message,
            problem.hint,
        )
        for problem in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("services", "column", "path", "message", "hint"),
    [
        (
            '["&near", "&remoet"]',
            22,
            "services[1]",
            "no blob service is named `remoet`",
            "did you mean `&remote`?",
        ),
        (
            '["&near", { ref = "&remoet" }]',
            30,
            "services[1].ref",
            "no blob service is named `remoet`",
            "did you mean `&remote`?",
        ),
        (
            '["&near", "remote"]',
            22,
            "services[1]",
            '"remote" is no reference: the `&` is missing',
            "write `&remote` for the instance of that name",
        ),
        (
            '["&near", { ref = "&remote", tiemout = 3 }]',
            41,
            "services[1].tiemout",
            "unknown key `tiemout`",
            "did you mean `timeout`?",
        ),
        (
            '["&near", { ref = "&remote", timeout = "2 sec" }]',
            54,
            "services[1].timeout",
            "unknown unit `sec`",
            "did you mean `s`?",
        ),
        (
            '["&near", { ref = "&remote", on_error = "nex" }]',
            52,
            "services[1].on_error",
            'expected "next" or "fail", found the string "nex"',
            "did you mean `next`?",
        ),
        (
            '["&near", { timeout = 2 }]',
            22,
            "services[1]",
            "the key `ref` is missing",
            'write `ref = "&name"`',
        ),
        (
            '["&near", 5]',
            22,
            "services[1]",
            'expected a reference such as "&name", or a URL or a table, found the number 5',
            None,
        ),
        (
            '["&near", "&remote", { ref = "&near" }]',
            41,
            "services[2].ref",
            "`near` is listed already, as number 1",
            "refer to another instance, or remove it",
        ),
        (
            '["&near", "&near"]',
            22,
            "services[1]",
            "`near` is listed already, as number 1",
            "refer to another instance, or remove it",
        ),
        ("[]", 12, "services", "at least one service must be listed", 'write `["&name", ...]`'),
        (
            '"&near"',
            12,
            "services",
            'expected an array, found the string "&near"',
            'for an array of one write `["&near"]`',
        ),
        ('["&root"]', 13, "services[0]", "`root` refers to itself", "refer to another instance, or to none"),
    ],
)
def test_problems_stand_at_the_entry(
    tmp_path: Path, services: str, column: int, path: str, message: str, hint: str | None
) -> None:
    """Line, column, path and suggestion are those of the entry, or of the key in it."""
    assert problems(tmp_path, f"services = {services}") == [(3, column, path, message, hint)]


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("&near", "a name belongs here, and no reference", 'write `"near"`'),
        ("naer", "none of the `services` is named `naer`", "did you mean `near`?"),
        ("qq", "none of the `services` is named `qq`", "the services here are `near`, `services[1]`"),
    ],
)
def test_a_name_of_none_of_them(tmp_path: Path, written: str, message: str, hint: str) -> None:
    """A field that names one of the services names one that is listed."""
    found = problems(tmp_path, 'services = ["&near", "memory:"]', f'write_to = "{written}"')
    assert found == [(4, 12, "write_to", message, hint)]


def test_all_problems_of_a_list_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path, 'services = ["near", { ref = 5 }, { ref = "&remote", timeout = -1 }, "&remot"]'
    )
    assert [path for _, _, path, *_ in found] == [
        "services[0]",
        "services[1].ref",
        "services[2].timeout",
        "services[3]",
    ]


def test_every_entry_is_an_edge(tmp_path: Path) -> None:
    """Also one in a table, and the instance that a URL makes."""
    path = tmp_path / "composition.toml"
    text = 'services = [{ ref = "&near", timeout = "2 s" }, "&remote", "memory:"]'
    path.write_text(f'[blobservices.root]\ntype = "fallback"\n{text}\n{TAIL}')
    with Composition.from_toml(path) as stores:
        picture = picture_of(stores.graph, "")
        edges = [(edge.label, edge.target) for edge in picture.edges]
        assert edges == [
            ("services[0].ref", "blobservices.near"),
            ("services[1]", "blobservices.remote"),
            ("services[2]", "blobservices.root.services[2]"),
        ]
        assert picture.unreachable == frozenset()
        digest = stores.blobs().write(b"data")
        assert stores.blobs("near").has(digest)
