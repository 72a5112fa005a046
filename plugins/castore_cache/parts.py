"""Calls for many that are done in part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from castore import B3Digest, CastoreError, UnavailableError
from castore.errors import BatchError

Faults = dict[B3Digest, CastoreError]


def done_in_part(digests: Collection[B3Digest], call: Callable[[], object]) -> tuple[set[B3Digest], Faults]:
    """Put *digests* by a call; return what was done, and why the rest was not.

    Raises what the call raises, if nothing is known then.
    """
    try:
        call()
    except BatchError as error:
        done = set(error.done.intersection(digests))
        return done, {digest: error.faults.get(digest, error) for digest in digests if digest not in done}
    return set(digests), {}


def claimed_in_part(call: Callable[[], set[B3Digest]]) -> tuple[set[B3Digest], Faults]:
    """Return what a claim has found, and what it failed at; what is left out of both is to be put to be sure.

    Raises as `done_in_part` does.
    """
    try:
        return set(call()), {}
    except BatchError as error:
        return set(error.done), error.faults


def require_done(name: str, done: Collection[B3Digest], faults: Mapping[B3Digest, CastoreError]) -> None:
    """Raise `BatchError` if there are faults: that of the instance that has them all, else of *name*."""
    if not faults:
        return
    instances = {fault.instance for fault in faults.values() if isinstance(fault, UnavailableError)}
    instance = instances.pop() if len(instances) == 1 else name
    raise BatchError(instance, faults, done=done) from next(iter(faults.values()))
