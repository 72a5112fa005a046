"""`explain` and `locate`: what they say comes true, and asking changes nothing."""

from __future__ import annotations

import itertools
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import castore
from castore import (
    B3Digest,
    BlobNotFoundError,
    BlobReader,
    BlobService,
    BlobWriter,
    ChunkMeta,
    Composition,
    CorruptBlobError,
    Registry,
    UnavailableError,
    UnsupportedError,
)
from castore.chunks.backend import ChunkBackend
from castore.composition import BuildContext
from castore.contract.capabilities import FoundChunks
from castore.contract.chunk_list import ChunkList
from castore.errors import BadIndexError
from castore.text import size_text
from castore.threads.deadlines import Clock
from castore.upkeep import explain, locate
from castore_memory.service import MemoryBlobService

PARTS = [bytes([n]) * (100 * n) for n in range(1, 6)]
DATA = b"".join(PARTS)
CHUNKS = [ChunkMeta(B3Digest.of(part), len(part)) for part in PARTS]
BLOB = B3Digest.of(DATA)

NEVER = threading.Event()


class Prepared(MemoryBlobService):
    """A store with the blob in one of several states, and no other; it notes what it is asked to write."""

    def __init__(self, state: str, name: str) -> None:
        super().__init__()
        self.state = state
        self.name = name
        self.reads = 0
        if state in {"whole", "hurt", "lost", "begun"}:
            parts = {"lost": PARTS[:3], "begun": PARTS[1:3]}.get(state, PARTS)
            for part in parts:
                self._chunks[B3Digest.of(part)] = part
            if state != "begun":
                self._indexes[BLOB] = tuple(CHUNKS)
        if state == "piece":
            self._chunks[BLOB] = DATA

    def _answer(self) -> None:
        if self.state == "down":
            raise UnavailableError(self.name, "no route to host")
        if self.state == "hang":
            NEVER.wait(30)
        if self.state == "bug":
            raise ZeroDivisionError("a mistake")

    def has(self, digest: B3Digest) -> bool:
        self._answer()
        return super().has(digest)

    def chunks(self, digest: B3Digest) -> Any:
        self._answer()
        if self.state == "hurt" and digest == BLOB:
            raise BadIndexError("the index is rubbish", expected=digest)
        return super().chunks(digest)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        self._answer()
        self.reads += 1
        if self.state == "hurt" and digest == BLOB:
            raise BadIndexError("the index is rubbish", expected=digest)
        return super().open_read(digest)

    def open_write(self) -> BlobWriter:
        self._answer()
        return super().open_write()

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        self._answer()
        return super().find_chunks(digests)

    def get_chunks(self, sizes: Mapping[B3Digest, int | None]) -> FoundChunks:
        self._answer()
        self.reads += 1
        return super().get_chunks(sizes)

    def claim_blobs(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta] | None]) -> set[B3Digest]:
        self._answer()
        return super().claim_blobs(blobs)

    def put_chunks(self, chunks: Mapping[B3Digest, Any]) -> None:
        self._answer()
        super().put_chunks(chunks)

    def put_indexes(self, blobs: Mapping[B3Digest, Sequence[ChunkMeta]]) -> None:
        self._answer()
        super().put_indexes(blobs)

    @property
    def content(self) -> tuple[Any, Any]:
        """All that it keeps."""
        return dict(self._chunks), dict(self._indexes)


class Plain(BlobService):
    """A store without any capability, in front of a prepared one."""

    def __init__(self, inner: Prepared) -> None:
        self.inner = inner
        self.has = inner.has  # type: ignore[method-assign]
        self.open_read = inner.open_read  # type: ignore[method-assign]
        self.open_write = inner.open_write  # type: ignore[method-assign]

    def has(self, digest: B3Digest) -> bool: ...
    def open_read(self, digest: B3Digest) -> BlobReader | None: ...
    def open_write(self) -> BlobWriter: ...


@attrs.frozen
class PreparedConfig:
    """A stranger's type that says nothing of itself."""

    state: str
    plain: bool = False

    def build(self, name: str, context: BuildContext) -> BlobService:
        if self.state == "unbuildable":
            raise UnavailableError(name, "no such device")
        service = Prepared(self.state, name)
        return Plain(service) if self.plain else service


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry.default()
    registry.register(BlobService, "prepared", PreparedConfig)
    return registry


Compose = Callable[..., Composition]


