"""How often which fault comes."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Final

import attrs

KINDS: Final = ("delay", "fail", "hang", "corrupt", "forget", "truncate", "flip", "partial")
"""The faults. An operation may be delayed, and then meets one of the others at most: the first that comes."""


def _require_chance(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is a chance, from 0 to 1, not {value}")


def _require_finite(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{attribute.name} is a number of seconds, from 0 on, not {value}")


def _chance() -> Any:
    return attrs.field(default=0.0, validator=_require_chance)


@attrs.frozen(kw_only=True)
class FaultPlan:
    """The chances of faults, from 0 to 1, and the seed that decides when they come.

    The n-th call of an operation meets the same faults whenever the plan is run, whatever other operations
    come between; of a call for many each item counts as a call. A chance says nothing about operations that
    a fault cannot happen to: `has` has no bytes.
    """

    seed: int = 0
    delay: float = _chance()
    """Waits first."""
    fail: float = _chance()
    """Raises `UnavailableError`."""
    hang: float = _chance()
    """Waits for `hang_seconds`, then raises `UnavailableError`; goes on as usual once it is released."""
    corrupt: float = _chance()
    """Raises `CorruptBlobError`, as a service that finds its bytes damaged."""
    forget: float = _chance()
    """Reading: says that it is absent. Writing: says that it is done, and does nothing."""
    truncate: float = _chance()
    """Hands on fewer bytes than there are, and does not say so."""
    flip: float = _chance()
    """Hands on the bytes with one bit turned, and does not say so."""
    partial: float = _chance()
    """Leaves out about half of a listing."""
    latency: float = attrs.field(default=0.05, validator=_require_finite)
    """How long a delay is on average, in seconds; between half and one and a half times that."""
    hang_seconds: float = attrs.field(default=30.0, validator=_require_finite)
    """How long something hangs at most, in seconds."""
    operations: AbstractSet[str] | None = None
    """The operations that faults come to; `None`: all."""
    is_empty: bool = attrs.field(init=False, repr=False, eq=False)
    """Whether nothing goes wrong by it."""

    @is_empty.default
    def _is_empty(self) -> bool:
        return not any(map(self.chance, KINDS))

    def chance(self, kind: str) -> float:
        """Return the chance of one of `KINDS`."""
        value: float = getattr(self, kind)
        return value

    def concerns(self, operation: str) -> bool:
        """Tell whether faults may come to an operation."""
        return self.operations is None or operation in self.operations
