"""What becomes of each item of a batch, whatever the members say of it and of the other items.

The tables in `testdata/fault_matrix/of_items` are the specification: a row for each combination of what the
members say of one item, a column for each operation. They were made from the rules in `Rules`, which know
nothing of the services, and then read. `CASTORE_RENEW_GOLDEN=1` writes them anew. Batches of four then have
every combination of verdicts, so that an item that fares badly has every kind of neighbour.

The words of members: `ok`, `absent`, `unavailable`, `corrupt`; to be put an item comes to all but those where
it is `unavailable`. The verdicts: `data`, `there`, `done`, `absent`, `corrupt`, `unavailable`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from castore import B3Digest, BlobService, CastoreError, ChunkMeta, CorruptBlobError, UnavailableError
from castore.composites.members import Member
from castore.contract.capabilities import ChunkSource, ChunkStore
from castore.errors import BatchError
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService

FOLDER: Final = Path(__file__).parents[1] / "testdata" / "fault_matrix" / "of_items"
KINDS: Final = ("ok", "absent", "unavailable", "corrupt")
OPERATIONS: Final = ("get", "claim", "claim_blob", "put", "put_index")

Said = tuple[str, ...]
"""What each member says of an item."""


@attrs.frozen
class Rules:
    """What the tables say, in a few words."""

    members: int
    misses: int
    """How many must call an item absent."""
    writes: int
    """How many must take an item."""
    written: int
    """How many are written to."""

    def get(self, said: Said) -> str:
        """A hit wins. A corrupt one is the answer if all others have answered. Then misses count."""
        if "ok" in said:
            return "data"
        if "corrupt" in said:
            return "unavailable" if "unavailable" in said else "corrupt"
        return "absent" if said.count("absent") >= self.misses else "unavailable"

    def claim(self, said: Said) -> str:
        """It is absent if one that is written to lacks it; it is there if enough of them tell."""
        said = said[: self.written]
        if "absent" in said or "corrupt" in said:
            return "absent"
        return "there" if said.count("ok") >= self.writes else "unavailable"

    def put(self, said: Said) -> str:
        """Enough of those that are written to must take it."""
        taken = self.written - said[: self.written].count("unavailable")
        return "done" if taken >= self.writes else "unavailable"

    def all(self, said: Said) -> dict[str, str]:
        got, claimed, taken = self.get(said), self.claim(said), self.put(said)
        return dict(zip(OPERATIONS, (got, claimed, claimed, taken, taken), strict=True))


SUBJECTS: Final = {
    "mirror-of-three": Rules(3, misses=2, writes=2, written=3),
    "mirror-of-two": Rules(2, misses=1, writes=2, written=2),
    "mirror-of-two-for-one": Rules(2, misses=2, writes=1, written=2),
    "fallback": Rules(2, misses=2, writes=1, written=1),
}


def render(subject: str) -> str:
    rules = SUBJECTS[subject]
    rows = [[*"abc"[: rules.members], *OPERATIONS]]
    rows += [[*said, *rules.all(said).values()] for said in itertools.product(KINDS, repeat=rules.members)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def table_of(subject: str) -> dict[Said, dict[str, str]]:
    """Return the verdicts on each combination."""
    path = FOLDER / f"{subject}.txt"
    if os.environ.get("CASTORE_RENEW_GOLDEN"):
        path.write_text(render(subject))
    _, *rows = (line.split() for line in path.read_text().splitlines())
    count = SUBJECTS[subject].members
    return {tuple(row[:count]): dict(zip(OPERATIONS, row[count:], strict=True)) for row in rows}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_table_has_every_combination_and_says_what_the_rules_say(subject: str) -> None:
    assert (FOLDER / f"{subject}.txt").read_text() == render(subject)
    assert len(table_of(subject)) == len(KINDS) ** SUBJECTS[subject].members


class Scripted(MemoryBlobService):
    """Says of each item what it is told to, and remembers the calls."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.says: dict[B3Digest, str] = {}
        self.data: dict[B3Digest, bytes] = {}
        self.calls: list[tuple[str, set[B3Digest]]] = []
        self.put: set[B3Digest] = set()

    def note(self, operation: str, digests: Any) -> list[B3Digest]:
        wanted = list(digests)
        self.calls.append((operation, set(wanted)))
        if wanted and all(self.says[digest] == "unavailable" for digest in wanted):
            raise UnavailableError(self.name, "nothing is known")
        return wanted

    def errors(self, digests: Any) -> dict[B3Digest, CastoreError]:
        return {
            digest: UnavailableError(self.name, "not this one")
            for digest in digests
            if self.says[digest] == "unavailable"
        }

    def get_chunks(self, sizes: Any) -> Any:
        wanted = self.note("get", sizes)
        found: dict[B3Digest, Any] = dict(self.errors(wanted))
        for digest in wanted:
            if self.says[digest] == "ok":
                found[digest] = self.data[digest]
            elif self.says[digest] == "corrupt":
                found[digest] = CorruptBlobError("not right", expected=digest)
        return found

    def claim(self, digests: Any) -> set[B3Digest]:
        return self.answer(self.note("claim", digests))

    def claim_blobs(self, blobs: Any) -> set[B3Digest]:
        return self.answer(self.note("claim_blob", blobs))

    def answer(self, wanted: list[B3Digest]) -> set[B3Digest]:
        there = {digest for digest in wanted if self.says[digest] == "ok"}
        if errors := self.errors(wanted):
            raise BatchError(self.name, errors, done=there)
        return there

    def put_chunks(self, chunks: Any) -> None:
        self.take("put", chunks)

    def put_indexes(self, blobs: Any) -> None:
        self.take("put_index", blobs)

    def take(self, operation: str, things: Any) -> None:
        wanted = self.note(operation, things)
        errors = self.errors(wanted)
        self.put |= set(wanted) - errors.keys()
        if errors:
            raise BatchError(self.name, errors, done=set(wanted) - errors.keys())


