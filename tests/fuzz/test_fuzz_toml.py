"""Whatever stands in a composition: a graph, or `CompositionError` with a place for each problem."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import Composition, CompositionError, Registry
from castore.composition.toml.document import parse

FUZZ = settings.get_profile("fuzz")
REGISTRY = Registry.default()
ROOT = Path(__file__).parents[2]

SAMPLES = [
    path.read_text("utf-8", "replace")
    for path in [
        ROOT / "composition.toml",
        *sorted((ROOT / "tests/testdata/compositions/broken").glob("*.toml")),
    ]
    if path.stat().st_size < 4000
]

TOKENS = st.sampled_from(
    [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        "==",
        ",",
        ".",
        "#",
        '"',
        "'",
        '"""',
        "'''",
        "\\",
        "\\u00",
        "\n",
        "\r",
        "\r\n",
        "\t",
        " ",
        "\0",
        "\x7f",
        "\ufeff",
        "é",
        "\ud7ff",
        "true",
        "false",
        "nan",
        "-inf",
        "0x",
        "1_",
        "1e400",
        "9" * 5000,
        "1979-05-27",
        "07:32:00",
        "1979-13-40T99:99:99Z",
        "blobservices",
        "[blobservices.root]\n",
        'type = "memory"\n',
        'type = "faulty"\n',
        'near = "&root"\n',
        "allow_faults = true\n",
        "allow_faults",
        "&",
        "memory:",
        "${HOME}",
        "${",
        "$${",
        "{ file = '/nowhere' }",
        "{ file = 1 }",
        "[blobservices]\n",
        "[a.b]\n",
        "a.b = 1\n",
        "[" * 200,
        "{a=" * 200,
        "<<<<<<< HEAD\n",
        "=======\n",
        ">>>>>>> x\n",
        "\N{REPLACEMENT CHARACTER}",
    ]
)

EDITS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(0, 60), st.one_of(TOKENS, st.text(max_size=6))),
    min_size=1,
    max_size=5,
)


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    for place, count, new in edits:
        at = place % (len(text) + 1)
        text = text[:at] + new + text[at + count :]
    return text


TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(st.one_of(TOKENS, st.text(max_size=5)), max_size=30).map("".join),
    st.builds(edited, st.sampled_from(SAMPLES), EDITS),
)


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "composition.toml"


def check(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        composition = Composition.from_toml(file, registry=REGISTRY)
    except CompositionError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.line >= 1
            assert problem.column >= 1
            assert problem.message
        assert str(error).count(str(file)) >= 1
        return
    assert composition.picture() is not None
    composition.close()


@FUZZ
@given(TEXTS)
def test_texts(file: Path, text: str) -> None:
    check(file, text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda text, at, more: text.encode()[:at] + more + text.encode()[at:],
            st.sampled_from(SAMPLES),
            st.integers(0, 500),
            st.binary(min_size=1, max_size=4),
        ),
    )
)
def test_bytes(file: Path, content: bytes) -> None:
    check(file, content)


@FUZZ
@given(TEXTS)
def test_parsing_finds_all_or_reads_all(text: str) -> None:
    """Without problems nothing is left out: the same again is the same."""
    document = parse(text)
    if not document.problems:
        assert not document.damaged
        assert not document.lost
    assert document.may_lack(()) in {True, False}


KEYS = st.one_of(
    st.sampled_from(
        ["blobservices", "directoryservices", "allow_faults", "root", "type", "near", "far", "inner", "x"]
    ),
    st.text(max_size=4),
    st.integers(),
    st.none(),
)
LEAVES: Any = st.one_of(
    st.sampled_from(
        ["memory", "cache", "faulty", "objectstore", "&root", "&x", "memory:", "file:x", "${HOME}"]
    ),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.just(10**400),
    st.builds(object),
    st.just(int),
    st.builds(set),
)
VALUES: Any = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
INSTANCES = st.one_of(
    VALUES,
    st.builds(
        lambda tag, table: {"type": tag, **table},
        st.sampled_from(["memory", "cache", "faulty", "objectstore"]),
        st.dictionaries(
            st.sampled_from(
                [
                    "near",
                    "far",
                    "inner",
                    "fail",
                    "latency",
                    "operations",
                    "write",
                    "object_store_url",
                    "object_store_options",
                    "avg_chunk_size",
                    "chunker",
                    "compression_level",
                    "seed",
                ]
            ),
            VALUES,
        ),
    ),
)
MAPPINGS = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.builds(
        lambda instances, more: {"allow_faults": True, **more, "blobservices": instances},
        st.dictionaries(KEYS, INSTANCES, max_size=3),
        st.dictionaries(KEYS, VALUES, max_size=1),
    ),
)


@FUZZ
@given(MAPPINGS)
def test_mappings(mapping: Any) -> None:
    """Python objects where TOML would have tables: such a program has a bug, and is told which."""
    try:
        Composition.from_mapping(mapping, registry=REGISTRY).close()
    except CompositionError as error:
        assert str(error)


def test_nothing_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading makes no folder, so neither did the tests above."""
    monkeypatch.chdir(tmp_path)
    tables = {"root": {"type": "objectstore", "object_store_url": "file:x"}}
    Composition.from_mapping({"blobservices": tables}, registry=REGISTRY).close()
    assert list(tmp_path.iterdir()) == []
