"""What a clause of the contract is.

No pytest here: a clause is a plain function that takes a service, and raises `ContractError` if the
service does not keep it. That is no `assert`, so `python -O` takes nothing away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService

if TYPE_CHECKING:
    from castore.digest import B3Digest

AnyService: TypeAlias = BlobService | DirectoryService | RefService
F = TypeVar("F", bound=Callable[[Any], None])


class Hides(ABC):
    """Says which blobs a service hides, so that a clause can try every door to them.

    A service that hides something is tested by a subclass, made for the test, that has this class among its
    bases::

        class Tested(TenantService, Hides):
            def hidden_blobs(self):
                return [digest_of_another_tenants_blob]
    """

    @abstractmethod
    def hidden_blobs(self) -> Iterable[B3Digest]:
        """Return the digests of blobs that are stored behind the service, and for which `has` is false."""


class ContractError(AssertionError):
    """A service does not keep a clause of its contract.

    An `AssertionError`, so that test runners count a failure. Not a `CastoreError`: a service that passes
    over the errors of its members must not pass over this one.

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
    run: Callable[[Any], None] = attrs.field(repr=False)
    """Raises `ContractError` if a service does not keep it. The service need not be empty, nor new."""
    needs: tuple[type, ...] = ()
    """The capabilities without which it says nothing."""
    lacks: tuple[type, ...] = ()
    """The capabilities with which it says nothing."""

    def reason_against(self, has: Callable[[type], bool]) -> str | None:
        """Return why the clause says nothing about a service, `None` if it does.

        *has* tells of a capability whether the service has it.
        """
        for kind in self.needs:
            if not has(kind):
                return f"the service has no {kind.__name__}"
        for kind in self.lacks:
            if has(kind):
                return f"the service has {kind.__name__}"
        return None

    def check(self, service: AnyService) -> None:
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


def declares(capabilities: Iterable[type]) -> Callable[[type], bool]:
    """Return what tells of a capability whether it is among *capabilities*, or a base of one of them."""
    declared = tuple(capabilities)
    return lambda kind: any(issubclass(one, kind) for one in declared)


def has_of(service: AnyService) -> Callable[[type], bool]:
    """Return what tells of a capability whether *service* has it."""
    return lambda kind: service.capability(kind) is not None


class Chapter:
    """The clauses on one subject, in the order in which they are written."""

    def __init__(self) -> None:
        self.clauses: list[Clause] = []

    def clause(
        self, *, needs: tuple[type, ...] = (), lacks: tuple[type, ...] = (), name: str | None = None
    ) -> Callable[[F], F]:
        """Add the decorated function as a clause: named as the function, with its docstring as text."""

        def add(function: F) -> F:
            text = " ".join((function.__doc__ or "").split())
            named = name or function.__name__.replace("_", "-")
            self.clauses.append(Clause(named, text, function, needs, lacks))
            return function

        return add
