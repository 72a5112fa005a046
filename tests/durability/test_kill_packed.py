"""A writer of packs that is killed at any moment: all that it had reported is there, and right."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import castore
from castore import B3Digest
from castore.upkeep import verify

ROUNDS = 4

WRITER = """
import random, sys, time
import castore
from castore import B3Digest
from castore_objectstore.packed import service
from castore_objectstore.packed.writing import Packer

seed, folder, mutant = sys.argv[1:]
if mutant == "record-first":
    def first(self, work, indexes, close=Packer.close_pack):
        waits, work.open = work.open, type(work.open)()
        close(self, work, indexes)
        print_all(indexes)
        time.sleep(0.05)
        work.open = waits
        close(self, work, {})
    Packer.close_pack = first
elif mutant == "reports-early":
    Packer.close_pack = lambda self, work, indexes: None

def print_all(digests):
    for digest in digests:
        print(digest.hex(), flush=True)

chance = random.Random(seed)
url = f"packed+file:{folder}?durability=process&pack_size=64 KiB&avg_chunk_size=1024"
with castore.from_url(url) as blobs:
    print("begun", flush=True)
    while True:
        data = chance.randbytes(chance.choice([10, 500, 5000, 200_000]))
        print_all([blobs.write(data)])
"""


def kill_writers(folder: Path, mutant: str = "none") -> list[str]:
    """Kill two writers at once, again and again; return what is wrong in the end."""
    chance = random.Random(7)
    reported: set[B3Digest] = set()
    store = folder / "store"
    for number in range(ROUNDS):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, f"{number}-{each}", str(store), mutant],
                stdout=subprocess.PIPE,
                text=True,
            )
            for each in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "begun\n"
        time.sleep(chance.uniform(0.02, 0.3))
        for writer in writers:
            writer.kill()
            out, _ = writer.communicate()
            reported.update(B3Digest.parse(line) for line in out.split("\n")[:-1] if len(line) == 64)
    with castore.from_url(f"packed+file:{store}") as blobs:
        lost = [f"{digest} was reported" for digest in blobs.missing(reported)]
        return lost + [str(finding.message) for finding in verify(blobs, expected=reported).findings]


def test_nothing_reported_is_lost_and_nothing_is_wrong(tmp_path: Path) -> None:
    """Takes some seconds: two programs are started for each round."""
    assert kill_writers(tmp_path) == []


@pytest.mark.parametrize("mutant", ["record-first", "reports-early"])
def test_a_mistake_is_noticed(tmp_path: Path, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is wrong in this way does not pass."""
    monkeypatch.setattr(sys.modules[__name__], "ROUNDS", 2)
    assert kill_writers(tmp_path, mutant)
