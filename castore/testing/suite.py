"""The contract as a pytest class: one fixture to write, and each clause is a test of its own."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import pytest

from castore.contract.blobs import BlobService
from castore.contract.operations import CAPABILITIES
from castore.testing.clause import Clause, declares, has_of
from castore.testing.contract import CLAUSES
from castore.testing.expecting import expect_that


class BlobServiceContract:
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

    capabilities: ClassVar[Collection[type] | None] = None
    """The capabilities of the service; the bases of one (`ChunkSource` of `ChunkStore`) need no mention."""

    xfail: ClassVar[Mapping[str, str]] = {}
    """The clauses that the service does not keep, by name, with the reason."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = [clause.name for clause in CLAUSES]
        for name in cls.xfail:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "see castore.testing.CLAUSES"
                raise ValueError(f"{cls.__name__}.xfail: {name!r} is no clause of the contract; {hint}")

    @pytest.fixture
    def service(self) -> BlobService:
        """Return the service to test, which the test closes; override it. It need not be empty."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `service`")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each clause that may say something about the service."""
        if "clause" in metafunc.fixturenames:
            metafunc.parametrize("clause", [self._param(clause) for clause in self._clauses()])

    def _clauses(self) -> Iterator[Clause]:
        declared = self.capabilities
        if declared is None:
            yield from CLAUSES
            return
        has = declares(declared)
        yield from (clause for clause in CLAUSES if clause.reason_against(has) is None)
        yield _as_declared(type(self).__name__, declared)

    def _param(self, clause: Clause) -> Any:
        reason = self.xfail.get(clause.name)
        marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
        return pytest.param(clause, id=clause.name, marks=marks)

    def test_contract(self, service: BlobService, clause: Clause) -> None:
        """The service keeps the clause."""
        __tracebackhide__ = True
        with service:
            reason = clause.reason_against(has_of(service))
            if reason is not None and self.capabilities is None:
                pytest.skip(reason)
            clause.check(service)


def _as_declared(name: str, declared: Collection[type]) -> Clause:
    def run(service: BlobService) -> None:
        has, named = has_of(service), declares(declared)
        kinds = dict.fromkeys((*CAPABILITIES, *declared))
        wrong = [kind for kind in kinds if has(kind) != named(kind)]
        true = ", ".join(kind.__name__ for kind in kinds if has(kind)) or "nothing"
        expect_that(
            not wrong,
            f"{name}.capabilities to name what the service has: {true}",
            ", ".join(f"{kind.__name__} {'left out' if has(kind) else 'named'}" for kind in wrong),
        )

    return Clause("capabilities-as-declared", "The service has the capabilities that are declared.", run)
