"""A writer of an SQLite file that is killed at any moment: all that it had reported is there, and right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 4.0


def kill_writers(folder: Path, seconds: float, *mutant: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "killing_sqlite.py"), str(folder), str(seconds), *mutant]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 100)


def test_nothing_reported_is_lost_and_nothing_is_wrong(tmp_path: Path) -> None:
    """Every reported blob reads back, every index has its chunks, and the file is sound."""
    done = kill_writers(tmp_path, SECONDS)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert int(done.stdout.split()[0]) > SECONDS / 10


@pytest.mark.parametrize("mutant", ["index-before-chunks", "reports-before-commit"])
def test_a_mistake_is_noticed(tmp_path: Path, mutant: str) -> None:
    """A service that is wrong in this way does not pass."""
    done = kill_writers(tmp_path, 60, mutant)
    assert done.returncode == 1, done.stdout
    assert done.stderr == ""