@pytest.fixture
def compose(registry: Registry, tmp_path: Path) -> Iterator[Compose]:
    """A composition of the tables given, whose `a`, `b` and `c` are in the states given."""
    opened = []

    def compose(root: dict[str, Any], *states: str, **others: Any) -> Composition:
        table = {
            name: {"type": "prepared", "state": state} for name, state in zip("abc", states, strict=False)
        }
        tables = {"allow_faults": True, "blobservices": {"root": root, **table, **others}}
        stores = Composition.from_mapping(tables, base=tmp_path, registry=registry)
        opened.append(stores)
        return stores

    yield compose
    for stores in opened:
        stores.close()


ROOTS: dict[str, tuple[int, dict[str, Any]]] = {
    "store": (1, {"type": "limit", "inner": "&a", "concurrency": 4}),
    "retry": (1, {"type": "retry", "inner": "&a", "attempts": 2, "first_delay": "1 us"}),
    "breaker": (1, {"type": "breaker", "inner": "&a"}),
    "verify": (1, {"type": "verify", "inner": "&a"}),
    "read_only": (1, {"type": "read_only", "inner": "&a"}),
    "faulty": (1, {"type": "faulty", "inner": "&a"}),
    "cache-near": (2, {"type": "cache", "near": "&a", "far": "&b"}),
    "cache-far": (2, {"type": "cache", "near": "&a", "far": "&b", "write": "far"}),
    "cache-both": (2, {"type": "cache", "near": "&a", "far": "&b", "write": "both"}),
    "fallback": (2, {"type": "fallback", "services": ["&a", "&b"]}),
    "fallback-3": (3, {"type": "fallback", "services": ["&a", "&b", "&c"], "write_to": "b"}),
    "fallback-final": (
        2,
        {"type": "fallback", "services": [{"ref": "&a", "on_error": "fail"}, "&b"], "copy_to": "a"},
    ),
    "mirror": (2, {"type": "mirror", "services": ["&a", "&b"], "drain": 0}),
    "mirror-3": (3, {"type": "mirror", "services": ["&a", "&b", "&c"], "drain": 0}),
    "mirror-1": (
        3,
        {
            "type": "mirror",
            "services": ["&a", "&b", "&c"],
            "write_quorum": 3,
            "miss_quorum": 1,
            "drain": 0,
        },
    ),
}
STATES = ("whole", "piece", "absent", "down", "hurt", "lost", "begun")

STATES_OF_MANY = ("whole", "absent", "down", "hurt", "lost")


def outcome_of(operation: str, service: BlobService) -> str:
    """What really comes of it."""
    try:
        if operation == "has":
            return "present" if service.has(BLOB) else "absent"
        if operation == "get":
            return "read" if service.read(BLOB) == DATA else "wrong"
        return "stored" if service.write(DATA) == BLOB else "wrong"
    except BlobNotFoundError:
        return "absent"
    except CorruptBlobError:
        return "corrupt"
    except UnsupportedError:
        return "refused"
    except UnavailableError:
        return "unavailable"


@pytest.mark.parametrize("name", ROOTS)
def test_what_is_explained_comes_true(name: str, compose: Compose) -> None:
    """For each type, over stores in all states: what comes of an operation is what was said before."""
    count, root = ROOTS[name]
    wrong = []
    for states in itertools.product(STATES if count < 3 else STATES_OF_MANY, repeat=count):
        said = {plan.operation: plan.outcome for plan in explain(compose(root, *states), BLOB)}
        for operation, outcome in said.items():
            found = outcome_of(operation, compose(root, *states).blobs())
            if found != outcome:
                wrong.append((*states, operation, f"said {outcome}, found {found}"))
    assert not wrong, "\n".join(map(str, wrong))


def test_the_plan_of_a_cache_counts_what_comes_from_where(compose: Compose) -> None:
    root = ROOTS["cache-near"][1]
    (plan,) = explain(compose(root, "begun", "whole"), BLOB, operations=["get"])
    remarks = [step.says for step in plan.steps if step.plan is None]
    assert remarks == [
        "reads 2 chunks, 500 bytes, from near; 3 chunks, 1000 bytes, from far",
        "near keeps what is read from far, and the index once it has all",
    ]
    assert [step.label for step in plan.steps if step.plan is not None] == ["near", "far"]


