"""Broken compositions and what is said of them, word for word.

`CASTORE_RENEW_GOLDEN=1 pytest tests/composition/test_broken.py` writes the `.err` files anew; read the
difference as a user would before you keep it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from castore import Composition, CompositionError, CycleError, Registry
from castore.composition.types.plugins import discover
from castore.problems import Problem

FOLDER = Path(__file__).parents[1] / "testdata" / "compositions" / "broken"
FILES = sorted(FOLDER.glob("*.toml"))
RENEW = bool(os.environ.get("CASTORE_RENEW_GOLDEN"))

ENVIRONMENT = {"S3_TOKEN": "hunter2-token", "S3_SECRET": "hunter2-secret"}

# An instance that is broken on its own, to be found beside what else is wrong with a file ...
BROKEN_INSTANCE = '\n\n[blobservices.zzz]\ntype = "qqqqqq"\n'
# ... and a table, for files that are wrong because there is no instance, or where none can be.
BROKEN_TABLE = "\n\n[qqqqqq]\nverbose = true\n"
WITH_A_TABLE = {
    "empty",
    "only-a-comment",
    "only-tables-of-others",
    "kind-an-array-of-tables",
    "kind-not-a-table",
}

NOT_READ_TO_THE_END = {
    # After twenty errors nobody reads on.
    "syntax-twenty-and-more",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(ENVIRONMENT))


@pytest.fixture
def registry_for(request: pytest.FixtureRequest) -> Callable[[Path], Registry]:
    """The registry that a file is for: by the beginning of its name."""

    def registry_for(path: Path) -> Registry:
        if path.name.startswith("types-"):
            registry: Registry = request.getfixturevalue("shelf")
        elif path.name.startswith("faults-"):
            registry = request.getfixturevalue("with_faults")
        elif path.name.startswith("lru-"):
            registry = request.getfixturevalue("with_lru")
        elif path.name.startswith("plugin-"):
            registry = request.getfixturevalue("with_broken_plugins")
        else:
            registry = request.getfixturevalue("registry")
        return registry

    return registry_for


@pytest.fixture
def with_faults(registry: Registry) -> Registry:
    """The bundled types, and the one that is refused unless a composition says otherwise."""
    for plugin in discover():
        if plugin.name == "wrappers":
            registry.load(plugin)
    assert not registry.broken
    return registry


@pytest.fixture
def with_lru(registry: Registry) -> Registry:
    """The bundled types, and the one that is to be bounded."""
    for plugin in discover():
        if plugin.name == "lru":
            registry.load(plugin)
    assert not registry.broken
    return registry


@pytest.fixture
def with_broken_plugins(install: Callable[..., Path], registry: Registry) -> Registry:
    """The bundled types and plugins that do not work, each in its own way."""
    install("castore-tape", "1.0", {"tape": "castore_tape"}, {"castore_tape": "import tapelib\n"})
    half = (
        "import castore, attrs\n"
        "@attrs.frozen\nclass Half:\n    def build(self, name, context): ...\n"
        "@castore.hookimpl\ndef castore_register(registry):\n"
        "    registry.register(castore.BlobService, 'other-half', Half)\n"
        "    raise OSError(2, 'No such file or directory', 'half.cfg')\n"
    )
    install("castore-half", "0.5", {"half": "castore_half"}, {"castore_half": half}, folder="half")
    hookless = "def castore_register(registry): ...\n"
    install(
        "hookless", "3", {"hookless": "castore_hookless"}, {"castore_hookless": hookless}, folder="hookless"
    )
    install(
        "exits", "1", {"exits": "castore_exits"}, {"castore_exits": "raise SystemExit(3)"}, folder="exits"
    )
    for plugin in discover():
        if plugin.name in {"tape", "half", "hookless", "exits"}:
            registry.load(plugin)
    assert len(registry.broken) == 4
    return registry


def error_of(path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> CompositionError:
    """The error for a file, which is named without its folder."""
    monkeypatch.chdir(path.parent)
    with pytest.raises(CompositionError) as caught:
        Composition.from_toml(path.name, registry=registry)
    return caught.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_broken_file_is_explained_word_for_word(
    path: Path, registry_for: Callable[[Path], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = str(error_of(path, registry_for(path), monkeypatch)) + "\n"
    golden = path.with_suffix(".err")
    if RENEW:
        golden.write_text(message, "utf-8")
    assert message == golden.read_text("utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_problem_has_a_file_a_line_and_a_column(
    path: Path, registry_for: Callable[[Path], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of(path, registry_for(path), monkeypatch)
    places = re.findall(rf"^{re.escape(path.name)}:(\d+):(\d+): \S", str(error), re.MULTILINE)
    assert places == [(str(problem.line), str(problem.column)) for problem in error.problems]
    assert all(int(line) > 0 and int(column) > 0 for line, column in places)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_problem_hides_no_other(
    path: Path, registry_for: Callable[[Path], Registry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With one more mistake at its end, a file has all of its problems and the new one."""
    if path.stem in NOT_READ_TO_THE_END:
        pytest.skip("listed above, with the reason")
    registry = registry_for(path)
    before = error_of(path, registry, monkeypatch).problems
    addition = BROKEN_TABLE if path.stem in WITH_A_TABLE else BROKEN_INSTANCE
    encoding = "utf-16" if path.stem == "encoding-utf16" else "utf-8"
    longer = tmp_path / path.name
    added = addition.encode(encoding).removeprefix(b"\xff\xfe")
    longer.write_bytes(path.read_bytes() + added)
    for other in (FOLDER / "secret-not-utf8",):
        (tmp_path / other.name).write_bytes(other.read_bytes())
    after = error_of(longer, registry, monkeypatch).problems
    assert {identity(problem) for problem in before} <= {identity(problem) for problem in after}
    assert any("qqqqqq" in problem.message for problem in after)
    assert len(after) == len(before) + 1


def identity(problem: Problem) -> tuple[object, ...]:
    return problem.code, problem.path, problem.message, problem.line, problem.column, problem.width


def test_each_golden_message_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.err")} == {path.stem for path in FILES}
    assert len(FILES) >= 70


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_secret_is_in_a_golden_message(path: Path) -> None:
    assert "hunter" not in path.with_suffix(".err").read_text("utf-8")


def test_only_a_file_with_nothing_but_cycles_is_a_cycle_error(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = error_of(FOLDER / "reference-two-cycles.toml", registry, monkeypatch)
    assert isinstance(only, CycleError)
    assert only.chain == ["root", "a"]
    more = error_of(FOLDER / "encoding-crlf.toml", registry, monkeypatch)
    assert [problem.code for problem in more.problems] == ["cycle", "dangling-reference"]
    assert not isinstance(more, CycleError)
