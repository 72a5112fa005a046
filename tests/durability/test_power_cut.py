"""A power cut at any moment, on a disk that had written what it liked of what was not flushed yet.

The system calls of a writer are recorded with strace, and played back on a model of a disk; after each call
the power is cut, and the same must be true as after a kill, in each of many states that the disk may be in.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from disk import play
from facts import faults_in, faults_of_blob

from castore import B3Digest, CastoreError

HERE = Path(__file__).parent
CALLS = "openat,write,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,syncfs"

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def record_of(folder: Path, record: Path, what: str, *mutant: str) -> list[str]:
    """The system calls of `storing.py`, one a line."""
    command = ["strace", "-f", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-o", str(record)]
    subprocess.run(
        [*command, sys.executable, str(HERE / "storing.py"), str(folder), what, *mutant],
        check=True,
        capture_output=True,
        timeout=100,
    )
    return record.read_text().splitlines()


def faults_after_power_cuts(record: list[str], folder: Path, *, all_files: bool) -> tuple[int, list[str]]:
    """How many states were looked at, and what was wrong in the first bad one."""
    source, states = random.Random(1), 0
    for disk, reported in play(record, str(folder)):
        for files in disk.after_a_power_cut(source, 6):
            states += 1
            faults = [fault for digest in reported for fault in faults_of_reported(digest, files)]
            if all_files:
                faults += faults_in(files)
            if faults:
                return states, faults
    return states, []


def faults_of_reported(digest: str, files: dict[str, bytes]) -> Iterable[str]:
    """What is wrong with a blob that was reported."""
    index = files.get(f"blobs/b3/{digest[:4]}/{digest}")
    if index is None:
        return [f"{digest} was reported, and is not there"]
    try:
        return list(faults_of_blob(B3Digest.parse(digest), index, files))
    except CastoreError as error:
        return [str(error)]


@pytest.mark.parametrize("what", ["blobs", "files", "more_than_may_wait"])
def test_nothing_reported_is_lost_and_nothing_is_wrong(tmp_path: Path, what: str) -> None:
    """In every state all that was reported is there, and nothing but temporary files is half there."""
    folder = tmp_path / "store"
    folder.mkdir()
    record = record_of(folder, tmp_path / "record", what)
    states, faults = faults_after_power_cuts(record, folder, all_files=True)
    print(f"{states} states")
    assert faults == []
    assert states > 1000
    assert sum("syncfs" in line for line in record) > 5


def test_a_mistake_before_a_blob_ends_is_noticed(tmp_path: Path) -> None:
    """Chunks that get their names early, and without a flush."""
    folder = tmp_path / "store"
    folder.mkdir()
    record = record_of(folder, tmp_path / "record", "more_than_may_wait", "no-flush-at-all")
    assert faults_after_power_cuts(record, folder, all_files=True)[1]


def test_what_others_have_not_flushed_is_flushed_before_it_is_reported(tmp_path: Path) -> None:
    """A blob that was there already, in whole or in part, is reported only when all of it is on the disk."""
    folder = tmp_path / "store"
    folder.mkdir()
    record = record_of(folder, tmp_path / "record", "what_others_have_not_flushed")
    states, faults = faults_after_power_cuts(record, folder, all_files=False)
    assert faults == []
    assert states > 500


@pytest.mark.parametrize(
    "mutant",
    [
        "index-before-chunks",
        "write-in-place",
        "names-before-data",
        "no-flush-of-names",
        "no-flush-between",
        "no-flush-at-all",
    ],
)
def test_a_mistake_is_noticed(tmp_path: Path, mutant: str) -> None:
    """A store that is wrong in this way does not pass."""
    folder = tmp_path / "store"
    folder.mkdir()
    record = record_of(folder, tmp_path / "record", "blobs", mutant)
    assert faults_after_power_cuts(record, folder, all_files=True)[1]


def test_a_mistake_with_known_blobs_is_noticed(tmp_path: Path) -> None:
    """A store that reports what it finds without a flush does not pass."""
    folder = tmp_path / "store"
    folder.mkdir()
    mutant = "known-indexes-are-not-flushed"
    record = record_of(folder, tmp_path / "record", "what_others_have_not_flushed", mutant)
    assert faults_after_power_cuts(record, folder, all_files=False)[1]