def test_a_near_that_takes_nothing_keeps_nothing(compose: Compose) -> None:
    near = {"type": "read_only", "inner": "&a"}
    root = {"type": "cache", "near": "&near", "far": "&b", "write": "far"}
    (plan,) = explain(compose(root, "absent", "whole", near=near), BLOB, operations=["get"])
    assert plan.steps[-1].says == "near keeps nothing of it, as what is put there is refused"


@pytest.mark.parametrize(
    ("policy", "near", "far", "outcomes", "remark"),
    [
        (
            {"has": "durable", "write": "both"},
            "whole",
            "absent",
            ["absent", "read", "stored"],
            "near is not asked, as only",
        ),
        (
            {"has": "durable", "write": "far"},
            "absent",
            "whole",
            ["present", "read", "stored"],
            "near is not asked, as only",
        ),
        ({"fill": "none"}, "absent", "whole", ["present", "read", "stored"], "near keeps nothing of it"),
        ({"fill": "blob"}, "absent", "whole", ["present", "read", "stored"], "near keeps all of it, also"),
        (
            {"on_near_error": "fail"},
            "down",
            "whole",
            ["unavailable"] * 3,
            "the failure of near is the answer",
        ),
        (
            {"on_far_error": "miss"},
            "absent",
            "down",
            ["absent", "absent", "stored"],
            "what far does not answer",
        ),
        (
            {"write": "behind", "queue": "queue"},
            "absent",
            "down",
            ["unavailable", "unavailable", "stored"],
            "far gets it later",
        ),
        ({"write": "both"}, "down", "absent", ["absent", "absent", "stored"], "near gets it, too, unless"),
        (
            {"write": "both", "on_near_error": "fail"},
            "down",
            "absent",
            ["unavailable"] * 3,
            "it is stored when both have it",
        ),
        (
            {"on_far_error": "miss"},
            "down",
            "down",
            ["unavailable"] * 3,
            "or may be, as new blobs go there: its failure is the answer",
        ),
    ],
)
def test_the_policies_of_a_cache_are_said(
    policy: dict[str, str], near: str, far: str, outcomes: list[str], remark: str
) -> None:
    """What is asked, and what comes of it, is as they say."""
    registry = Registry.default()
    registry.register(BlobService, "prepared", PreparedConfig)
    tables = {
        "root": {"type": "cache", "near": "&a", "far": "&b", **policy},
        "a": {"type": "prepared", "state": near},
        "b": {"type": "prepared", "state": far},
    }
    with Composition.from_mapping({"blobservices": tables}, registry=registry) as stores:
        plans = explain(stores, BLOB)
    assert [plan.outcome for plan in plans] == outcomes
    assert any(remark in step.says for plan in plans for step in plan.steps)


def test_a_remark_says_who_is_not_asked_and_who_gets_a_copy(compose: Compose) -> None:
    root = {"type": "fallback", "services": ["&a", "&b", "&c"], "copy_to": "a"}
    has, get, put = explain(compose(root, "absent", "whole", "absent"), BLOB)
    assert [step.says for step in has.steps if step.plan is None] == ["`c` is not asked"]
    assert [step.says for step in get.steps if step.plan is None] == [
        "`c` is not asked",
        "`a` keeps a copy, if it is read from start to end",
    ]
    assert [step.plan.instance for step in put.steps if step.plan] == ["a"]


def test_a_mirror_says_who_is_healed(compose: Compose) -> None:
    root = {"type": "mirror", "services": ["&a", "&b", "&c"]}
    _, get, put = explain(compose(root, "absent", "whole", "down"), BLOB)
    assert "it is copied to `a` in the background" in [step.says for step in get.steps]
    assert [step.says for step in put.steps if step.plan is None] == [
        "2 of 3 must take it",
        "it is copied to `c` later, in the background",
    ]


# -- a running program --


def test_a_breaker_that_is_open_is_said_to_be(compose: Compose) -> None:
    """By its state in this composition; the store beneath it is asked all the same."""
    stores = compose({"type": "breaker", "inner": "&a", "failures": 1}, "whole")
    store = stores.blobs("a")
    assert isinstance(store, Prepared)
    assert [plan.outcome for plan in explain(stores, BLOB)] == ["present", "read", "stored"]
    store.state = "down"
    with pytest.raises(UnavailableError):
        stores.blobs().has(BLOB)
    store.state = "whole"

    plan = explain(stores, BLOB, operations=["get"])[0]

    assert (plan.outcome, plan.says) == ("unavailable", "it is left alone, as it has failed too often")
    (root, _) = locate(stores, BLOB)
    assert (root.holding.state, root.holding.cause) == ("unavailable", plan.says)
    assert stores.blobs().state == "open"  # type: ignore[attr-defined]


