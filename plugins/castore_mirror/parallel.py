"""Calls to all members at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from castore import CastoreError
from castore.composites.members import Begun, Member
from castore.threads.pool import Pool

T = TypeVar("T")

Start: TypeAlias = "Callable[[Pool | None], Begun[T]]"
"""Begins a call to a member, on a pool if there is one; see `Member.begin`."""


def at_all(
    calls: Sequence[tuple[Member, Start[T]]],
    pool: Pool | None,
    *,
    late: Callable[[T], object] = lambda _: None,
) -> list[T | CastoreError]:
    """Begin all calls; return what each of them returns, or raises, in their order.

    This thread does one of them, if it has no timeout, and waits for the others. An error that is none of
    castore's is raised when all have ended, and *late* is given what others returned. An interrupt begins
    nothing more.
    """
    untimed = [number for number, (member, _) in enumerate(calls) if member.timeout is None]
    mine = untimed[-1] if untimed else None
    begun = [start(None if number == mine else pool) for number, (_, start) in enumerate(calls)]
    outcomes: dict[int, T | CastoreError] = {}
    mistake: BaseException | None = None
    # The others are under way meanwhile.
    order = sorted(range(len(calls)), key=lambda number: number != mine)
    for number in order:
        try:
            outcomes[number] = begun[number].result()
        except CastoreError as error:
            outcomes[number] = error
        except Exception as error:  # noqa: BLE001 - the others still work on the caller's bytes
            mistake = mistake or error
        except BaseException as error:  # noqa: BLE001 - as above
            mistake = error
            # The last first: what waits for its turn must not come when another ends.
            for left in sorted(set(order) - outcomes.keys(), reverse=True):
                begun[left].drop()
            break
    if mistake is None:
        return [outcomes[number] for number in range(len(calls))]
    for outcome in outcomes.values():
        if not isinstance(outcome, CastoreError):
            late(outcome)
    try:
        raise mistake
    finally:
        # The traceback of an error refers to this frame: without this they would keep each other.
        del mistake
