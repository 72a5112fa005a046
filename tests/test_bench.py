"""The measurements run, and say what they found. How fast anything is no test asserts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
SECTIONS = ["text", "small files", "30 ms a request", "start-up", "peers, text"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_section_has_its_figures(tmp_path: Path) -> None:
    """With corpora as small as they can be; a peer that is not installed is left out."""
    sizes = ["--size", "8", "--files", "20", "--runs", "1"]
    places = ["--scratch", str(tmp_path), "--results", str(tmp_path / "results")]
    only = [word for section in SECTIONS for word in ("--only", section)]
    done = subprocess.run(
        [sys.executable, str(BENCH / "bench.py"), *sizes, *places, *only],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    (place,) = (tmp_path / "results").iterdir()
    stored = json.loads(place.read_text())
    assert stored["about"]["at once"] > 0
    rows = stored["figures"]
    assert list(dict.fromkeys(row["section"] for row in rows)) == SECTIONS
    for row in rows:
        assert f"  {row['work']}" in done.stdout
        assert row["rounds"][0]["ratio"] > 0
        assert row["rounds"][0].get("peak MiB", 0) < 256
    assert not list(tmp_path.glob(".bench-*"))
