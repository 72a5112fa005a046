"""What looks wrong in compositions that are right, word for word.

`CASTORE_RENEW_GOLDEN=1 pytest tests/composition/test_lints.py` writes the `.warn` files anew; read the
difference as a user would before you keep it.
"""

from __future__ import annotations

import abc
import inspect
import logging
import os
import pickle
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore import (
    B3Digest,
    BlobService,
    CastoreError,
    Composition,
    CompositionError,
    Ref,
    Registry,
    problems,
)
from castore.composition import BuildContext, Problem, Traits, View, report
from castore.composition.graph.lints import traits_of
from castore.contract import capabilities
from castore.contract.capabilities import BlobDeleter, EvictionEvents

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "testdata" / "compositions" / "warned"
FILES = sorted(FOLDER.glob("*.toml"))
RENEW = bool(os.environ.get("CASTORE_RENEW_GOLDEN"))


@attrs.frozen
class Passing:
    """Hands on another service."""

    inner: Ref[BlobService]

    def build(self, name: str, context: BuildContext) -> BlobService:
        return context.resolve(self.inner)


@attrs.frozen
class Bounded(Passing):
    """A stranger's type, which needs to delete."""

    def lints(self, view: View) -> Iterator[Problem]:
        if view.offers(self.inner, BlobDeleter) is False:
            yield view.warning(
                "cannot-delete", self.inner, f"`{view.called(self.inner)}` deletes nothing", "choose another"
            )


@attrs.frozen
class Clumsy(Passing):
    """A stranger's type, whose methods fail."""

    def traits(self, view: View) -> Traits:
        raise ZeroDivisionError("a mistake")

    def lints(self, view: View) -> Iterator[Problem]:
        yield view.warning("fine", "inner", "this one was yielded in vain")
        raise KeyError("another one")


@attrs.frozen
class Rambling(Passing):
    """A stranger's type, whose methods return what they should not."""

    def traits(self, view: View) -> Any:
        return {"writable": False}

    def offers(self, kind: type, view: View) -> Any:
        raise LookupError("a mistake")

    def lints(self, view: View) -> Any:
        return ["it looks wrong to me"]


@pytest.fixture
def registry() -> Registry:
    """All bundled types, and those of strangers."""
    registry = Registry.default()
    for config in (Passing, Bounded, Clumsy, Rambling):
        registry.register(BlobService, config.__name__.lower(), config)
    return registry


