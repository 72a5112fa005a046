"""Two processes write the same large blob at the same time: both succeed, and the store is right afterwards.

Again and again, with blobs that overlap; `CASTORE_RACING_ROUNDS=1000` makes it long. It goes red if both
write under the same temporary name, which is the mutant here, and after some hundred rounds if in place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import racing

from castore import B3Digest
from castore.upkeep import verify

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("CASTORE_RACING_ROUNDS", "20"))
KINDS = ("folder", "folder_without_flushes", "sqlite")


class Racer:
    """A process that writes."""

    def __init__(self, kind: str, place: Path, *mutant: str) -> None:
        command = [sys.executable, str(HERE / "racing.py"), kind, str(place), *mutant]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start(self, number: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Return the next line that it prints, or what it died of."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip() or self.end()

    def end(self) -> str:
        return self._process.communicate(timeout=60)[1]


def race(kind: str, place: Path, rounds: int, *mutant: str) -> list[str]:
    """Let two processes write blob after blob at the same time; return what they did wrong."""
    racers = [Racer(kind, place, *mutant) for _ in range(2)]
    faults: list[str] = []
    try:
        assert [racer.answer() for racer in racers] == ["ready", "ready"]
        for number in range(rounds):
            for racer in racers:
                racer.start(number)
            expected = str(B3Digest.of(racing.content(number)))
            faults += [answer for answer in [racer.answer() for racer in racers] if answer != expected]
            if faults:
                break
    finally:
        ends = [racer.end() for racer in racers]
    return faults + [text for text in ends if text]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_two_processes_write_the_same_blob(tmp_path: Path, kind: str) -> None:
    """Each reads back what it wrote, and every chunk, index and blob is right, with nothing left over."""
    assert race(kind, tmp_path, ROUNDS) == []
    blobs = [B3Digest.of(racing.content(number)) for number in range(ROUNDS)]
    with getattr(racing, kind)(tmp_path) as service:
        report = verify(service, expected=blobs)
        assert report.findings == []
        assert report.residue == []
        assert report.tally.blobs == ROUNDS


@pytest.mark.parametrize("kind", ["folder", "folder_without_flushes"])
def test_a_mistake_is_noticed(tmp_path: Path, kind: str) -> None:
    """A store that is wrong in this way does not pass: a file is gone that one of the two has written."""
    faults = race(kind, tmp_path, 200, "one-temporary-name")
    # Whose it was sees that at once, or when it has been waiting for the flush; or one reads half a file.
    assert any(
        said in fault for fault in faults for said in ("No such file", "was lost", "castore.errors.")
    ), faults
