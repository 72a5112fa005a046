"""A writer that is killed at any moment leaves a store in which all that it had reported is there, and right.

Runs for some seconds; `CASTORE_KILL_SECONDS=3600` makes it an hour. It goes red if the index is put before
the chunks, or objects are written in place: the mutants here are these mistakes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("CASTORE_KILL_SECONDS", "10"))


def kill_writers(folder: Path, seconds: float, *mutant: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "killing.py"), str(folder), str(seconds), "1", *mutant]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 100)


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_reported_is_lost_and_nothing_is_wrong(tmp_path: Path) -> None:
    """Every reported blob reads back, nothing is damaged, and temporary files are the only residue."""
    done = kill_writers(tmp_path, SECONDS)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    deaths = int(done.stdout.split()[0])
    assert deaths > SECONDS / 10


@pytest.mark.parametrize("mutant", ["index-before-chunks", "write-in-place"])
def test_a_mistake_is_noticed(tmp_path: Path, mutant: str) -> None:
    """A store that is wrong in this way does not pass."""
    done = kill_writers(tmp_path, 60, mutant)
    assert done.returncode == 1, done.stdout
    assert done.stderr == ""
