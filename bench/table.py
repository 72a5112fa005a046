"""The figures of all rounds, what is asked of each, and how they are shown."""

from __future__ import annotations

import statistics
from typing import Any, Final

TARGETS: Final[dict[tuple[str, str], float]] = {
    ("text", "put, process"): 0.90,
    ("text", "put, full"): 0.75,
    ("random", "put, process"): 0.80,
    ("text", "put again, streamed"): 0.85,
    ("text", "put again, put_file"): 3.0,
    ("text", "get to nowhere"): 0.80,
    ("text", "get to a file"): 0.85,
    ("text", "random reads of 64 KiB"): 0.6,
    ("small files", "put, objectstore, full"): 0.5,
    ("small files", "put, objectstore, process"): 0.5,
    ("small files", "get, objectstore, full"): 0.5,
    ("small files", "get, objectstore, process"): 0.5,
    ("30 ms a request", "get"): 20,
    ("30 ms a request", "put"): 20,
    ("peers, text", "put, castore"): 2,
    ("peers, text", "put again, castore"): 3,
    ("peers, text", "get, castore"): 2,
    **{
        (f"peers, {corpus}", f"{work}, castore"): 1
        for corpus in ("random", "edited versions", "small files")
        for work in ("put", "put again", "get")
    },
}
"""The least ratio that is asked for."""

MOST: Final = {("start-up", "castore has"): 2.0}
"""The greatest ratio that is asked for."""

RATIOS: Final = {
    "text": "share of the limit",
    "random": "share of the limit",
    "small files": "times the bare loop",
    "30 ms a request": "times one at a time",
    "start-up": "times the imports",
}
"""What the ratio of a section is; that of the peers is to the fastest of them."""


class Table:
    """Gathers figures by section and work."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[dict[str, float]]] = {}

    def add(self, section: str, work: str, figures: dict[str, float]) -> None:
        """Take what a round has found."""
        self._found.setdefault((section, work), []).append(figures)

    def take(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Take the rounds of a run that was stored; return what is said about it."""
        for row in stored["figures"]:
            for figures in row["rounds"]:
                self.add(row["section"], row["work"], figures)
        about: dict[str, Any] = stored["about"]
        return about

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each work, with the figures of all rounds."""
        return [
            {"section": section, "work": work, "rounds": figures}
            for (section, work), figures in self._found.items()
        ]

    def text(self, about: dict[str, Any]) -> str:
        """Return the table for people."""
        lines = [" ".join(f"{name} {value}" for name, value in about.items())]
        shown = None
        for (section, work), found in self._found.items():
            if section != shown:
                shown = section
                ratio = RATIOS.get(section, "times the fastest peer")
                lines += [
                    "",
                    f"{section:28} {'speed':>14} {ratio:>23} {'spread':>14} {'asked':>7} {'peak':>9}",
                ]
            lines.append(self._line(section, work, found))
        return "\n".join(lines)

    def _line(self, section: str, work: str, found: list[dict[str, float]]) -> str:
        ratios = [figures["ratio"] for figures in found]
        unit = next(iter(found[0]))
        speed = f"{_median(found, unit):.0f} {unit}"
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        least, most = TARGETS.get((section, work)), MOST.get((section, work))
        asked = f">={least:g}" if least is not None else f"<={most:g}" if most is not None else ""
        peak = f"{max(figures['peak MiB'] for figures in found):.0f} MiB" if "peak MiB" in found[0] else ""
        line = f"  {work:26} {speed:>14} {statistics.median(ratios):23.2f} {spread:>14} {asked:>7} {peak:>9}"
        more = {"ratio of CPU": "by CPU", "stored": "stored", "to 256 folders": "to 256 folders"}
        notes = [f"{label} {_median(found, name):.2f}" for name, label in more.items() if name in found[0]]
        return f"{line}  {', '.join(notes)}".rstrip()


def _median(found: list[dict[str, float]], name: str) -> float:
    return statistics.median(figures[name] for figures in found)
