"""What `castore verify` says in the end."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import attrs

from castore.cli.output import emit_json, emit_text, printable, table
from castore.cli.settings import Settings
from castore.cli.short_digests import shown
from castore.contract.upkeep import StoredItem
from castore.text import count_text, size_text
from castore.upkeep import Counts, Finding, Mending, Scope

_SHOWN_RESIDUE: Final = 10


@attrs.define
class Conclusion:
    """The outcome of a verification, and of a repair if there was one."""

    service: str
    scope: Scope
    findings: list[Finding] = attrs.field(factory=list)
    mendings: list[Mending] | None = None
    residue: list[StoredItem] = attrs.field(factory=list)
    tally: Counts = attrs.field(factory=Counts)
    seconds: float = 0.0
    _started: float = attrs.field(factory=time.monotonic)

    def stop_clock(self) -> None:
        """Note how long the check has taken."""
        self.seconds = time.monotonic() - self._started

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or nothing any more."""
        if self.mendings is not None:
            return all(mending.mended for mending in self.mendings)
        return not self.findings


def show(verdict: Conclusion, settings: Settings) -> None:
    """Write the verdict to stdout, as a table or as JSON."""
    if settings.json:
        emit_json(_document(verdict, settings))
        return
    emit_text("".join(f"{head.ljust(9)}{text}\n" for head, text in _summary(verdict)))
    if verdict.findings:
        emit_text("\n" + _table(verdict, settings))


def _summary(verdict: Conclusion) -> list[tuple[str, str]]:
    tally, scope = verdict.tally, verdict.scope
    chunks = f"{count_text(tally.chunks, 'chunk')}, " if tally.chunks else ""
    rows = [
        (
            "checked",
            f"{count_text(tally.blobs, 'blob')}, {chunks}{size_text(tally.bytes)} in {verdict.seconds:.1f} s",
        )
    ]
    if scope.sample < 1:
        rows.append(("sample", f"{scope.sample * 100:g}% of all, chosen by --seed {scope.seed}"))
    if tally.skipped:
        rows.append(
            (
                "skipped",
                f"{count_text(tally.skipped, 'blob or chunk', 'blobs and chunks')}, found right before",
            )
        )
    rows.append(("wrong", _wrong(verdict.findings)))
    if verdict.mendings is not None:
        mended = sum(mending.mended for mending in verdict.mendings)
        rows.append(("mended", f"{mended} of {len(verdict.mendings)}"))
    if verdict.residue:
        size = sum(item.size or 0 for item in verdict.residue)
        names = ", ".join(item.key for item in verdict.residue[:_SHOWN_RESIDUE])
        more = ", ..." if len(verdict.residue) > _SHOWN_RESIDUE else ""
        files = count_text(len(verdict.residue), "file")
        rows.append(("residue", printable(f"{files}, {size_text(size)}: {names}{more}")))
    return rows


def _wrong(findings: list[Finding]) -> str:
    counts = Counter(finding.what for finding in findings)
    words = [
        count_text(counts["chunk"], "chunk") if counts["chunk"] else "",
        count_text(counts["index"], "index", "indexes") if counts["index"] else "",
        f"{count_text(counts['blob'], 'blob')} that cannot be read" if counts["blob"] else "",
    ]
    return ", ".join(filter(None, words)) or "nothing"


def _table(verdict: Conclusion, settings: Settings) -> str:
    if verdict.mendings is None:
        rows = [(entry.what, shown(entry.digest), entry.code) for entry in verdict.findings]
        return table(("what", "digest", "problem"), rows)
    mended = [
        (
            entry.finding.what,
            shown(entry.finding.digest),
            entry.finding.code,
            ("mended: " if entry.mended else "not mended: ") + settings.scrubbed(entry.message),
        )
        for entry in verdict.mendings
    ]
    return table(("what", "digest", "problem", "repair"), mended)


def _document(verdict: Conclusion, settings: Settings) -> dict[str, Any]:
    outcomes: list[tuple[Finding, Mending | None]] = (
        [(finding, None) for finding in verdict.findings]
        if verdict.mendings is None
        else [(mending.finding, mending) for mending in verdict.mendings]
    )
    return {
        "service": verdict.service,
        "ok": verdict.ok,
        "sample": verdict.scope.sample,
        "seed": verdict.scope.seed,
        "checked": {**attrs.asdict(verdict.tally), "seconds": round(verdict.seconds, 3)},
        "findings": [_row(finding, mending, settings) for finding, mending in outcomes],
        "residue": [
            {"key": item.key, "size": item.size, "modified": item.modified} for item in verdict.residue
        ],
    }


def _row(finding: Finding, mending: Mending | None, settings: Settings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": finding.what,
        "digest": str(finding.digest),
        "code": finding.code,
        "message": settings.scrubbed(finding.message),
        "key": finding.key,
        "blob": None if finding.blob is None else str(finding.blob),
        "chunk": None if finding.chunk is None else str(finding.chunk),
    }
    if mending is not None:
        row |= {
            "mended": mending.mended,
            "repair": settings.scrubbed(mending.message),
            "quarantine": mending.quarantine,
        }
    return row
