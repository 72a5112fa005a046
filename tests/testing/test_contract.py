"""The kit without pytest: running the clauses, the errors, the fixture blobs, and services with faults."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import castore.testing
from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import ChunkStore, Durable
from castore.digest import B3Digest
from castore.errors import UnavailableError
from castore.streams.readers import BytesReader
from castore.testing import BLOBS, CHUNKS, CLAUSES, Clause, ContractError, FaultyService, run_contract
from castore_memory.service import MemoryBlobService


class DurableService(MemoryBlobService, Durable):
    @property
    def durability(self) -> Literal["process", "full"]:
        return "full"


class HasEverything(MemoryBlobService):
    def has(self, digest: B3Digest) -> bool:
        return True


class LosesTheEnd(MemoryBlobService):
    def open_read(self, digest: B3Digest) -> BlobReader | None:
        reader = super().open_read(digest)
        return None if reader is None else BytesReader(reader.read(3145727))


def named(name: str) -> Clause:
    return next(clause for clause in CLAUSES if clause.name == name)


def test_faulty_service_fails_where_told() -> None:
    """What is named fails with `UnavailableError`, also through a capability; it is noted, too."""
    service = FaultyService(
        DurableService(), {"has", "get_chunks", "reader.read", "durability"}, instance="far"
    )
    digest = service.write(b"data")
    store = service.capability(ChunkStore)
    assert store is not None
    calls: list[Callable[[], object]] = [
        lambda: service.has(digest),
        lambda: store.get_chunk(digest),
        lambda: service.capability(Durable).durability,
        lambda: service.read(digest),
    ]
    for call in calls:
        with pytest.raises(UnavailableError, match="`far` is unavailable"):
            call()
    assert service.chunks(digest) == ()
    assert service.calls[:4] == ["lease", "claim", "put_chunks", "put_indexes"]
    assert service.calls[-6:] == ["has", "get_chunks", "durability", "open_read", "reader.read", "chunks"]


def test_names_are_unique_and_each_clause_has_a_text() -> None:
    """Clauses are told apart by name, and each says in a sentence what it demands."""
    names = [clause.name for clause in CLAUSES]
    assert len(set(names)) == len(names)
    for clause in CLAUSES:
        assert clause.text.endswith("."), clause.name
        assert str(clause) == clause.name


def test_the_error_names_the_clause_and_both_sides() -> None:
    """A `ContractError` says which clause, what it expects and what it got; it pickles, and is a failure."""
    outcome = next(run_contract(HasEverything, [named("absent-has-false")]))
    error = outcome.error
    assert isinstance(error, ContractError)
    assert isinstance(error, AssertionError)
    assert error.clause == "absent-has-false"
    assert str(error) == "absent-has-false: expected has() of an absent blob to be False, got True"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (ContractError, str(error))


def test_the_error_shows_where_bytes_differ() -> None:
    """Two large blobs are not printed in full; the place of the first difference is."""
    outcome = next(run_contract(LosesTheEnd, [named("put-then-get")]))
    text = str(outcome.error)
    assert "(3145728 bytes)" in text
    assert "which differs first at byte 3145727" in text
    assert len(text) < 500


def test_what_a_service_raises_is_a_failure() -> None:
    """An error that no clause expected fails the clause, and the next one is tried."""

    class Down(MemoryBlobService):
        def has(self, digest: B3Digest) -> bool:
            raise UnavailableError("down", "no route")

    first, second = run_contract(Down, CLAUSES[:2])
    assert (first.verdict, type(first.error)) == ("FAIL", UnavailableError)
    assert (second.verdict, second.error) == ("ok", None)


def test_each_service_is_closed() -> None:
    """`run_contract` closes what it made, whether the clause held, failed or was skipped."""
    made: list[Counted] = []

    class Counted(MemoryBlobService):
        open = True

        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def close(self) -> None:
            self.open = False

    list(run_contract(Counted, [named("put-twice"), named("durability-is-stated"), named("large-blob")]))
    assert len(made) == 3
    assert not any(service.open for service in made)


def test_what_make_raises_is_raised() -> None:
    """A factory that fails is no failure of the contract."""

    def make() -> BlobService:
        raise OSError("no such tape")

    with pytest.raises(OSError, match="no such tape"):
        list(run_contract(make))


def test_it_works_without_asserts_and_without_pytest() -> None:
    """`python -O` takes nothing away; neither pytest nor hypothesis is imported."""
    program = """
import sys
from castore.testing import run_contract
from castore_memory.service import MemoryBlobService

class Forgetful(MemoryBlobService):
    def has(self, digest):
        return False

failed = [outcome.clause.name for outcome in run_contract(Forgetful) if outcome.verdict == "FAIL"]
print(__debug__, "put-then-get" in failed, "absent-has-false" in failed)
print([name for name in ("pytest", "hypothesis") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False True False\n[]\n"


@pytest.mark.parametrize("blob", [*BLOBS, *CHUNKS], ids=str)
def test_blobs_have_their_digest_and_size(blob: Any) -> None:
    """The fixture blobs are the bytes that the reference has digests for."""
    assert B3Digest.of(blob.data) == blob.digest
    assert len(blob.data) == blob.size
    assert blob.meta == ChunkMeta(blob.digest, blob.size)


def test_chunks_make_up_sixteen_bytes() -> None:
    """The five fixture chunks are the bytes 0 to 15."""
    assert b"".join(chunk.data for chunk in CHUNKS) == bytes(range(16))


def test_the_kit_has_no_bare_asserts() -> None:
    """An `assert` in the kit would be gone under `python -O`."""
    folder = Path(castore.testing.__file__).parent
    lines = [line for path in folder.rglob("*.py") for line in path.read_text().splitlines()]
    assert lines
    assert [line for line in lines if line.strip().startswith("assert ")] == []
