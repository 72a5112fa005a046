"""The contract as a pytest class: one fixture to write, and each clause is a test of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from castore.contract.blobs import BlobService
from castore.testing.clause import Clause
from castore.testing.contract import CLAUSES


class BlobServiceContract:
    """A test for each clause of the contract.

    Subclass it, name the subclass `Test...`, and override the fixture `service`::

        class TestTape(BlobServiceContract):
            xfail = {"large-blob": "the tape is too short"}

            @pytest.fixture
            def service(self, tmp_path):
                return TapeBlobService(tmp_path)

    Each clause becomes a test: `TestTape::test_contract[put-then-get]`. What the service has no capability for
    is skipped. *xfail* names the clauses that the service does not keep, each with the reason; that it
    begins to keep one is a failure, too, so that the list stays true.
    """

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
        """Make one test of each clause."""
        if "clause" in metafunc.fixturenames:
            metafunc.parametrize("clause", [self._param(clause) for clause in CLAUSES])

    def _param(self, clause: Clause) -> Any:
        reason = self.xfail.get(clause.name)
        marks = () if reason is None else (pytest.mark.xfail(reason=reason, strict=True),)
        return pytest.param(clause, id=clause.name, marks=marks)

    def test_contract(self, service: BlobService, clause: Clause) -> None:
        """The service keeps the clause."""
        __tracebackhide__ = True
        with service:
            reason = clause.skip_reason(service)
            if reason is not None:
                pytest.skip(reason)
            clause.check(service)
