"""What a clause of the contract is.

No pytest here: a clause is a plain function that takes a service, and raises `ContractError` if the
service does not keep it. That is no `assert`, so `python -O` takes nothing away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from castore.contract.blobs import BlobService
from castore.contract.capabilities import (
    BatchExistence,
    BlobDeleter,
    BlobLister,
    ChunkSource,
    ChunkStore,
    Durable,
    EvictionEvents,
    FrameStore,
)
from castore.contract.upkeep import Evictable, Inventory, Pinning, Sweepable

POWERS: Final[tuple[type, ...]] = (
    BlobLister,
    BlobDeleter,
    ChunkSource,
    ChunkStore,
    FrameStore,
    Inventory,
    Sweepable,
    Evictable,
    Pinning,
    BatchExistence,
    EvictionEvents,
    Durable,
)
"""The optional capabilities that the contract has clauses for."""


class ContractError(AssertionError):
    """A service does not keep a clause of its contract.

    An `AssertionError`, so that test runners count a failure. Not a `CastoreError`: a service that passes
    over the errors of its children must not pass over this one.

    Attributes:
        clause: The name of the clause; `None` while it is not known.
        expected: What the contract says, in words.
        got: What the service did, in words.
    """

    def __init__(self, clause: str | None, expected: str, got: str) -> None:
        super().__init__(clause, expected, got)
        self.clause = clause
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        name = f"{self.clause}: " if self.clause else ""
        return f"{name}expected {self.expected}, got {self.got}"


@attrs.frozen
class Clause:
    """One promise of the contract."""

    name: str
    """Names it in test ids and in `xfail`: `put-then-get`."""
    text: str
    """The promise, in one sentence."""
    run: Callable[[BlobService], None] = attrs.field(repr=False)
    """Raises `ContractError` if a service does not keep it. The service need not be empty, nor new."""
    needs: tuple[type, ...] = ()
    """The capabilities without which it says nothing."""
    lacks: tuple[type, ...] = ()
    """The capabilities with which it says nothing."""

    def skip_reason(self, service: BlobService) -> str | None:
        """Return why the clause says nothing about *service*, `None` if it does."""
        for kind in self.needs:
            if service.capability(kind) is None:
                return f"the service has no {kind.__name__}"
        for kind in self.lacks:
            if service.capability(kind) is not None:
                return f"the service has {kind.__name__}"
        return None

    def check(self, service: BlobService) -> None:
        """Raise a `ContractError` that names this clause, or what the service raised."""
        __tracebackhide__ = True
        try:
            self.run(service)
        except ContractError as error:
            error.clause = self.name
            error.args = (self.name, error.expected, error.got)
            raise

    def __str__(self) -> str:
        return self.name


class Chapter:
    """The clauses on one subject, in the order in which they are written."""

    def __init__(self) -> None:
        self.clauses: list[Clause] = []

    def clause(
        self, *, needs: tuple[type, ...] = (), lacks: tuple[type, ...] = (), name: str | None = None
    ) -> Callable[[Callable[[BlobService], None]], Callable[[BlobService], None]]:
        """Add the decorated function as a clause: named as the function, with its docstring as text."""

        def add(function: Callable[[BlobService], None]) -> Callable[[BlobService], None]:
            text = " ".join((function.__doc__ or "").split())
            named = name or function.__name__.replace("_", "-")
            self.clauses.append(Clause(named, text, function, needs, lacks))
            return function

        return add
