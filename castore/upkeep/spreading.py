"""Work on a service that is spread over processes, or machines, by whatever runs functions there.

An executor of `concurrent.futures`, a client of Dask, or anything else that has a `submit` serves: it is
given a function of this module, and arguments that pickle. A process that runs tasks opens the composition
anew, once for all of them, so nothing that is open travels. A task that runs twice, say because an engine has
lost a worker and repeats what that had, changes nothing: tasks read, or copy what is not there yet.
"""

from __future__ import annotations

import atexit
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias, overload

import attrs

from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.capabilities import BlobLister, ChunkSource
from castore.contract.upkeep import DigestRange, Inventory
from castore.digest import B3Digest
from castore.errors import UnavailableError, UnsupportedError
from castore.threads import forks
from castore.threads.pool import Pool
from castore.upkeep.copying import Copied, Copier, CopyCounts
from castore.upkeep.findings import Counts, Finding, Report, Scope
from castore.upkeep.ledger import Ledger
from castore.upkeep.marking import LocalMarker, Marker, Run, SpreadMarker, read_run
from castore.upkeep.verifying import Verification

PARTS: Final = 32
"""Into how many parts a service is cut: enough for a few processes to end at about the same time."""

_ORDER: Final = ("index", "blob", "chunk")


class Submitted(Protocol):
    """What `submit` returns, such as a `concurrent.futures.Future`."""

    def result(self) -> Any:
        """Wait for what the function returns, or raise what it raises."""


Submit: TypeAlias = Callable[..., Submitted]
"""Called with a function and its arguments; runs it somewhere."""


@attrs.frozen
class PartDone:
    """What came of one part.

    Attributes:
        result: What the work returns of the part alone.
        listed: How many items, or blobs, the service has listed there.
    """

    result: Any
    listed: int


@overload
def spread(
    what: Literal["verify"],
    composition: Composition,
    name: str,
    submit: Submit,
    *,
    parts: int = PARTS,
    scope: Scope | None = None,
    expected: Iterable[B3Digest] = (),
    progress: Callable[[PartDone], object] | None = None,
) -> Report: ...


@overload
def spread(
    what: Literal["copy"],
    composition: Composition,
    name: str,
    submit: Submit,
    *,
    target: str,
    parts: int = PARTS,
    progress: Callable[[PartDone], object] | None = None,
) -> tuple[CopyCounts, list[Copied]]: ...


@overload
def spread(
    what: Literal["mark"],
    composition: Composition,
    name: str,
    submit: Submit,
    *,
    parts: int = PARTS,
    prove: bool = True,
) -> Marker: ...


def spread(
    what: Literal["verify", "copy", "mark"],
    composition: Composition,
    name: str,
    submit: Submit,
    *,
    target: str | None = None,
    parts: int = PARTS,
    scope: Scope | None = None,
    expected: Iterable[B3Digest] = (),
    progress: Callable[[PartDone], object] | None = None,
    prove: bool = True,
) -> Report | tuple[CopyCounts, list[Copied]] | Marker:
    """Verify a service, copy its blobs, or mark for a collection, in parts, wherever *submit* runs functions.

    What is returned is what `verify` or `copy` returns: findings, blobs and chunks are the same. A chunk of a
    blob that is in another part is read there once more, so `bytes` may be more. Of a copy a chunk that blobs
    of several parts have may be counted for each.

    `"mark"` returns what `collect` takes as its *marker*: tasks then read the indexes of what is to stay,
    1,024 each. The process that collects reads the time and the leases, lists, condemns and removes. A task
    that is lost for good ends the collection before any chunk is removed.

    Arguments:
        what: The work.
        composition: What every process opens; it must find the same stores by it.
        name: That of the blob service.
        submit: Such as the method of an executor, or of a client of Dask. An executor spawns its processes
            (`multiprocessing.get_context("spawn")`).
        target: Of a copy: the name of the service that the blobs go to.
        parts: How many tasks there are; of `"mark"`, how many are under way at a time.
        scope: Of a verification: which items to check, by default all.
        expected: Of a verification: blobs that must be there.
        progress: Called with what came of each part, in order.
        prove: Of `"mark"`: whether a blob of 32 random bytes is stored, which each task has to see. Without
            it a worker that sees another store of the same blobs may have the collection remove what it
            should not; that is for rehearsals. A later collection removes the blob.

    Raises what `verify` and `copy` raise; what the engine raises if a worker is lost for good; and
    `UnavailableError` if a worker does not see what is there, as of a service that keeps it in memory.
    """
    service = composition.blobs(name)
    if what == "mark":
        if parts < 1:
            raise ValueError(f"{parts} tasks at a time make no sense")
        here = LocalMarker(service, _reading_pool(composition, service))
        mark = partial(submit, mark_blobs, pickle.dumps(composition), name)
        return SpreadMarker(name, here, mark, parts, prove)
    if service.capability(Inventory) is None and service.capability(BlobLister) is None:
        raise UnsupportedError("this service lists neither what it stores nor its blobs")
    work: Callable[[DigestRange], tuple[Any, ...]]
    if what == "verify":
        wanted = sorted(set(expected))
        work = partial(_verification_of, pickle.dumps(composition), name, scope or Scope(), wanted)
    else:
        if target is None:
            raise TypeError("a copy needs the name of a target")
        composition.blobs(target)  # A name that is none is told here, and once.
        work = partial(_copy_of, pickle.dumps(composition), name, target)
    results = [
        done.result for done in _spread(composition, name, submit, work, count=parts, progress=progress)
    ]
    if what == "verify":
        return _merge_reports(results)
    counts = [tally for tally, _ in results]
    return _sum_copies(counts), [copied for _, failed in results for copied in failed]


