"""The contracts of services of blobs, of directories and of refs, clause by clause.

Needs no test runner::

    for clause, verdict, error in run_contract(MyService):
        print(verdict, clause.name, error or "")

    for clause, verdict, error in run_contract(MyDirectoryService, DIRECTORY_CLAUSES):
        print(verdict, clause.name, error or "")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, NamedTuple

from castore.testing.clause import AnyService, Clause, has_of
from castore.testing.clauses import (
    bounding,
    capabilities,
    chunking,
    chunks,
    directories,
    files,
    hiding,
    keeping,
    leasing,
    reading,
    refs,
    storing,
    threads,
    trees,
    writing,
)

CLAUSES: Final[tuple[Clause, ...]] = (
    *storing.chapter.clauses,
    *reading.chapter.clauses,
    *writing.chapter.clauses,
    *files.chapter.clauses,
    *chunking.chapter.clauses,
    *threads.chapter.clauses,
    *hiding.chapter.clauses,
    *capabilities.chapter.clauses,
    *chunks.chapter.clauses,
    *leasing.chapter.clauses,
    *keeping.chapter.clauses,
    *bounding.chapter.clauses,
)
"""All clauses on services of blobs, in the order in which they are best read."""

DIRECTORY_CLAUSES: Final[tuple[Clause, ...]] = (
    *directories.chapter.clauses,
    *trees.chapter.clauses,
)
"""All clauses on services of directories."""

REF_CLAUSES: Final[tuple[Clause, ...]] = tuple(refs.chapter.clauses)
"""All clauses on services of refs."""


class Outcome(NamedTuple):
    """What came of one clause."""

    clause: Clause
    verdict: Literal["ok", "skip", "FAIL"]
    error: Exception | None
    """Why it failed: a `ContractError`, or what the service raised."""


def run_contract(make: Callable[[], AnyService], clauses: Iterable[Clause] = CLAUSES) -> Iterator[Outcome]:
    """Yield the outcome of each clause.

    Arguments:
        make: Returns a service, which is closed after the clause. It need not be empty, nor a new one if
            it can be used after `close`.
        clauses: Which ones to try.

    Raises what *make* raises.
    """
    for clause in clauses:
        service = make()
        if clause.reason_against(has_of(service)) is not None:
            service.close()
            yield Outcome(clause, "skip", None)
            continue
        try:
            with service:
                clause.check(service)
        except Exception as error:  # noqa: BLE001 - whatever a service raises is the answer
            yield Outcome(clause, "FAIL", error)
        else:
            yield Outcome(clause, "ok", None)


def clause_named(name: str) -> Clause:
    """Return the clause of this name; raises `KeyError` if there is none."""
    return {clause.name: clause for clause in CLAUSES}[name]
