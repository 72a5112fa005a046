"""`castore verify ROOT...`: trees instead of a whole service."""

from __future__ import annotations

import string
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from castore.cli.entries import quoted
from castore.cli.faults import FAILED
from castore.cli.output import emit_json, emit_text, table
from castore.cli.pools import pool_of
from castore.cli.progress import ProgressMeter
from castore.cli.short_digests import shown
from castore.digest import B3Digest
from castore.text import count_text, size_text
from castore.trees.naming import TreeLookup, directories_of
from castore.trees.ref_names import RefName, find_ref, refs_of
from castore.upkeep import Finding, Mending, TreeDonor, TreeRoot, TreeVerification, repair_trees

if TYPE_CHECKING:
    from castore.cli.settings import Settings
    from castore.composition.composition import Composition
    from castore.trees.naming import TreePlace
    from castore.upkeep.verifying_trees import TreeCounts

_SIZES = {
    "snix": "twice the entries and what is below, as the reference writes them",
    "spec": "the entries and what is below, as the texts of the reference have it",
    "mixed": "some as the reference writes them, some as its texts have it",
}


@attrs.define
class _Outcome:
    roots: list[TreeRoot]
    tally: TreeCounts
    findings: list[Finding]
    mendings: list[Mending] | None
    seconds: float

    @property
    def ok(self) -> bool:
        if self.mendings is not None:
            return all(mending.mended for mending in self.mendings)
        return not self.findings

    def rows(self) -> Iterator[tuple[Finding, Mending | None]]:
        """Yield each finding, with what became of it if there was a repair."""
        if self.mendings is None:
            yield from ((finding, None) for finding in self.findings)
        else:
            yield from ((mending.finding, mending) for mending in self.mendings)


def verify_roots(
    settings: Settings, places: tuple[TreePlace, ...], *, read: bool, workers: int | None, donor: str | None
) -> int:
    """Check trees, mend them if there is a donor, and say what is wrong; return the exit code."""
    with settings.opened() as stores:
        outcome = _verify(stores, settings, places, read=read, workers=workers, donor=donor)
    if settings.json:
        emit_json(_document(outcome, settings))
    else:
        _show(outcome, settings)
    return 0 if outcome.ok else FAILED


def _verify(
    stores: Composition,
    settings: Settings,
    places: tuple[TreePlace, ...],
    *,
    read: bool,
    workers: int | None,
    donor: str | None,
) -> _Outcome:
    name = settings.service_name
    blobs, directories = stores.blobs(name), directories_of(stores, name)
    other = None if donor is None else stores.blobs(donor)
    others = None if donor is None else directories_of(stores, donor)
    if others is not None and others is directories:
        others = None  # All directories are in one place, and so wrong there as well.
    lookup = TreeLookup(stores, name)
    roots = [_root_of(place, stores, name, lookup) for place in places]
    started = time.monotonic()
    with (
        pool_of(stores, workers, blobs) as pool,
        ProgressMeter(noun="file", hidden=settings.quiet) as meter,
    ):
        seen = 0

        def progress(count: int) -> None:
            nonlocal seen
            meter.item_done(check.tally.files - seen)
            seen = check.tally.files
            meter.advance(count)

        check = TreeVerification(directories, blobs, read=read, pool=pool, donor=others, progress=progress)
        findings = list(check.run(roots))
        seconds = time.monotonic() - started
        mendings = None
        if other is not None:
            source = TreeDonor(f"`{donor}`", other, check.donated)
            mended = repair_trees(directories, blobs, findings, source, progress=meter.advance)
            mendings = list(mended) if findings else []
    return _Outcome(roots, check.tally, findings, mendings, seconds)


def _root_of(place: TreePlace, stores: Composition, name: str, lookup: TreeLookup) -> TreeRoot:
    if place.path:
        found = lookup.look(place)
        return TreeRoot(str(place.root), found.node, found.within, place.path)
    if isinstance(place.root, RefName):
        _, ref = find_ref(refs_of(stores, name), place.root)
        return TreeRoot(str(place.root), ref.node, metadata=ref.metadata)
    if isinstance(place.root, B3Digest):
        # It is not looked up: that there is none is something to be found, and mended.
        return TreeRoot(str(place.root), place.root)
    return TreeRoot(str(place.root), lookup.root(place.root))


def _show(outcome: _Outcome, settings: Settings) -> None:
    tally = outcome.tally
    directories = count_text(tally.directories, "directory", "directories")
    read = f"{size_text(tally.bytes)} read in {outcome.seconds:.1f} s"
    rows = [("checked", f"{directories}, {count_text(tally.files, 'file')}, {read}")]
    if tally.rule not in (None, "snix"):
        rows.append(("sizes", _SIZES[tally.rule or ""]))
    rows.append(("wrong", _wrong(outcome.findings)))
    if outcome.mendings is not None:
        mended = sum(mending.mended for mending in outcome.mendings)
        rows.append(("mended", f"{mended} of {len(outcome.mendings)}"))
    emit_text("".join(f"{head.ljust(9)}{text}\n" for head, text in rows))
    if outcome.findings:
        emit_text("\n" + _table(outcome, settings))


def _wrong(findings: list[Finding]) -> str:
    counts = Counter(finding.what for finding in findings)
    words = [
        count_text(counts["directory"], "directory", "directories") if counts["directory"] else "",
        count_text(counts["file"], "file") if counts["file"] else "",
        "metadata" if counts["metadata"] else "",
    ]
    return ", ".join(filter(None, words)) or "nothing"


def _table(outcome: _Outcome, settings: Settings) -> str:
    heads = ["what", "digest", "where", "problem"]
    if outcome.mendings is not None:
        heads.append("repair")
    rows = []
    for finding, mending in outcome.rows():
        row = [finding.what, shown(finding.digest), _place_of(finding), finding.code]
        if mending is not None:
            row.append(
                ("mended: " if mending.mended else "not mended: ") + settings.scrubbed(mending.message)
            )
        rows.append(row)
    return table(heads, rows)


def _place_of(finding: Finding) -> str:
    root = finding.root or ""
    if len(root) == len(str(finding.digest)) and not set(root) - set(string.hexdigits):
        root = shown(root)
    return f"{root}:{quoted(bytes(finding.path))}" if finding.path else root


def _document(outcome: _Outcome, settings: Settings) -> dict[str, Any]:
    return {
        "service": settings.service_name,
        "ok": outcome.ok,
        "sizes": outcome.tally.rule,
        "checked": {
            "roots": len(outcome.roots),
            "directories": outcome.tally.directories,
            "files": outcome.tally.files,
            "bytes": outcome.tally.bytes,
            "seconds": round(outcome.seconds, 3),
        },
        "findings": [_row(finding, mending, settings) for finding, mending in outcome.rows()],
    }


def _row(finding: Finding, mending: Mending | None, settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": finding.what,
        "root": finding.root,
        "path": str(finding.path),
        "digest": str(finding.digest),
        "code": finding.code,
        "message": settings.scrubbed(finding.message),
    }
    if mending is not None:
        row |= {
            "mended": mending.mended,
            "repair": settings.scrubbed(mending.message),
            "quarantine": mending.quarantine,
        }
    return row