class Noting(HealingQueue):
    """Takes note of what is to be healed."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: set[tuple[str, B3Digest]] = set()

    def add(self, member: Member, digest: B3Digest, reason: Any = "missing") -> None:
        self.noted.add((member.name, digest))


def composite(
    subject: str, services: Sequence[BlobService], queue: HealingQueue | None = None
) -> BlobService:
    rules = SUBJECTS[subject]
    members = [Member(name, service) for name, service in zip("abc", services, strict=False)]
    if subject == "fallback":
        return FallbackBlobService(members, name="root")
    return MirrorBlobService(
        members,
        write_quorum=rules.writes,
        miss_quorum=rules.misses,
        queue=queue or HealingQueue(limit=0),
        name="root",
    )


def batches_of(subject: str, operation: str) -> Iterator[list[Said]]:
    """Yield batches of four with all combinations of verdicts; each row of the table has its turns."""
    rows: dict[str, list[Said]] = {}
    for said, verdicts in table_of(subject).items():
        rows.setdefault(verdicts[operation], []).append(said)
    turns = {verdict: itertools.cycle(some) for verdict, some in rows.items()}
    used: set[Said] = set()
    for verdicts in itertools.product(rows, repeat=4):
        batch = [next(turns[verdict]) for verdict in verdicts]
        used.update(batch)
        yield batch
    for said in table_of(subject).keys() - used:
        yield [said] * 4


DATA: Final = [f"item {number}".encode() for number in range(4)]
DIGESTS: Final = [B3Digest.of(data) for data in DATA]


def verdicts_by(operation: str, service: BlobService) -> list[str]:
    """Return what a call for all four says of each."""
    store = service.capability(ChunkStore)
    source = service.capability(ChunkSource)
    assert store is not None
    assert source is not None
    items = dict(zip(DIGESTS, DATA, strict=True))
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: source.get_chunks({digest: len(data) for digest, data in items.items()}),
        "claim": lambda: store.claim(DIGESTS),
        "claim_blob": lambda: store.claim_blobs(dict.fromkeys(DIGESTS, ())),
        "put": lambda: store.put_chunks(items),
        "put_index": lambda: store.put_indexes(dict.fromkeys(DIGESTS, ())),
    }
    done, absent = ("there", "absent") if operation.startswith("claim") else ("done", "unavailable")
    try:
        answer = calls[operation]()
    except BatchError as error:
        if error.done & error.faults.keys() or not all(map(is_unavailable, error.faults.values())):
            return [str(error)]
        return [
            done if digest in error.done else "unavailable" if digest in error.faults else absent
            for digest in DIGESTS
        ]
    except UnavailableError:
        return ["unavailable"] * 4
    if operation == "get":
        return [word_for(answer.get(digest), items[digest]) for digest in DIGESTS]
    return [done if answer is None or digest in answer else absent for digest in DIGESTS]


def is_unavailable(error: CastoreError) -> bool:
    return isinstance(error, UnavailableError)


def word_for(found: bytes | CastoreError | None, data: bytes) -> str:
    if found is None:
        return "absent"
    if isinstance(found, CastoreError):
        return "corrupt" if isinstance(found, CorruptBlobError) else "unavailable"
    assert found == data
    return "data"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_verdict_is_on_each_item(subject: str, operation: str) -> None:
    """And each member is asked once: to read for what those before it had not right, else for all."""
    table, rules = table_of(subject), SUBJECTS[subject]
    for batch in batches_of(subject, operation):
        services = [Scripted(name) for name in "abc"[: rules.members]]
        for place, service in enumerate(services):
            service.says = {digest: said[place] for digest, said in zip(DIGESTS, batch, strict=True)}
            service.data = dict(zip(DIGESTS, DATA, strict=True))
        found = verdicts_by(operation, composite(subject, services))
        assert (batch, found) == (batch, [table[said][operation] for said in batch])
        for place, service in enumerate(services):
            assert (batch, place, service.calls) == (batch, place, calls_to(place, operation, batch, rules))


def calls_to(place: int, operation: str, batch: list[Said], rules: Rules) -> list[tuple[str, set[B3Digest]]]:
    """Return the calls that a member gets, with what it is asked for."""
    asked = set(DIGESTS) if place < rules.written else set()
    if operation == "get":
        asked = {digest for digest, said in zip(DIGESTS, batch, strict=True) if "ok" not in said[:place]}
    return [(operation, asked)] if asked else []


@pytest.mark.parametrize("came", [False, True])
@pytest.mark.parametrize("said", [*itertools.product(("ok", "unavailable"), repeat=3)], ids="-".join)
def test_an_index_goes_where_all_of_its_chunks_are(said: Said, came: bool) -> None:
    """Of two blobs that share a chunk which some members have missed, and one that does not need it.

    If it *came* there meanwhile they get all indexes.
    """
    services = [Scripted(name) for name in "abc"]
    queue = Noting()
    store = composite("mirror-of-three", services, queue).capability(ChunkStore)
    assert store is not None
    shared, *own = DIGESTS
    needing = [B3Digest.of(b"one blob"), B3Digest.of(b"another blob")]
    blobs: dict[B3Digest, list[ChunkMeta]] = {
        needing[0]: [ChunkMeta(shared, 6), ChunkMeta(own[0], 6)],
        needing[1]: [ChunkMeta(own[1], 6), ChunkMeta(shared, 6)],
        own[2]: [],
    }
    for one, word in zip(services, said, strict=True):
        one.says = {**dict.fromkeys([*DIGESTS, *blobs], "ok"), shared: word}
    enough = said.count("ok") >= 2
    with contextlib.nullcontext() if enough else pytest.raises(BatchError) as caught:
        store.put_chunks(dict(zip(DIGESTS, DATA, strict=True)))
    if caught is not None:
        assert (set(caught.value.faults), caught.value.done) == ({shared}, set(own))
    for one, word in zip(services, said, strict=True):
        one.says[shared] = "ok" if came or word == "ok" else "absent"
        one.put.clear()
        one.calls.clear()
    with contextlib.nullcontext() if enough or came else pytest.raises(BatchError) as caught:
        store.put_indexes(blobs)
    if caught is not None:
        assert (set(caught.value.faults), caught.value.done) == (set(needing), {own[2]})
    behind = {one.name for one, word in zip(services, said, strict=True) if word != "ok" and not came}
    for one, word in zip(services, said, strict=True):
        wanted = {own[2]} if one.name in behind else set(blobs)
        doubtful = [("claim", {shared})] if word != "ok" else []
        assert (one.put, one.calls) == (wanted, [*doubtful, ("put_index", wanted)])
    assert queue.noted == {(name, digest) for name in behind for digest in needing if enough}
