"""`BlobServiceContract`, used as a stranger uses it: in a test file of its own, run by pytest."""

from __future__ import annotations

import pytest

from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.upkeep import Evictable
from castore.testing import CLAUSES
from castore.testing.clause import declares

pytest_plugins = ["pytester"]

HEAD = """
import pytest
from castore.testing import BlobServiceContract
from castore_memory.service import MemoryBlobService

class Forgetful(MemoryBlobService):
    def has(self, digest):
        return False
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_mine=HEAD + text)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *options)

    return run


def test_one_fixture_is_enough(run) -> None:
    """A subclass with a fixture is a test for each clause, named by it."""
    result = run(
        """
class TestMine(BlobServiceContract):
    @pytest.fixture
    def service(self):
        return MemoryBlobService()
""",
        "-v",
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes["skipped"] == len(CLAUSES)
    assert set(outcomes) == {"passed", "skipped"}
    result.stdout.fnmatch_lines(["*TestMine::test_contract?put-then-get? PASSED*"])


def test_with_capabilities_nothing_is_skipped(run) -> None:
    """With the capabilities declared, what says nothing about the service is not collected."""
    result = run(
        """
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.contract.upkeep import Evictable

class TestMine(BlobServiceContract):
    capabilities = (BlobLister, ChunkStore, Evictable)

    @pytest.fixture
    def service(self):
        return MemoryBlobService()
""",
        "-v",
    )
    has = declares((BlobLister, ChunkStore, Evictable))
    clauses = [clause for clause in CLAUSES if clause.reason_against(has) is None]
    assert len(clauses) < len(CLAUSES)
    result.assert_outcomes(passed=len(clauses) + 1)
    result.stdout.fnmatch_lines(["*TestMine::test_contract?capabilities-as-declared? PASSED*"])


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("BlobLister, ChunkStore", "Evictable left out"),
        ("BlobLister, ChunkStore, Evictable, Durable", "Durable named"),
    ],
)
def test_a_wrong_declaration_is_told(run, declared: str, said: str) -> None:
    """What is left out, or not there, is one failure that says what to write."""
    result = run(
        f"""
from castore.contract.capabilities import BlobLister, ChunkStore, Durable
from castore.contract.upkeep import Evictable

class TestMine(BlobServiceContract):
    capabilities = ({declared})

    @pytest.fixture
    def service(self):
        return MemoryBlobService()
""",
        "-k",
        "capabilities-as-declared or put-twice",
    )
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["passed"]) == (1, 1)
    names = "BlobLister, ChunkSource, ChunkStore, Evictable"
    result.stdout.fnmatch_lines(
        [f"E*expected TestMine.capabilities to name what the service has: {names}, got {said}"]
    )


def test_a_failure_names_the_clause_and_hides_the_kit(run) -> None:
    """What one sees is the line of the clause and both sides, not how the kit compares."""
    result = run(
        """
class TestMine(BlobServiceContract):
    @pytest.fixture
    def service(self):
        return Forgetful()
""",
        "-k",
        "put-twice",
    )
    result.assert_outcomes(failed=1, deselected=len(CLAUSES) - 1)
    result.stdout.fnmatch_lines(["E*ContractError: put-twice: expected has(*) to be True, got False"])
    result.stdout.no_fnmatch_line("*raise ContractError*")


def test_xfail_is_strict(run) -> None:
    """A known deviation is an xfail with its reason; one that is none any more is a failure."""
    result = run(
        """
class TestMine(BlobServiceContract):
    xfail = {"put-twice": "it forgets", "absent-has-false": "so we thought"}

    @pytest.fixture
    def service(self):
        return Forgetful()
""",
        "-rxf",
        "-k",
        "put-twice or absent-has-false",
    )
    result.assert_outcomes(xfailed=1, failed=1, deselected=len(CLAUSES) - 2)
    result.stdout.fnmatch_lines(["XFAIL*put-twice* - it forgets*"])
    result.stdout.fnmatch_lines(["*XPASS(strict)* so we thought"])


def test_a_misspelt_deviation_is_refused(run) -> None:
    """A name in `xfail` that is no clause is an error where the class is written."""
    result = run(
        """
class TestMine(BlobServiceContract):
    xfail = {"put-twise": "cannot count"}
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["E*ValueError: TestMine.xfail: 'put-twise' is no clause of the contract; did you mean 'put-twice'?"]
    )


def test_a_forgotten_fixture_is_told(run) -> None:
    """A subclass without a service says what is missing."""
    result = run("class TestMine(BlobServiceContract): pass", "-k", "put-twice")
    result.assert_outcomes(errors=1, deselected=len(CLAUSES) - 1)
    result.stdout.fnmatch_lines(["E*NotImplementedError: TestMine must override the fixture `service`"])


def test_the_service_is_closed_and_other_tests_are_left_alone(run) -> None:
    """The suite closes each service; a test of the subclass's own is not parametrised."""
    result = run(
        """
class TestMine(BlobServiceContract):
    closed = []

    @pytest.fixture
    def service(self):
        closed = self.closed

        class Closing(MemoryBlobService):
            def close(self):
                closed.append(1)
        return Closing()

    def test_zz_of_its_own(self):
        assert len(self.closed) == 2
""",
        "-k",
        "put-twice or durability-is-stated or zz",
    )
    result.assert_outcomes(passed=2, skipped=1, deselected=len(CLAUSES) - 2)


def test_the_class_itself_is_not_collected(run) -> None:
    """Importing the class into a test file runs nothing."""
    result = run("def test_one(): pass")
    result.assert_outcomes(passed=1)