def _verification_of(
    composition: bytes, name: str, scope: Scope, expected: Sequence[B3Digest], part: DigestRange
) -> tuple[Any, ...]:
    return verify_part, composition, name, part, scope, [digest for digest in expected if digest in part]


def _copy_of(composition: bytes, name: str, target: str, part: DigestRange) -> tuple[Any, ...]:
    return copy_part, composition, name, target, part


def _spread(
    composition: Composition,
    name: str,
    submit: Submit,
    work: Callable[[DigestRange], tuple[Any, ...]],
    *,
    count: int,
    progress: Callable[[PartDone], object] | None,
) -> Iterator[PartDone]:
    parts = DigestRange.parts(count)
    outcomes: list[Submitted] = []
    try:
        outcomes.extend(submit(*work(part)) for part in parts)
        for part, outcome in zip(parts, outcomes, strict=True):
            done: PartDone = outcome.result()
            if not done.listed and next(_list_in(composition.blobs(name), part), None) is not None:
                raise UnavailableError(
                    name,
                    "a worker sees nothing of what is there; is it kept in memory, or in a folder of this"
                    " machine alone?",
                )
            if progress is not None:
                progress(done)
            yield done
    finally:
        # Of those that are done nothing comes of it.
        for outcome in outcomes:
            cancel = getattr(outcome, "cancel", None)
            if cancel is not None:
                cancel()


def _list_in(service: BlobService, part: DigestRange) -> Iterator[B3Digest]:
    """Yield the digests of the blobs in a part; of a service without a list there are none."""
    inventory = service.capability(Inventory)
    if inventory is not None:
        for item in inventory.list_items_in(part):
            if item.kind == "chunk":
                return  # They come after all indexes.
            if item.digest is not None:
                yield item.digest
        return
    lister = service.capability(BlobLister)
    if lister is not None:
        yield from (digest for digest in lister.list_blobs() if digest in part)


# -- in the processes that do the work --


def verify_part(
    composition: bytes, name: str, part: DigestRange, scope: Scope, expected: Sequence[B3Digest]
) -> PartDone:
    """Verify a part of a service, in whatever process this is called; *composition* is a pickle of one."""
    opened = _OPENED.get(composition)
    ledger = Ledger(scope=scope)
    try:
        check = Verification(opened.blobs(name), ledger, expected=expected, pool=opened.pool, part=part)
        findings = list(check.run())
        return PartDone(Report(findings, check.residue, check.tally), check.listed)
    finally:
        ledger.close()


def copy_part(composition: bytes, name: str, target: str, part: DigestRange) -> PartDone:
    """Copy a part of a service, in whatever process this is called; *composition* is a pickle of one."""
    opened = _OPENED.get(composition)
    source = opened.blobs(name)
    listed = 0

    def digests() -> Iterator[B3Digest]:
        nonlocal listed
        for digest in _list_in(source, part):
            listed += 1
            yield digest

    copier = Copier(source, opened.blobs(target), opened.pool)
    failed = [copied for copied in copier.run(digests()) if copied.error is not None]
    return PartDone((copier.tally, failed), listed)


def mark_blobs(composition: bytes, name: str, proof: B3Digest | None, blobs: Sequence[B3Digest]) -> Run:
    """Read what blobs need, in whatever process this is called; *composition* is a pickle of one."""
    opened = _OPENED.get(composition)
    service = opened.blobs(name)
    return read_run(service, blobs, _reading_pool(opened, service), proof)


def _reading_pool(composition: Composition, service: BlobService) -> Pool:
    """Return the threads that read indexes: many where each has to wait for a network."""
    source = service.capability(ChunkSource)
    return composition.pool.io_pool if source is not None and source.high_latency else composition.pool


class _Opened:
    """The compositions that were opened in this process for tasks, by their pickles."""

    def __init__(self) -> None:
        self.begin_anew()
        forks.begin_anew_in_child(self)
        atexit.register(self.close)

    def begin_anew(self) -> None:
        """Forget what another process has open, in a child of a fork."""
        self._lock = forks.new_lock()
        self._compositions: dict[bytes, Composition] = {}

    def get(self, pickled: bytes) -> Composition:
        """Return one, which stays open as long as the process runs."""
        with self._lock:
            found = self._compositions.get(pickled)
            if found is None:
                found = pickle.loads(pickled)
                self._compositions[pickled] = found
            return found

    def close(self) -> None:
        """Close them, at the end of the process."""
        with self._lock:
            while self._compositions:
                self._compositions.popitem()[1].close()


_OPENED: Final = _Opened()


# -- what comes back --


def _merge_reports(reports: Sequence[Report]) -> Report:
    """Return one report for all parts, with each finding once.

    A chunk that is wrong is found by the blobs that need it, and by itself.
    """
    found: dict[tuple[str, B3Digest], Finding] = {}
    for finding in (finding for report in reports for finding in report.findings):
        known = found.setdefault((finding.what, finding.digest), finding)
        if known.blob is None and finding.blob is not None:
            found[finding.what, finding.digest] = finding
    findings = sorted(found.values(), key=lambda finding: (_ORDER.index(finding.what), finding.digest))
    residue = [item for report in reports for item in report.residue]
    return Report(findings, residue, sum((report.tally for report in reports), Counts()))


def _sum_copies(tallies: Sequence[CopyCounts]) -> CopyCounts:
    return CopyCounts(*(sum(column) for column in zip(*map(attrs.astuple, tallies), strict=True)))