def test_asking_is_no_request_to_a_wrapper(compose: Compose) -> None:
    """What counts, waits or tries again is passed by: its counts are those of real requests."""
    stores = compose({"type": "breaker", "inner": "&a", "failures": 1}, "down")
    explain(stores, BLOB)
    locate(stores, BLOB, verify=True)
    assert stores.blobs().state == "closed"  # type: ignore[attr-defined]


# -- what fails or hangs --


class Hasty(Clock):
    """A clock that jumps to the end of each wait for something that hangs."""

    def __init__(self, *hanging: threading.Event) -> None:
        self._time = 0.0

    def now(self) -> float:
        return self._time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        # Whoever answers does so at once; it is waited for by the real clock only as long as that takes.
        if event.wait(1.5):
            return True
        self._time += seconds or 0.0
        return False


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("down", "no route to host"),
        ("hang", "no answer within 7 s"),
        ("bug", "ZeroDivisionError: a mistake"),
        ("unbuildable", "no such device"),
    ],
)
def test_one_that_fails_or_hangs_keeps_nobody_from_answering(
    state: str, cause: str, compose: Compose
) -> None:
    """It is unavailable, with its cause, and the others are located and explained."""
    root = {"type": "fallback", "services": ["&a", "&b"]}
    stores = compose(root, state, "whole")

    plans = explain(stores, BLOB, timeout=7, clock=Hasty())
    found = {entry.instance: entry.holding for entry in locate(stores, BLOB, timeout=7, clock=Hasty())}

    assert [plan.outcome for plan in plans] == ["present", "read", "unavailable"]
    assert (found["a"].state, found["a"].cause) == ("unavailable", cause)
    assert (found["root"].state, found["b"].state) == ("whole", "whole")


def test_one_that_hangs_when_its_chunks_are_asked_for_is_unavailable(compose: Compose) -> None:
    stores = compose({"type": "fallback", "services": ["&a", "&b"]}, "absent", "whole")
    store = stores.blobs("a")
    store.find_chunks = lambda digests: NEVER.wait(30)  # type: ignore[attr-defined]
    found = {entry.instance: entry.holding for entry in locate(stores, BLOB, timeout=2, clock=Hasty())}
    assert (found["a"].state, found["a"].cause) == ("unavailable", "no answer within 2 s")
    assert found["b"].state == "whole"


@attrs.frozen
class MuteConfig(PreparedConfig):
    """A stranger's type that cannot explain itself."""

    inner: castore.Ref[BlobService] = attrs.field(kw_only=True)

    def explain(self, asking: Any) -> Any:
        if self.state == "whole":
            return "what?"
        raise KeyError("a mistake")


@pytest.mark.parametrize(("state", "words"), [("whole", "did not explain"), ("absent", "cannot explain")])
def test_a_type_that_fails_to_explain_itself_is_said_to(state: str, words: str, tmp_path: Path) -> None:
    registry = Registry.default()
    registry.register(BlobService, "mute", MuteConfig)
    tables = {"root": {"type": "mute", "state": state, "inner": "memory:"}}
    with Composition.from_mapping({"blobservices": tables}, registry=registry) as stores:
        (plan,) = explain(stores, BLOB, operations=["has"])
    assert plan.outcome == "unavailable"
    assert words in plan.says


# -- locating --


def test_each_instance_has_its_part(compose: Compose) -> None:
    root = {"type": "cache", "near": "&a", "far": "&b"}
    found = locate(compose(root, "begun", "lost", "absent"), BLOB)
    told = [
        (e.instance, e.type, e.store, e.holding.state, len(e.holding.here), e.holding.listed) for e in found
    ]
    assert told == [
        ("root", "cache", False, "corrupt", 3, True),
        ("a", "prepared", True, "partly", 2, False),
        ("b", "prepared", True, "partly", 3, True),
        ("c", "prepared", True, "absent", 0, False),
    ]


