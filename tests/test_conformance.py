"""Every bundled type, and compositions of them, keep the contract and agree with a dictionary.

Each type stands here once, a wrapper around `memory`, a composite of two of them, and each clause is a test
of its own. Settings, and members that fail, are rows of a table. What stands in what is covered in pairs: for
any two places of a stack, each two types that can stand there do so in one stack at least.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from castore import BlobReader, BlobService, BlobWriter, Composition, Ref, Registry
from castore.composition import BuildContext
from castore.contract.operations import CAPABILITIES
from castore.faults import READS
from castore.streams.readers import BytesReader
from castore.streams.writers import SpooledWriter
from castore.testing import CLAUSES, BlobServiceContract, FaultyService, blob_service_machine
from castore.testing.clause import has_of

Tables = Mapping[str, Mapping[str, Any]]

STORIES = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

MEMORY = {"type": "memory"}
FOLDER = {"type": "objectstore", "object_store_url": "file:./store"}
BUCKET = {"type": "objectstore", "object_store_url": "memory:"}
PACKED = {"type": "packed", "object_store_url": "file:./packs"}
PACKED_BUCKET = {"type": "packed", "object_store_url": "memory:"}
SQLITE = {"type": "sqlite", "path": "folder/blobs.sqlite"}
SMALLEST = {"type": "smallest"}
FAILING = {"type": "failing-reads", "inner": "&kept"}
ERROR = {"type": "error"}


class SmallestService(BlobService):
    """As a stranger would begin: three methods, no chunks, no capabilities."""

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}

    def has(self, digest: bytes) -> bool:
        return digest in self._blobs

    def open_read(self, digest: bytes) -> BlobReader | None:
        data = self._blobs.get(digest)
        return None if data is None else StrangersReader(data)

    def open_write(self) -> BlobWriter:
        return SpooledWriter(lambda digest, file: self._blobs.setdefault(digest, file.read()))


class StrangersReader(BytesReader):
    """Gives small pieces, as something that comes over a network."""

    def piece_at(self, position: int) -> memoryview:
        return super().piece_at(position)[:10_007]


@attrs.frozen
class SmallestConfig:
    def build(self, name: str, context: BuildContext) -> BlobService:
        return SmallestService()


@attrs.frozen
class FailingReadsConfig:
    inner: Ref[BlobService]

    def build(self, name: str, context: BuildContext) -> BlobService:
        return FaultyService(context.resolve(self.inner), READS, instance=name)


REGISTRY = Registry.default()
REGISTRY.register(BlobService, "smallest", SmallestConfig)
REGISTRY.register(BlobService, "failing-reads", FailingReadsConfig)


@contextlib.contextmanager
def opened(tables: Tables, folder: Path) -> Iterator[BlobService]:
    mapping = {"allow_faults": True, "blobservices": tables}
    folder.mkdir(exist_ok=True)
    with Composition.from_mapping(mapping, base=folder, registry=REGISTRY) as stores:
        yield stores.blobs()


def small(tables: Tables) -> Tables:
    """Return the same stack, of stores that cut the blobs of stories into many chunks."""
    return {
        name: {**table, "avg_chunk_size": 700}
        if table["type"] in {"objectstore", "packed", "sqlite"}
        else table
        for name, table in tables.items()
    }


def tell_stories(tables: Tables, folder: Path) -> None:
    """Fail if a story of puts, aborts and reads ends other than it would over a dict."""
    numbers = itertools.count()

    def make() -> BlobService:
        stack = contextlib.ExitStack()
        service = stack.enter_context(opened(small(tables), folder / f"story{next(numbers)}"))
        service.close = stack.close  # type: ignore[method-assign]
        return service

    run_state_machine_as_test(blob_service_machine(make, max_size=10_000), settings=STORIES)
    assert next(numbers) >= STORIES.max_examples


# -- each type --


def around(tag: str, inner: Any = MEMORY, **fields: Any) -> Tables:
    return {"root": {"type": tag, "inner": "&inner", **fields}, "inner": inner}


def cache(near: Any, far: Any, write: str, **fields: Any) -> Tables:
    queue = {"queue": "queue"} if write == "behind" else {}
    root = {"type": "cache", "near": "&near", "far": "&far", "write": write, **queue, **fields}
    return {"root": root, "near": near, "far": far, "kept": MEMORY}


def several(tag: str, *members: Any, **fields: Any) -> Tables:
    names = [f"member{number}" for number in range(len(members))]
    root = {"type": tag, "services": [f"&{name}" for name in names], **fields}
    return {"root": root, **dict(zip(names, members, strict=True)), "kept": MEMORY}


def with_deadlines(tag: str, *members: Any) -> Tables:
    tables = several(tag, *members)
    services = [{"ref": reference, "timeout": 60} for reference in tables["root"]["services"]]
    return {**tables, "root": {**tables["root"], "services": services}}


# Of these bounds none is ever reached.
WIDE: Final = {"max_bytes": "1 GiB", "max_entries": 1_000_000, "max_age": "10 d"}

EACH: Final[Mapping[str, Tables]] = {
    "Memory": {"root": MEMORY},
    "Folder": {"root": FOLDER},
    "Bucket": {"root": BUCKET},
    "Sqlite": {"root": SQLITE},
    "Packed": {"root": PACKED},
    "PackedBucket": {"root": PACKED_BUCKET},
    "StrangersSmallest": {"root": SMALLEST},
    "Breaker": around("breaker"),
    "Faulty": around("faulty"),
    "Limit": around("limit", concurrency=1),
    "Lru": around("lru", **WIDE),
    "Retry": around("retry"),
    "Timeout": around("timeout", timeout="60 s"),
    "Verify": around("verify"),
    "AllWrappersOfSmallest": {
        "root": {"type": "verify", "inner": "&retry"},
        "retry": {"type": "retry", "inner": "&timeout", "replay": 0},
        "timeout": {"type": "timeout", "inner": "&breaker"},
        "breaker": {"type": "breaker", "inner": "&limit"},
        "limit": {"type": "limit", "inner": "&faulty", "bytes_per_second": "1 TB"},
        "faulty": {"type": "faulty", "inner": "&smallest"},
        "smallest": SMALLEST,
    },
    "CacheWritingNear": cache(MEMORY, MEMORY, "near"),
    "CacheWritingFar": cache(MEMORY, MEMORY, "far"),
    "CacheWritingBoth": cache(MEMORY, MEMORY, "both"),
    "CacheWritingBehind": cache(FOLDER, MEMORY, "behind"),
    "Fallback": several("fallback", MEMORY, MEMORY),
    "Mirror": several("mirror", MEMORY, MEMORY),
}


class Each(BlobServiceContract):
    """A stack of `EACH`; what it can do is known once it is built, which is done when tests are collected."""

    tables: ClassVar[Tables]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        kind = type(self)
        if kind.capabilities is None:
            with TemporaryDirectory() as folder, opened(kind.tables, Path(folder)) as service:
                kind.capabilities = frozenset(filter(service.capability, CAPABILITIES))
        super().pytest_generate_tests(metafunc)

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BlobService]:
        with opened(self.tables, tmp_path) as service:
            yield service

    def test_agrees_with_a_dictionary(self, tmp_path: Path) -> None:
        tell_stories(self.tables, tmp_path)


for _name, _tables in EACH.items():
    globals()[f"Test{_name}"] = type(f"Test{_name}", (Each,), {"tables": _tables, "__module__": __name__})


def test_each_type_stands_here() -> None:
    """A new type must find its place; `read_only` and `error` take no blobs, and stand beside others.

    `grpc` needs a server, and stands in `tests/serving`.
    """
    elsewhere = {"read_only", "error", "failing-reads", "grpc"}
    used = {table["type"] for tables in EACH.values() for table in tables.values()}
    assert used | elsewhere == set(REGISTRY.types(REGISTRY.kind(BlobService)))


# -- settings, and members that fail --


@attrs.frozen
class Special:
    tables: Tables
    broken: frozenset[str] = attrs.field(default=(), converter=frozenset)
    """The clauses that it does not keep, and why not, which is what the comment at its row says."""
    sometimes: frozenset[str] = attrs.field(default=(), converter=frozenset)
    """Those that it keeps or not, as it comes."""
    only: str = ""
    """What the names of the clauses contain that are tried, if not all are."""
    stories: bool = True


NO_LIST: Final = {
    "claim-of-blobs-tells-blobs-from-chunks",
    "complete-finds-what-begins-so",
    "list-has-each-blob-once",
    "list-without-aborted",
    "listed-is-there",
}

SPECIAL: Final[Mapping[str, Special]] = {
    "a cache that keeps nothing": Special(cache(FOLDER, BUCKET, "far", fill="none")),
    "a cache that keeps whole blobs": Special(cache(MEMORY, BUCKET, "far", fill="blob")),
    "a cache of the smallest that keeps whole blobs": Special(cache(SMALLEST, SMALLEST, "far", fill="blob")),
    "a cache of what is durable": Special(cache(MEMORY, BUCKET, "both", has="durable")),
    "a cache strict of errors": Special(
        cache(MEMORY, BUCKET, "both", on_near_error="fail", on_far_error="miss")
    ),
    # What is found is what far has, and this one has no chunks.
    "a cache that writes behind to the smallest": Special(
        cache(SQLITE, SMALLEST, "behind", has="durable", queue_limit=1),
        broken={"chunks-can-be-read", "chunk-store-keeps-chunks"},
        sometimes={"chunk-store-takes-no-index-for-a-chunk"},
    ),
    # What is written is there, and waits. A blob that far cannot be asked for is absent, but no chunk is.
    "a cache whose far is down": Special(
        cache(FOLDER, ERROR, "behind", on_far_error="miss", drain=0, retry_after=60),
        broken={
            "chunk-source-gives-wrong-sizes-as-errors",
            "chunk-source-leaves-out-the-absent",
            "chunk-store-takes-full-batches",
            "single-chunks-agree-with-many",
        },
    ),
    # Far answers all by itself; only a list would be short of what near has.
    "a cache whose near fails, writing far": Special(cache(FAILING, BUCKET, "far"), NO_LIST, stories=False),
    "a cache whose near fails, writing both": Special(cache(FAILING, BUCKET, "both"), NO_LIST, stories=False),
    "a cache whose near is an error": Special(cache(ERROR, BUCKET, "far")),
    "a cache whose far has nothing": Special(cache(MEMORY, {**ERROR, "outcome": "absent"}, "near")),
    "a cache whose far is read-only": Special(cache(FOLDER, {"type": "read_only", "inner": "&kept"}, "near")),
    # What far has is found, however little near can keep of it.
    "a cache whose near is tiny": Special(
        {**cache({"type": "lru", "inner": "&inner", "max_bytes": 4000}, BUCKET, "far"), "inner": FOLDER}
    ),
    "a fallback that writes to the last": Special(
        several("fallback", MEMORY, BUCKET, write_to="member1", copy_to="member0")
    ),
    "a fallback that copies to the smallest": Special(
        several("fallback", SMALLEST, BUCKET, write_to="member1", copy_to="member0")
    ),
    "a fallback behind one that is empty": Special(several("fallback", BUCKET, MEMORY, write_to="member1")),
    "a fallback with deadlines": Special(with_deadlines("fallback", BUCKET, MEMORY)),
    "a mirror of all sorts": Special(
        several("mirror", SMALLEST, BUCKET, MEMORY, write_quorum=3, miss_quorum=3)
    ),
    "a mirror that hedges": Special(several("mirror", MEMORY, BUCKET, hedge_after="1 ms", hedge_budget=1)),
    "a mirror with deadlines": Special(with_deadlines("mirror", BUCKET, MEMORY)),
    # The other two answer for it; but a list needs all, and it might have a chunk of another size.
    "a mirror one of which fails": Special(
        several("mirror", FAILING, BUCKET, MEMORY),
        NO_LIST | {"chunk-source-bounds-what-it-does-not-know", "chunk-source-gives-wrong-sizes-as-errors"},
        stories=False,
    ),
    "an lru that evicts": Special(around("lru", max_bytes="1 MiB"), only="evict", stories=False),
}


def failing_clauses(tables: Tables, folder: Path, only: str = "") -> dict[str, Exception]:
    """Return the clauses that a stack does not keep, with why; it is built once, and not empty for most."""
    failing = {}
    with opened(tables, folder) as service:
        has = has_of(service)
        clauses = [each for each in CLAUSES if only in each.name and each.reason_against(has) is None]
        assert clauses
        for clause in clauses:
            try:
                if clause.name != "close-twice":
                    clause.check(service)
            except Exception as error:
                failing[clause.name] = error
    return failing


@pytest.mark.parametrize("name", SPECIAL)
def test_settings_and_members_that_fail(name: str, tmp_path: Path) -> None:
    """Every clause is kept but those that the row names."""
    row = SPECIAL[name]
    failing = failing_clauses(row.tables, tmp_path / "clauses", row.only)
    assert failing.keys() - row.sometimes == row.broken, failing
    if row.stories:
        tell_stories(row.tables, tmp_path)


# -- what stands in what --

PLAIN: Final = "nothing"
LRU: Final = "lru"
WRAPPERS: Final[Mapping[str, Mapping[str, Any]]] = {
    PLAIN: {},
    "breaker": {},
    "limit": {"concurrency": 2},
    "retry": {},
    "timeout": {},
    "verify": {},
}
COMPOSITES: Final[Mapping[str, Callable[[Any, Any], Tables]]] = {
    "cache, near": lambda near, far: cache(near, far, "near"),
    "cache, far": lambda near, far: cache(near, far, "far"),
    "cache, both": lambda near, far: cache(near, far, "both"),
    "cache, behind": lambda near, far: cache(near, far, "behind"),
    "fallback": lambda one, other: several("fallback", one, other),
    "mirror": lambda one, other: several("mirror", one, other),
}
MEMBERS: Final[Mapping[str, Tables]] = {
    "memory": {"": MEMORY},
    "folder": {"": FOLDER},
    "sqlite": {"": SQLITE},
    "smallest": {"": SMALLEST},
    "a cache": {"": {"type": "cache", "near": "&{}1", "far": "&{}2"}, "1": MEMORY, "2": BUCKET},
    "a mirror": {"": {"type": "mirror", "services": ["&{}1", "&{}2"]}, "1": BUCKET, "2": MEMORY},
}
EVICTABLE: Final = {"memory", "folder", "sqlite"}
DURABLE: Final = {"folder", "sqlite"}

PLACES: Final[Mapping[str, Collection[str]]] = {
    "composite": COMPOSITES,
    "around it": WRAPPERS,
    "first": MEMBERS,
    "around the first": [*WRAPPERS, LRU],
    "second": MEMBERS,
    "around the second": [*WRAPPERS, LRU],
}

Row = Mapping[str, str]


def can_stand(row: Row) -> bool:
    """Tell whether a row, or a part of one, is a stack.

    What an `lru` is around must let it evict, and where a cache writes behind near must be durable.
    """
    if row.get("composite") == "cache, behind" and row.get("first", "folder") not in DURABLE:
        return False
    # What that finds is what far has, which is to keep chunks.
    if row.get("composite") == "cache, behind" and row.get("second") == "smallest":
        return False
    return all(
        row.get(f"around the {member}") != LRU or row.get(member, "memory") in EVICTABLE
        for member in ("first", "second")
    )


def pairs_of(row: Row) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}


def covering(places: Mapping[str, Collection[str]], allowed: Callable[[Row], bool]) -> list[Row]:
    """Return rows in which any two values of two places stand together once, if that is *allowed*."""
    pairs = (
        {one: value, other: beside}
        for one, other in itertools.combinations(places, 2)
        for value, beside in itertools.product(places[one], places[other])
    )
    lacking = set().union(*(pairs_of(pair) for pair in pairs if allowed(pair)))
    rows: list[Row] = []

    def gain(row: Row) -> int:
        return len(pairs_of(row) & lacking)

    def completed(row: Row) -> Row:
        for place in places:
            if place not in row:
                row = max(filter(allowed, ({**row, place: value} for value in places[place])), key=gain)
        return {place: row[place] for place in places}

    while lacking:
        rows.append(max((completed(dict(pair)) for pair in sorted(map(sorted, lacking))), key=gain))
        lacking -= pairs_of(rows[-1])
    return rows


ROWS: Final = covering(PLACES, can_stand)


def stack_of(row: Row) -> Tables:
    """Return the tables of a stack."""
    tables = dict(COMPOSITES[row["composite"]](MEMORY, MEMORY))
    root = tables["root"]
    ends = ("near", "far") if root["type"] == "cache" else ("member0", "member1")
    for end, member in zip(ends, ("first", "second"), strict=True):
        around_it = row[f"around the {member}"]
        wrapped = end if around_it == PLAIN else f"{end}_inner"
        if around_it != PLAIN:
            fields = WIDE if around_it == LRU else WRAPPERS[around_it]
            tables[end] = {"type": around_it, "inner": f"&{wrapped}", **fields}
        for suffix, table in MEMBERS[row[member]].items():
            tables[f"{wrapped}{suffix}"] = filled_in(table, wrapped)
    if row["around it"] != PLAIN:
        tables["composite"] = root
        tables["root"] = {"type": row["around it"], "inner": "&composite", **WRAPPERS[row["around it"]]}
    return tables


def filled_in(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return *table* with references to others of the same member, and with paths of its own."""

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(each) for each in value]
        return value.replace("{}", name).replace("./store", f"./{name}").replace("folder/", f"{name}/")

    return {key: fill(value) for key, value in table.items()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ",".join(row.values()))
def test_pairs(row: Row, tmp_path: Path) -> None:
    """Whatever stands in what, each clause is kept."""
    assert failing_clauses(stack_of(row), tmp_path) == {}


def test_the_rows_have_all_pairs() -> None:
    """None is missing, and there are far fewer rows than in the product."""
    had = set().union(*map(pairs_of, ROWS))
    for one, other in itertools.combinations(PLACES, 2):
        for value, beside in itertools.product(PLACES[one], PLACES[other]):
            pair = {one: value, other: beside}
            assert (pairs_of(pair) <= had) == can_stand(pair), pair
    assert all(can_stand(row) for row in ROWS)
    assert len(ROWS) < 80
