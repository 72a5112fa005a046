"""The contracts as pytest classes: one fixture to write, and each clause is a test of its own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.operations import CAPABILITIES, DIRECTORY_CAPABILITIES
from castore.contract.refs import RefService
from castore.testing.clause import Clause, declares, has_of
from castore.testing.contract import CLAUSES, DIRECTORY_CLAUSES, REF_CLAUSES
from castore.testing.expecting import expect_that


class _ServiceContract:
    """A test for each clause of a contract."""

    _every: ClassVar[tuple[Clause, ...]] = ()
    _kinds: ClassVar[tuple[type, ...]] = ()

    capabilities: ClassVar[Collection[type] | None] = None
    """The capabilities of the service; the bases of one (`ChunkSource` of `ChunkStore`) need no mention."""

    xfail: ClassVar[Mapping[str, str]] = {}
    """The clauses that the service does not keep, by name, with the reason."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = [clause.name for clause in cls._every]
        for name in cls.xfail:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {close[0]!r}?"
                    if close
                    else "see `CLAUSES`, `DIRECTORY_CLAUSES` and `REF_CLAUSES`"
                )
                raise ValueError(f"{cls.__name__}.xfail: {name!r} is no clause of the contract; {hint}")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each clause that may say something about the service."""
        if "clause" in metafunc.fixturenames:
            metafunc.parametrize("clause", [self._param(clause) for clause in self._clauses()])

    def _clauses(self) -> Iterator[Clause]:
        declared = self.capabilities
        if declared is None:
            yield from self._every
            return
        has = declares(declared)
        yield from (clause for clause in self._every if clause.reason_against(has) is None)
        yield _as_declared(type(self).__name__, declared, self._kinds)

    def _param(self, clause: Clause) -> Any:
        reason = self.xfail.get(clause.name)
        marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
        return pytest.param(clause, id=clause.name, marks=marks)

    def test_contract(self, service: Any, clause: Clause) -> None:
        """The service keeps the clause."""
        __tracebackhide__ = True
        with service:
            reason = clause.reason_against(has_of(service))
            if reason is not None and self.capabilities is None:
                pytest.skip(reason)
            clause.check(service)


class BlobServiceContract(_ServiceContract):
    """A test for each clause of the contract.

    Subclass it, name the subclass `Test...`, and override the fixture `service`::

        class TestTape(BlobServiceContract):
            capabilities = (BlobLister, ChunkStore)
            xfail = {"large-blob": "the tape is too short"}

            @pytest.fixture
            def service(self, tmp_path):
                return TapeBlobService(tmp_path)

    Each clause becomes a test: `TestTape::test_contract[put-then-get]`. With *capabilities*, which may be
    left out, only those that say something about the service are collected, and one more that compares the
    capabilities with those that the service has. Without it the others are skipped as they run.

    *xfail* names the clauses that the service does not keep, each with the reason; that it begins to keep one
    is a failure, too, so that the list stays true.
    """

    _every = CLAUSES
    _kinds = CAPABILITIES

    @pytest.fixture
    def service(self) -> BlobService:
        """Return the service to test, which the test closes; override it. It need not be empty."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `service`")


class DirectoryServiceContract(_ServiceContract):
    """The same for services of directories.

    Subclass it, name the subclass `Test...`, and override the fixture `service`::

        class TestTape(DirectoryServiceContract):
            capabilities = (AnyDirectory,)

            @pytest.fixture
            def service(self, tmp_path):
                return TapeDirectoryService(tmp_path)
    """

    _every = DIRECTORY_CLAUSES
    _kinds = DIRECTORY_CAPABILITIES

    @pytest.fixture
    def service(self) -> DirectoryService:
        """Return the service to test, which the test closes; override it. It need not be empty."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `service`")


class RefServiceContract(_ServiceContract):
    """The same for services of refs.

    Subclass it, name the subclass `Test...`, and override the fixture `service`::

        class TestTape(RefServiceContract):
            @pytest.fixture
            def service(self, tmp_path):
                return TapeRefService(tmp_path)
    """

    _every = REF_CLAUSES

    @pytest.fixture
    def service(self) -> RefService:
        """Return the service to test, which the test closes; override it. It need not be empty."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `service`")


def _as_declared(name: str, declared: Collection[type], known: Collection[type]) -> Clause:
    def run(service: Any) -> None:
        has, named = has_of(service), declares(declared)
        kinds = dict.fromkeys((*known, *declared))
        wrong = [kind for kind in kinds if has(kind) != named(kind)]
        true = ", ".join(kind.__name__ for kind in kinds if has(kind)) or "nothing"
        expect_that(
            not wrong,
            f"{name}.capabilities to name what the service has: {true}",
            ", ".join(f"{kind.__name__} {'left out' if has(kind) else 'named'}" for kind in wrong),
        )

    return Clause("capabilities-as-declared", "The service has the capabilities that are declared.", run)