def test_only_an_instance_and_what_it_needs(compose: Compose) -> None:
    stores = compose({"type": "cache", "near": "&a", "far": "&b"}, "whole", "absent", "whole")
    assert [entry.instance for entry in locate(stores, BLOB, name="root")] == ["root", "a", "b"]
    assert [entry.instance for entry in locate(stores, BLOB, name="c")] == ["c"]
    with pytest.raises(castore.CompositionError):
        locate(stores, BLOB, name="d")


def test_without_verifying_nothing_is_read(compose: Compose) -> None:
    stores = compose({"type": "cache", "near": "&a", "far": "&b"}, "begun", "whole")
    found = locate(stores, BLOB)
    explain(stores, BLOB)
    assert {entry.verified for entry in found} == {None}
    assert [stores.blobs(name).reads for name in "ab"] == [0, 0]  # type: ignore[attr-defined]


def test_verifying_reads_what_each_store_has(compose: Compose) -> None:
    root = {"type": "fallback", "services": ["&a", "&b", "&c", "&d"]}
    stores = compose(root, "begun", "whole", "absent", d={"type": "prepared", "state": "whole"})
    damaged = stores.blobs("d")
    damaged._chunks[CHUNKS[1].digest] = b"x" * CHUNKS[1].size  # type: ignore[attr-defined]
    found = {entry.instance: entry for entry in locate(stores, BLOB, verify=True)}
    assert {name: entry.verified for name, entry in found.items()} == {
        "root": None,
        "a": True,
        "b": True,
        "c": None,
        "d": False,
    }
    assert found["d"].holding.state == "corrupt"
    assert f"blob {BLOB} is corrupt" in found["d"].holding.cause


def test_a_read_that_hangs_is_given_up(compose: Compose) -> None:
    stores = compose({"type": "limit", "inner": "&a", "concurrency": 1}, "whole")
    stores.blobs("a").get_chunks = lambda sizes: NEVER.wait(30)  # type: ignore[attr-defined]
    found = locate(stores, BLOB, verify=True, timeout=3, clock=Hasty())
    assert (found[1].verified, found[1].holding.state) == (False, "unavailable")
    assert "nothing was read for 3 s" in found[1].holding.cause


def test_a_store_without_capabilities_is_asked_as_well(compose: Compose) -> None:
    """It has the blob whole, or lacks it; of chunks it has those that it keeps as blobs."""
    plain = {"type": "prepared", "plain": True}
    root = {"type": "fallback", "services": ["&x", "&y", "&a"]}
    stores = compose(root, "whole", x={**plain, "state": "begun"}, y={**plain, "state": "piece"})
    found = {entry.instance: entry.holding for entry in locate(stores, BLOB)}
    assert (found["x"].state, len(found["x"].here)) == ("partly", 2)
    assert (found["y"].state, found["y"].chunks) == ("whole", ())


def test_a_single_chunk_is_found_as_well(compose: Compose) -> None:
    stores = compose({"type": "cache", "near": "&a", "far": "&b"}, "begun", "absent")
    found = {entry.instance: entry.holding.state for entry in locate(stores, CHUNKS[1].digest)}
    assert found == {"root": "whole", "a": "whole", "b": "absent"}


def test_a_blob_of_one_chunk_that_is_gone_is_corrupt(tmp_path: Path) -> None:
    """Its index has no chunks to ask for, so the one of its own name is."""
    table = {"root": {"type": "objectstore", "object_store_url": "file:blobs"}}
    with Composition.from_mapping({"blobservices": table}, base=tmp_path) as stores:
        digest = stores.blobs().write(b"Hello World!")
        assert locate(stores, digest)[0].holding.state == "whole"
        (chunk,) = (path for path in (tmp_path / "blobs/chunks").rglob("*") if path.is_file())
        chunk.unlink()
        (entry,) = locate(stores, digest)
        has, get, _ = explain(stores, digest)
    assert (entry.holding.state, entry.holding.cause) == ("corrupt", "its one chunk is missing")
    assert (has.outcome, get.outcome) == ("present", "corrupt")


# -- nothing is changed --