@pytest.fixture
def warnings_of(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Any:
    """Load a file, which is named without its folder."""

    def warnings_of(path: Path) -> Composition:
        monkeypatch.chdir(path.parent)
        return Composition.from_toml(path.name, registry=registry)

    return warnings_of


def loaded(text: str, folder: Path, registry: Registry) -> Composition:
    path = folder / "composition.toml"
    path.write_text(text)
    return Composition.from_toml(path, registry=registry)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_looks_wrong_is_explained_word_for_word(path: Path, warnings_of: Any) -> None:
    found = warnings_of(path).describe_warnings() + "\n"
    golden = path.with_suffix(".warn")
    if RENEW:
        golden.write_text(found, "utf-8")
    assert found == golden.read_text("utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_warning_has_a_file_a_line_and_a_column(path: Path, warnings_of: Any) -> None:
    stores = warnings_of(path)
    places = re.findall(
        rf"^{re.escape(path.name)}:(\d+):(\d+): warning: \S", stores.describe_warnings(), re.MULTILINE
    )
    assert places == [(str(warning.line), str(warning.column)) for warning in stores.warnings]
    assert all(
        warning.severity == "warning" and warning.line and warning.column for warning in stores.warnings
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_warning_can_be_ignored(path: Path, tmp_path: Path, registry: Registry) -> None:
    """By its code, or by its code and the name of the instance."""
    text = path.read_text()
    found = loaded(text, tmp_path, registry).warnings
    assert found
    by_code = [f'"{warning.code}"' for warning in found]
    by_name = [f'"{warning.code}:{warning.path[1]}"' for warning in found]
    for entries in (by_code, by_name):
        ignoring = f"ignore_warnings = [{', '.join(entries)}]\n{text}"
        assert not loaded(ignoring, tmp_path, registry).warnings
    others = [f'"{warning.code}:another"' for warning in found]
    still = loaded(f"ignore_warnings = [{', '.join(others)}]\n{text}", tmp_path, registry).warnings
    assert [warning.code for warning in still] == [warning.code for warning in found]


def test_each_golden_warning_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.warn")} == {path.stem for path in FILES}


RIGHT = {
    "one-attempt": """
        root = { type = "retry", inner = "&b", attempts = 1 }
        b = { type = "retry", inner = "memory:" }""",
    "two-retries-side-by-side": """
        root = { type = "mirror", services = ["&a", "&b"] }
        a = { type = "retry", inner = "memory:" }
        b = { type = "retry", inner = "memory:" }""",
    "made-for-reading": """
        root = { type = "fallback", services = ["&a", "&b"] }
        a = { type = "read_only", inner = "memory:" }
        b = { type = "objectstore", object_store_url = "https://example.org/blobs" }""",
    "a-mirror-made-for-reading": """
        root = { type = "mirror", services = ["&a", "&b"] }
        a = { type = "read_only", inner = "memory:" }
        b = { type = "read_only", inner = "memory:" }""",
    "a-quorum-that-is-just-reached": """
        root = { type = "mirror", services = ["&a", "memory:", "memory:"], write_quorum = 2, miss_quorum = 2 }
        a = { type = "error" }""",
    "a-frozen-far": """
        root = { type = "cache", near = "memory:", far = "&a" }
        a = { type = "read_only", inner = "memory:" }""",
    "neighbours": """
        root = { type = "cache", near = "objectstore+file:./a", far = "objectstore+file:./ab" }""",
    "buckets-are-not-folders": """
        root = { type = "cache", near = "objectstore+s3://a/b", far = "objectstore+s3://a/b/c" }""",
    "a-list-of-stores": """
        root = { type = "memory" }
        a = { type = "memory" }
        b = { type = "objectstore", object_store_url = "file:./b" }""",
    "shared-below": """
        root = { type = "cache", near = "&a", far = "&b" }
        b = { type = "fallback", services = ["&a", "memory:"] }
        a = { type = "objectstore", object_store_url = "file:./a" }""",
    "of-a-stranger-nothing-is-known": """
        root = { type = "cache", near = "&a", far = "memory:", write = "both" }
        a = { type = "passing", inner = "&b" }
        b = { type = "read_only", inner = "memory:" }""",
    "a-capability-that-may-be-there": """
        root = { type = "bounded", inner = "&a" }
        a = { type = "passing", inner = "memory:" }""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not_warned_of(name: str, tmp_path: Path, registry: Registry) -> None:
    stores = loaded(f"[blobservices]\n{RIGHT[name]}\n", tmp_path, registry)
    assert stores.describe_warnings() == ""


@pytest.mark.parametrize(
    "path", [ROOT / "composition.toml", *sorted(ROOT.glob("examples/**/composition.toml"))], ids=str
)
def test_the_compositions_of_the_repository_are_not_warned_of(path: Path) -> None:
    """Those in the docs are held to the same by tests/test_docs.py."""
    assert castore.open(path).describe_warnings() == ""


def test_the_examples_of_the_types_are_not_warned_of(tmp_path: Path, registry: Registry) -> None:
    """The blocks of TOML with which the modules of the configs begin."""
    seen = 0
    for path in sorted(ROOT.glob("plugins/**/config.py")):
        _, found, example = path.read_text().partition("Example::\n")
        if found:
            text = re.sub(r"^    ", "", example.partition('"""')[0], flags=re.MULTILINE)
            assert loaded(text, tmp_path, registry).describe_warnings() == "", path
            seen += 1
    assert seen >= 10


def test_warnings_are_logged_once_each(
    tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "castore.composition"):
        stores = loaded((FOLDER / "several.toml").read_text(), tmp_path, registry)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(stores.warnings) > 1
    assert all(warning.message in line for warning, line in zip(stores.warnings, messages, strict=True))
    assert not any("\n" in line for line in messages)


def test_a_mapping_is_warned_of_without_places(registry: Registry) -> None:
    table = {"root": {"type": "cache", "near": "&a", "far": "memory:"}, "a": {"type": "error"}}
    stores = Composition.from_mapping({"blobservices": table}, registry=registry)
    assert [(entry.code, entry.dotted, entry.line) for entry in stores.warnings] == [
        ("near-not-writable", "blobservices.root.near", 0)
    ]
    assert stores.describe_warnings().startswith("<mapping>: warning: blobservices.root.near: `a` cannot")


def test_a_composition_that_was_pickled_has_its_warnings(tmp_path: Path) -> None:
    text = (FOLDER / "shared-file.toml").read_text()
    stores = loaded(text, tmp_path, Registry.default())
    path = tmp_path / "composition.toml"
    again = pickle.loads(pickle.dumps(Composition.from_toml(path)))
    assert [entry.code for entry in again.warnings] == [entry.code for entry in stores.warnings]


def test_no_secret_is_in_a_warning(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB", "objectstore+https://me:hunter2@example.org/blobs")
    text = """
        root = { type = "cache", near = "${WEB}", far = "&far" }
        far = { type = "objectstore", object_store_url = "https://me:hunter2@example.org/blobs" }
        spare = { type = "read_only", inner = "${WEB}" }"""
    stores = loaded(f"[blobservices]\n{text}\n", tmp_path, registry)
    assert {entry.code for entry in stores.warnings} == {"near-not-writable", "unused-instance"}
    assert "hunter2" not in stores.describe_warnings()
    assert "hunter2" not in repr(stores.warnings)


def test_what_a_type_says_wrongly_counts_as_not_said(registry: Registry) -> None:
    """One warning tells whose fault it is; who asks it of something is told nothing."""
    table = {
        "root": {"type": "cache", "near": "&a", "far": "&b"},
        "a": {"type": "rambling", "inner": "memory:"},
        "b": {"type": "verify", "inner": "&a", "on_corrupt": "quarantine"},
    }
    stores = Composition.from_mapping({"blobservices": table}, registry=registry)
    assert [(entry.code, entry.dotted) for entry in stores.warnings] == [
        ("near-is-far", "blobservices.root.far"),
        ("plugin", "blobservices.a"),
    ]


KEPT = {
    "near-to-far": 'root = { type = "cache", near = "&small", far = "&kept", write = "far" }',
    "near-to-both": 'root = { type = "cache", near = "&small", far = "&kept", write = "both" }',
    "far-behind": 'root = { type = "cache", near = "&kept", far = "&small", write = "behind",'
    ' queue = "./q" }',
    "far-to-both-or-fails": 'root = { type = "cache", near = "&kept", far = "&small", write = "both",'
    ' on_near_error = "fail" }',
    "one-of-a-mirror": 'root = { type = "mirror", services = ["&kept", "&small"] }',
    "a-cache-in-a-mirror": 'root = { type = "mirror", services = ["&kept", "&cached"] }\n'
    'cached = { type = "cache", near = "&small", far = "memory:" }',
    "not-the-target": 'root = { type = "fallback", services = ["&small", "&kept"], write_to = "kept" }',
    "only-read": 'root = { type = "read_only", inner = "&cached" }\n'
    'cached = { type = "cache", near = "&small", far = "&kept" }',
    "meant-so": 'root = { type = "retry", inner = "&small" }\n'
    'beside = { type = "fallback", services = ["&root", "&kept"], write_to = "kept" }',
}
LOST = {
    "near": ('root = { type = "cache", near = "&small", far = "&kept" }', "root.near"),
    "near-through-wrappers": (
        (
            'root = { type = "breaker", inner = "&cached" }\n'
            'cached = { type = "cache", near = "&slow", far = "&kept" }\n'
            'slow = { type = "retry", inner = "&limited" }\n'
            'limited = { type = "limit", inner = "&small", concurrency = 1 }'
        ),
        "cached.near",
    ),
    "near-in-a-cache": (
        (
            'root = { type = "cache", near = "&inner", far = "memory:" }\n'
            'inner = { type = "cache", near = "&small", far = "&kept" }'
        ),
        "inner.near",
    ),
    "far": ('root = { type = "cache", near = "&kept", far = "&small", write = "far" }', "root.far"),
    "far-of-both": ('root = { type = "cache", near = "&kept", far = "&small", write = "both" }', "root.far"),
    "target": (
        'root = { type = "fallback", services = ["&kept", "&small"], write_to = "small" }',
        "root.services[1]",
    ),
    "a-quorum": (
        (
            'root = { type = "mirror", services = ["&kept", "&small", "&other"] }\n'
            'other = { type = "lru", inner = "memory:", max_entries = 10 }'
        ),
        "root.services[1]",
    ),
    "by-name": (
        (
            'root = { type = "fallback", services = ["&kept", "memory:"] }\n'
            'beside = { type = "cache", near = "&small", far = "&kept" }'
        ),
        "beside.near",
    ),
}
SERVICES = """
small = { type = "lru", inner = "&rows", max_bytes = "1 MiB" }
rows = { type = "sqlite", path = "./rows" }
kept = { type = "objectstore", object_store_url = "file:./kept" }
"""


def evictions(text: str, tmp_path: Path, registry: Registry) -> list[str]:
    stores = loaded(f"[blobservices]\n{text}\n{SERVICES}", tmp_path, registry)
    return [entry.dotted for entry in stores.warnings if entry.code == "stored-then-evicted"]


@pytest.mark.parametrize("name", KEPT)
def test_there_is_another_copy(name: str, tmp_path: Path, registry: Registry) -> None:
    assert evictions(KEPT[name], tmp_path, registry) == []


@pytest.mark.parametrize("name", LOST)
def test_the_only_copy_may_be_evicted(name: str, tmp_path: Path, registry: Registry) -> None:
    """Told once, at what has chosen so, at whatever depth that is."""
    text, at = LOST[name]
    assert evictions(text, tmp_path, registry) == [f"blobservices.{at}"]


def test_what_says_that_it_evicts(tmp_path: Path, registry: Registry) -> None:
    """A stranger's, by the capability that it offers."""

    @attrs.frozen
    class Config:
        def offers(self, kind: type, view: View) -> bool:
            return kind is EvictionEvents

        def build(self, name: str, context: BuildContext) -> Any: ...

    registry.register(BlobService, "drops", Config)
    text = 'root = { type = "cache", near = "&drops", far = "&kept" }\ndrops = { type = "drops" }'
    assert evictions(text, tmp_path, registry) == ["blobservices.root.near"]


def test_sixty_caches_that_ask_twice(registry: Registry) -> None:
    """Each is warned of, and they are no 2^60 questions."""
    table: dict[str, Any] = {
        f"n{number}": {"type": "cache", "near": f"&n{number + 1}", "far": f"&n{number + 1}"}
        for number in range(60)
    }
    table |= {"root": {"type": "retry", "inner": "&n0"}, "n60": {"type": "memory"}}
    with Composition.from_mapping({"blobservices": table}, registry=registry) as stores:
        assert [entry.code for entry in stores.warnings] == ["near-is-far"] * 60
        absent = B3Digest(bytes(32))
        blobs = stores.blobs()
        assert not blobs.has(absent)
        assert blobs.open_read(absent) is None
        assert blobs.chunks(absent) is None
        digest = blobs.write(b"data")
        assert blobs.read(digest) == b"data"


def test_a_long_chain_is_no_trouble(registry: Registry) -> None:
    """References may be deeper than Python's stack."""
    table: dict[str, Any] = {
        f"n{number}": {"type": "breaker", "inner": f"&n{number + 1}"} for number in range(3000)
    }
    table |= {"root": {"type": "cache", "near": "&n0", "far": "memory:"}, "n3000": {"type": "error"}}
    stores = Composition.from_mapping({"blobservices": table}, registry=registry)
    assert [entry.code for entry in stores.warnings] == ["near-not-writable"]


def many(count: int, **table: Any) -> dict[str, Any]:
    tables = {f"n{number}": dict(table, type="retry") for number in range(count)}
    return {"blobservices": {"root": {"type": "retry", "inner": "memory:"}, **tables}}


def test_the_file_is_not_read_again_for_each_warning(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So that ten thousand of them cost no more than ten thousand times one."""
    rows = (
        f'[blobservices.{name}]\ntype = "retry"\ninner = "memory:"\n' for name in many(500)["blobservices"]
    )
    (tmp_path / "many.toml").write_text("\n".join(rows))

    def rendered(*_: object) -> str:
        raise AssertionError("all of the text, for one line")

    monkeypatch.setattr(report, "render", rendered)
    caplog.set_level(logging.WARNING, "castore.composition")
    stores = Composition.from_toml(tmp_path / "many.toml", registry=registry)
    assert len(stores.warnings) == 500
    last = [record.getMessage() for record in caplog.records][-1]
    assert last.startswith(
        f"{tmp_path}/many.toml:2001:15: warning: blobservices.n499: nothing refers to `n499`"
    )


def test_so_many_names_are_compared_and_no_more(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with all others: of thousands that lead to nothing the first hundred have a suggestion."""
    compared = []

    def nearest(word: str, known: Iterable[str], **_: float) -> str | None:
        compared.append(len([*known]))
        return "n0" if compared[-1] else None

    monkeypatch.setattr(problems, "nearest", nearest)
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping(many(300, inner="&missing"), registry=registry)
    hints = [problem.hint for problem in caught.value.problems]
    assert len(hints) == 300
    assert hints[:100] == ["did you mean `&n0`?"] * 100
    assert hints[100:] == ["declare it: `[blobservices.missing]`"] * 200
    assert sum(compared) <= 100 * 301


POWERS = [
    kind
    for kind in vars(capabilities).values()
    if inspect.isclass(kind) and issubclass(kind, abc.ABC) and kind.__module__ == capabilities.__name__
]
STORES = {
    "memory": 'type = "memory"',
    "objectstore": 'type = "objectstore"\nobject_store_url = "file:./blobs"',
    "sqlite": 'type = "sqlite"\npath = "./blobs.sqlite"',
    "error": 'type = "error"\noutcome = "absent"',
}
AROUND = {
    "bare": 'type = "breaker"\ninner = "&store"',
    "limit": 'type = "limit"\ninner = "&store"\nconcurrency = 2',
    "retry": 'type = "retry"\ninner = "&store"',
    "verify": 'type = "verify"\ninner = "&store"',
    "read_only": 'type = "read_only"\ninner = "&store"',
    "faulty": 'type = "faulty"\ninner = "&store"',
    "cache-near": 'type = "cache"\nnear = "&store"\nfar = "memory:"',
    "cache-both": 'type = "cache"\nnear = "memory:"\nfar = "&store"\nwrite = "both"',
    "cache-far": 'type = "cache"\nnear = "memory:"\nfar = "&store"\nwrite = "far"\nhas = "durable"',
    "cache-strict": (
        'type = "cache"\nnear = "&store"\nfar = "memory:"\nwrite = "both"\non_near_error = "fail"'
    ),
    "fallback": 'type = "fallback"\nservices = ["&store", "memory:"]',
    "fallback-second": 'type = "fallback"\nservices = ["&store", "&frozen"]\nwrite_to = "frozen"',
    "mirror": 'type = "mirror"\nservices = ["&store", "&store2"]',
    "deep": 'type = "limit"\nconcurrency = 3\ninner = "&frozen"',
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("around", AROUND)
def test_what_is_said_of_powers_beforehand_comes_true(
    around: str, store: str, tmp_path: Path, registry: Registry
) -> None:
    """A type either does not know, or says what `capability` answers once the service is built."""
    text = f"""allow_faults = true
[blobservices.root]\n{AROUND[around]}
[blobservices.store]\n{STORES[store]}
[blobservices.store2]\n{STORES[store].replace("blobs", "others")}
[blobservices.frozen]\ntype = "read_only"\ninner = "&store"
"""
    known = 0
    with loaded(text, tmp_path, registry) as stores:
        for instance in stores.graph.named(registry.kind(BlobService)):
            service = stores.blobs(instance.name)
            view = View(tmp_path, instance.name, instance, stores.graph, {})
            for kind in POWERS:
                said = instance.config.offers(kind, view)
                known += said is not None
                assert said in {None, service.capability(kind) is not None}, (instance.name, kind)
    assert known > len(POWERS) * 3


@pytest.mark.parametrize("around", AROUND)
def test_what_is_said_of_writing_beforehand_comes_true(
    around: str, tmp_path: Path, registry: Registry
) -> None:
    """What is said to be writable can be written, and what is said not to be raises."""
    text = f"""allow_faults = true
[blobservices.root]\n{AROUND[around]}
[blobservices.store]\ntype = "memory"
[blobservices.store2]\ntype = "memory"
[blobservices.frozen]\ntype = "read_only"\ninner = "&store"
"""
    with loaded(text, tmp_path, registry) as stores:
        known = traits_of(stores.graph, tmp_path)
        for instance in stores.graph.named(registry.kind(BlobService)):
            writable = known[instance.id].writable
            assert writable is not None
            if writable:
                assert stores.blobs(instance.name).write(b"Hello World!")
            else:
                with pytest.raises(CastoreError):
                    stores.blobs(instance.name).write(b"Hello World!")
