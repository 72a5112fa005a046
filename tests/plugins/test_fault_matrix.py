"""Every combination of members that are well, empty, failing, corrupt or hanging, against tables.

The tables in `testdata/fault_matrix` are the specification: a row for each combination, a column for each
operation. They were made from the rules stated in `Rules` below, which know nothing of the services, and
then read. `CASTORE_RENEW_GOLDEN=1` writes them anew.

Outcomes: `yes`, `no`, `there`, `absent`, `data`, `list`, `none`, `corrupt` (`CorruptBlobError`), `stored:`
and who has it then, `unavailable:` and the members that the error names.

What was measured of each member and of the whole tells the same: who was asked, and what came of it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from castore import B3Digest, BlobService, CorruptBlobError, UnavailableError
from castore.composites.members import Member
from castore.metrics.meters import Meters
from castore.metrics.model import OperationMetrics
from castore.metrics.shell import measured
from castore.testing.blobs import noise
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService

FOLDER: Final = Path(__file__).parents[1] / "testdata" / "fault_matrix"
KINDS: Final = ("ok", "absent", "error", "corrupt", "hang")
OPERATIONS: Final = ("has", "missing", "chunks", "read", "put")
SILENT: Final = ("error", "hang")

CUT: Final = noise(4000)
"""Several chunks."""
WHOLE: Final = noise(100)
"""One."""


class Rules:
    """What the tables say, in a few words."""

    @staticmethod
    def decide(kinds: Sequence[str], misses: int, *, hits: Sequence[str], hit: str, miss: str) -> str:
        """A hit wins. A corrupt one is the answer if all others have answered. Then misses count."""
        if any(kind in hits for kind in kinds):
            return hit
        silent = [kind in SILENT for kind in kinds]
        corrupt = [kind == "corrupt" for kind in kinds]
        if any(corrupt) and not any(silent):
            return "corrupt"
        if not any(corrupt) and kinds.count("absent") >= misses:
            return miss
        return "unavailable:" + named(kinds, *SILENT, "corrupt")

    @classmethod
    def reads(cls, kinds: Sequence[str], misses: int) -> dict[str, str]:
        # Whether a blob is there can be seen without looking into it.
        seen = ("ok", "corrupt")
        return {
            "has": cls.decide(kinds, misses, hits=seen, hit="yes", miss="no"),
            "missing": cls.decide(kinds, misses, hits=seen, hit="there", miss="absent"),
            "chunks": cls.decide(kinds, misses, hits=("ok",), hit="list", miss="none"),
            "read": cls.decide(kinds, misses, hits=("ok",), hit="data", miss="none"),
        }

    @classmethod
    def fallback(cls, kinds: Sequence[str]) -> dict[str, str]:
        """Absent takes the word of all; the first is written to."""
        return {**cls.reads(kinds, len(kinds)), "put": cls.put_first(kinds)}

    @classmethod
    def mirror(cls, kinds: Sequence[str]) -> dict[str, str]:
        """Two of three must have it, and two must call it absent."""
        stored = [name for name, kind in zip("abc", kinds, strict=True) if kind not in SILENT]
        return {
            **cls.reads(kinds, 2),
            "put": f"stored:{','.join(stored)}"
            if len(stored) > 1
            else "unavailable:" + named(kinds, *SILENT),
        }

    @classmethod
    def cache(
        cls,
        kinds: Sequence[str],
        *,
        write: str = "near",
        on_near_error: str = "ignore",
        on_far_error: str = "fail",
    ) -> dict[str, str]:
        """Near first; then far, whose "absent" does not excuse a near that failed and alone is written to.

        A near that is silent is passed over, unless it is not; a far that is silent may count as one that
        has nothing. What is corrupt in near is there, whatever far says.
        """
        near, far = kinds

        def ask(hits: Sequence[str], hit: str, miss: str) -> str:
            if near in hits:
                return hit
            if near in SILENT and on_near_error == "fail":
                return "unavailable:a"
            if far in hits:
                return hit
            if far in SILENT and on_far_error == "fail":
                return "unavailable:b"
            if far == "corrupt":
                return "corrupt"
            if write == "near" and near in SILENT:
                return "unavailable:a"
            return "corrupt" if near == "corrupt" else miss

        def put() -> str:
            if write == "near":
                return cls.put_first(kinds)
            if far in SILENT:
                return "unavailable:b"
            if write == "far":
                return "stored:" + named([near, "ok"], "ok")
            if near in SILENT and on_near_error == "fail":
                return "unavailable:a"
            return "stored:b" if near in SILENT else "stored:a,b"

        return {
            "has": ask(("ok", "corrupt"), "yes", "no"),
            "missing": ask(("ok", "corrupt"), "there", "absent"),
            "chunks": ask(("ok",), "list", "none"),
            "read": ask(("ok",), "data", "none"),
            "put": put(),
        }

    @staticmethod
    def put_first(kinds: Sequence[str]) -> str:
        """The first takes it, and so heals; the others have what they had."""
        if kinds[0] in SILENT:
            return "unavailable:a"
        return "stored:" + named(["ok", *kinds[1:]], "ok")


def named(kinds: Sequence[str], *wanted: str) -> str:
    return ",".join(name for name, kind in zip("abc", kinds, strict=False) if kind in wanted)


CACHES: Final[dict[str, dict[str, Any]]] = {
    "cache": {},
    "cache-writing-far": {"write": "far"},
    "cache-writing-both": {"write": "both"},
    "cache-with-a-strict-near": {"write": "both", "on_near_error": "fail"},
    "cache-that-takes-errors-for-misses": {"write": "far", "on_far_error": "miss"},
    "cache-alone-that-does": {"on_far_error": "miss"},
    "cache-strict-that-does": {"on_near_error": "fail", "on_far_error": "miss"},
}

SUBJECTS: Final[dict[str, tuple[int, Callable[[Sequence[str]], dict[str, str]]]]] = {
    "fallback": (3, Rules.fallback),
    "mirror": (3, Rules.mirror),
    **{name: (2, partial(Rules.cache, **settings)) for name, settings in CACHES.items()},
}


def rows_of(subject: str) -> Iterator[list[str]]:
    members, rule = SUBJECTS[subject]
    yield [*"abc"[:members], *OPERATIONS]
    for kinds in itertools.product(KINDS, repeat=members):
        outcome = rule(kinds)
        yield [*kinds, *(outcome[operation] for operation in OPERATIONS)]


def render(subject: str) -> str:
    rows = list(rows_of(subject))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def table_of(subject: str) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    if os.environ.get("CASTORE_RENEW_GOLDEN"):
        (FOLDER / f"{subject}.txt").write_text(render(subject))
    header, *rows = (line.split() for line in (FOLDER / f"{subject}.txt").read_text().splitlines())
    members = len(header) - len(OPERATIONS)
    for row in rows:
        yield tuple(row[:members]), dict(zip(header[members:], row[members:], strict=True))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_table_has_every_combination_and_says_what_the_rules_say(subject: str) -> None:
    assert (FOLDER / f"{subject}.txt").read_text() == render(subject)
    assert len(list(table_of(subject))) == len(KINDS) ** SUBJECTS[subject][0]


@attrs.define
class Bench:
    """Makes members over real object stores, each of a kind, and composites of them."""

    store: Callable[[str], Any]
    blobs_of: Callable[..., BlobService]
    key_of: Callable[[str, B3Digest], str]
    released: threading.Event = attrs.field(factory=threading.Event)
    stores: dict[str, Any] = attrs.field(factory=dict)
    kept: dict[bytes, dict[str, bytes]] = attrs.field(factory=dict)
    meters: dict[str, Meters] = attrs.field(factory=dict)

    def member(self, name: str, kind: str, data: bytes) -> BlobService:
        store = self.stores[name] = self.store(name)
        if kind in ("ok", "corrupt"):
            store.objects.update(self.objects(data))
        if kind == "corrupt":
            store.objects[self.key_of("blobs", B3Digest.of(data))] = b"spoilt"
        if kind == "error":
            store.failing = lambda verb, key: True
        if kind == "hang":
            store.failing = lambda verb, key: not self.released.wait()
        service = self.blobs_of(store, avg_chunk_size=512)
        if kind in SILENT:
            # From the first step on, so that who fails does not depend on who has had the time to.
            service.open_write = lambda: store.get("the first step")  # type: ignore[method-assign]
        return self.measured(name, service)

    def measured(self, name: str, service: BlobService) -> BlobService:
        self.meters[name] = Meters()
        return measured(service, self.meters[name])

    def told(self, name: str) -> OperationMetrics:
        """Return what was measured of a member, or of `root`."""
        counted = self.meters[name].snapshot()
        # To lease what is only in memory asks for nothing, though even that may be too late.
        if "lease" in counted and not counted["lease"].errors:
            del counted["lease"]
        for operation in {"claim", "claim_blobs"} & counted.keys():
            # That some chunks are there for a write, and others not, is none of the outcomes.
            counted[operation] = attrs.evolve(counted[operation], hits=0, misses=0)
        return sum(counted.values(), OperationMetrics())

    def objects(self, data: bytes) -> dict[str, bytes]:
        if data not in self.kept:
            store = self.store("any")
            self.blobs_of(store, avg_chunk_size=512).write(data)
            self.kept[data] = store.objects
        return self.kept[data]

    def holders(self, digest: B3Digest) -> str:
        whole = (
            n
            for n, s in self.stores.items()
            if s.objects.get(self.key_of("blobs", digest), b"spoilt") != b"spoilt"
        )
        return ",".join(whole)

    def composite(self, subject: str, kinds: Sequence[str], data: bytes) -> BlobService:
        return self.measured("root", self._composite(subject, kinds, data))

    def _composite(self, subject: str, kinds: Sequence[str], data: bytes) -> BlobService:
        # What hangs may be given up soon, for it never answers. The others may take as long as they like.
        members = [
            Member(name, self.member(name, kind, data), timeout=0.001 if kind == "hang" else None)
            for name, kind in zip("abc", kinds, strict=False)
        ]
        if subject == "fallback":
            return FallbackBlobService(members, name="root")
        if subject == "mirror":
            # What is healed afterwards is for other tests.
            queue = HealingQueue(limit=0)
            return MirrorBlobService(members, write_quorum=2, miss_quorum=2, queue=queue, name="root")
        # A cache has no deadlines; a fallback of one service gives them to any.
        near, far = (FallbackBlobService([member], name=member.name) for member in members)
        return CacheBlobService(near, far, name="root", **CACHES[subject])


@pytest.fixture
def bench(store: Any, blobs_of: Any, key_of: Any) -> Iterator[Bench]:
    bench = Bench(type(store), blobs_of, key_of)
    with ExitStack() as stack:
        stack.callback(bench.released.set)
        yield bench


def outcome_of(bench: Bench, service: BlobService, operation: str, data: bytes) -> str:
    digest = B3Digest.of(data)
    try:
        if operation == "has":
            return "yes" if service.has(digest) else "no"
        if operation == "missing":
            return {frozenset(): "there", frozenset({digest}): "absent"}[frozenset(service.missing([digest]))]
        if operation == "chunks":
            return "none" if service.chunks(digest) is None else "list"
        if operation == "read":
            reader = service.open_read(digest)
            if reader is None:
                return "none"
            with reader:
                assert reader.read() == data
            return "data"
        assert service.write(data) == digest
        return f"stored:{bench.holders(digest)}"
    except CorruptBlobError:
        return "corrupt"
    except UnavailableError as error:
        names = sorted(error.causes) or [error.instance]
        named_all = all(f"`{name}`" in error.message for name in names)
        return f"unavailable:{','.join(names)}" if named_all else error.message


class Told:
    """What metrics have to tell, by the kinds of the members and the outcome alone.

    Of a cache with other policies more would have to be known: they decide who is asked.
    """

    SUBJECTS: Final = ("fallback", "mirror", "cache")

    @staticmethod
    def asked(subject: str, kinds: Sequence[str], operation: str) -> list[bool]:
        """Who is asked: those up to the first that has an answer; to write, the first, or in a mirror all."""
        if operation == "put":
            return [subject == "mirror" or place == 0 for place in range(len(kinds))]
        hits = ("ok", "corrupt") if operation in ("has", "missing") else ("ok",)
        return [not any(kind in hits for kind in kinds[:place]) for place in range(len(kinds))]

    @staticmethod
    def of_member(kind: str, operation: str) -> set[str]:
        """What a member that is asked has: hits, misses, kinds of errors. One that hangs has not answered."""
        if kind == "hang":
            return set()
        if kind == "error":
            return {"unavailable"}
        if operation == "put":
            return set()
        if kind == "corrupt":
            return {"hits"} if operation in ("has", "missing") else {"corrupt"}
        return {"hits"} if kind == "ok" else {"misses"}

    @staticmethod
    def of_all(outcome: str) -> set[str]:
        """What the composite has."""
        word = outcome.partition(":")[0]
        answers = {"hits": ("yes", "there", "data", "list"), "misses": ("no", "absent", "none")}
        known = {answer: name for name, words in answers.items() for answer in words}
        return set() if word == "stored" else {known.get(word, word)}

    @staticmethod
    def by(counted: OperationMetrics) -> set[str]:
        """What was measured, in the same words."""
        answers = {"hits": counted.hits, "misses": counted.misses, **counted.errors}
        return {word for word, count in answers.items() if count}


CASES: Final = [
    pytest.param(subject, kinds, expected, id=f"{subject}-{'-'.join(kinds)}")
    for subject in SUBJECTS
    for kinds, expected in table_of(subject)
]


@pytest.mark.parametrize(("subject", "kinds", "expected"), CASES)
def test_outcomes(bench: Bench, subject: str, kinds: Sequence[str], expected: dict[str, str]) -> None:
    """Whatever befalls the members, each operation ends as the table says, also where some of them hang."""
    for data in (CUT, WHOLE):
        for operation in OPERATIONS:
            bench.stores.clear()
            service = bench.composite(subject, kinds, data)
            found = outcome_of(bench, service, operation, data)
            assert (operation, found) == (operation, expected[operation])
            if subject in Told.SUBJECTS:
                check_metrics(bench, subject, kinds, operation, found, data)
            service.close()


def check_metrics(
    bench: Bench, subject: str, kinds: Sequence[str], operation: str, outcome: str, data: bytes
) -> None:
    """Who has failed, who has it and who lacks it can be told from the metrics of each."""
    asked = Told.asked(subject, kinds, operation)
    for name, kind, was_asked in zip("abc", kinds, asked, strict=False):
        told = bench.told(name)
        wanted = Told.of_member(kind, operation) if was_asked else set()
        if (subject, operation, name, *kinds) == ("cache", "read", "a", "corrupt", "ok") and data == CUT:
            # Its index is spoilt, but its chunks serve the blob that far lists.
            wanted.add("hits")
        assert (operation, name, Told.by(told)) == (operation, name, wanted)
        if kind == "hang" or not was_asked:
            # What hangs may not have been begun before it was given up.
            assert told.calls == 0
        else:
            assert (told.calls > 0, told.under_way) == (True, 0)
        if was_asked and outcome.startswith("stored:") and name in outcome.removeprefix("stored:").split(","):
            lacked = any(kind == "absent" for kind, was in zip(kinds, asked, strict=True) if was)
            assert told.bytes_in == (len(data) if lacked else 0)
    assert (operation, Told.by(bench.told("root"))) == (operation, Told.of_all(outcome))