def tree_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file with its kind, size and time, and every folder with its time.

    Not the time of the folder of an SQLite file: while that is open, SQLite keeps two files beside it.
    """
    return {
        str(path.relative_to(folder)): (path.stat().st_mode,)
        if list(path.glob("*.sqlite"))
        else (path.stat().st_mode, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


STACK = """
root = { type = "cache", near = "&near", far = "&far", write = "both" }
near = { type = "objectstore", object_store_url = "file:./near", avg_chunk_size = "1 KiB" }
far = { type = "mirror", services = ["&one", "&two", "&three"] }
one = { type = "retry", inner = "objectstore+file:./one" }
two = { type = "sqlite", path = "./two/blobs.sqlite", avg_chunk_size = "1 KiB" }
three = { type = "verify", inner = "&three-folder", on_corrupt = "quarantine" }
three-folder = { type = "objectstore", object_store_url = "file:./three", avg_chunk_size = "1 KiB" }
"""


@pytest.mark.parametrize("verify", [False, True])
def test_nothing_is_written(verify: bool, tmp_path: Path) -> None:
    """No file of any store is made, changed, or touched: the folders and their times are as before."""
    path = tmp_path / "composition.toml"
    path.write_text(f"[blobservices]{STACK}")
    data = os.urandom(20_000)
    with castore.open(path) as stores:
        digest = stores.blobs("two").write(data)
        stores.blobs("three").write(data[:8_000])
        stores.blobs("near").write(data[4_000:])
    os.utime(tmp_path / "two/blobs.sqlite", ns=(1, 1))
    before = tree_of(tmp_path)
    with castore.open(path) as stores:
        for wanted in (digest, B3Digest.of(b"nowhere")):
            plans = explain(stores, wanted)
            locations = locate(stores, wanted, verify=verify)
    assert len(plans) == 3
    assert len(locations) == 8
    assert tree_of(tmp_path) == before


def test_a_prepared_store_is_never_written_to(compose: Compose) -> None:
    """Whatever is above it, and whatever it has."""
    for count, root in ROOTS.values():
        for state in ("absent", "begun", "lost"):
            stores = compose(root, *[state] * count)
            services = [stores.blobs(name) for name in "abc"[:count]]
            before = [service.content for service in services]  # type: ignore[attr-defined]
            explain(stores, BLOB)
            locate(stores, BLOB, verify=True)
            assert [service.content for service in services] == before  # type: ignore[attr-defined]


def test_a_long_chain_is_no_trouble(registry: Registry) -> None:
    """References may be deeper than Python's stack."""
    table: dict[str, Any] = {
        f"n{number}": {"type": "breaker", "inner": f"&n{number + 1}"} for number in range(2000)
    }
    table |= {"root": {"type": "read_only", "inner": "&n0"}, "n2000": {"type": "prepared", "state": "whole"}}
    with Composition.from_mapping({"blobservices": table}, registry=registry) as stores:
        assert [plan.outcome for plan in explain(stores, BLOB)] == ["present", "read", "refused"]
        assert {entry.holding.state for entry in locate(stores, BLOB)} == {"whole"}


class _Vast(ChunkBackend):
    """A store that has every other chunk of one long blob, made up as it is asked."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked = 0

    def chunks(self, digest: B3Digest) -> ChunkList:
        found = ChunkList()
        for start in range(0, self.count, 1000):
            found.add([number.to_bytes(32, "little") for number in range(start, start + 1000)], [2] * 1000)
        return found

    def find_chunks(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        asked = set(digests)
        self.asked += len(asked)
        return {digest for digest in asked if not digest[0] % 2}

    def get_chunks(self, sizes: object) -> Any:
        raise NotImplementedError

    put_chunks = put_indexes = get_chunks


@attrs.frozen
class _VastConfig:
    count: int

    def build(self, _name: str, _context: BuildContext) -> BlobService:
        return _Vast(self.count)


def test_a_blob_of_very_many_chunks_takes_little_memory() -> None:
    """However many stores have them: a set of objects for each would take a hundred times as much."""
    count, registry = 60_000, Registry.default()
    registry.register(BlobService, "vast", _VastConfig)
    names = [f"v{number}" for number in range(6)]
    tables: dict[str, Any] = {name: {"type": "vast", "count": count} for name in names}
    tables["root"] = {"type": "fallback", "services": [f"&{name}" for name in names]}
    config = {"blobservices": tables}
    with Composition.from_mapping(config, registry=registry) as stores:
        stores.blobs()
        tracemalloc.start()
        try:
            found = locate(stores, BLOB, timeout=100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [entry.holding.share for entry in found if entry.store] == [
        f"{count // 2} of {count} chunks, {size_text(count)} of {size_text(2 * count)}"
    ] * 6
    assert peak < (6 * 40 + 120) * count
