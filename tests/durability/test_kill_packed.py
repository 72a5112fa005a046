"""A writer of packs that is killed at any moment: all that it had reported is there, and right."""

from __future__ import annotations

import os
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
COLLECTED = 2

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


COLLECTOR = """
import sys
import castore
from castore import B3Digest
from castore.upkeep import collect
from castore_objectstore.packed.sweeping import Sweeping

folder, roots, mutant = sys.argv[1:]
if mutant == "records-left-behind":
    Sweeping._move_records = lambda self, removals: None
kept = [B3Digest.parse(line) for line in open(roots).read().split()]
print("begun", flush=True)
while True:
    # Opened anew, as each run of the program does.
    with castore.from_url(f"packed+file:{folder}?durability=process&pack_size=64 KiB&max_waste=0") as blobs:
        collect(blobs, kept, grace_seconds=3600, no_roots=True)
    print("done", flush=True)
"""


def kill_collectors(folder: Path, mutant: str = "none") -> list[str]:
    """Kill two collectors and a writer at once, again and again; return what is wrong in the end."""
    chance = random.Random(8)
    store, roots = folder / "store", folder / "roots"
    (folder / "files").mkdir()
    paths = [folder / "files" / str(each) for each in range(100)]
    for each, path in enumerate(paths):
        path.write_bytes(random.Random(each).randbytes(500))
    with castore.from_url(f"packed+file:{store}?durability=process") as blobs:
        # They are in one pack, half of which is garbage.
        kept = {digest for digest in blobs.put_files(paths) if isinstance(digest, B3Digest)}
    kept = set(sorted(kept)[::2])
    problems = []
    for number in range(COLLECTED):
        roots.write_text("\n".join(map(str, kept)))
        for path in store.glob("packs/*/*"):
            os.utime(path, (time.time() - 86400,) * 2)
        programs = [
            # The same seed in each other round: what was stored, and is garbage by now, is stored again.
            [WRITER, f"again {number // 2}", str(store), "none"],
            [COLLECTOR, str(store), str(roots), mutant],
            [COLLECTOR, str(store), str(roots), mutant],
        ]
        running = [
            subprocess.Popen([sys.executable, "-c", *program], stdout=subprocess.PIPE, text=True)
            for program in programs
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        if number == COLLECTED - 1:
            # Once it gets to its end, however slow the machine is.
            assert running[1].stdout is not None
            assert running[1].stdout.readline() == "done\n"
        time.sleep(chance.uniform(0.1, 0.6))
        for process in chance.sample(running, 3):
            process.kill()
        reported = {
            B3Digest.parse(line) for line in running[0].communicate()[0].split("\n") if len(line) == 64
        }
        for process in running[1:]:
            process.communicate()
        ended = [process.returncode for process in running]
        if ended != [-9, -9, -9]:
            # A collector refuses its work when a root is not there.
            return [*problems, f"not killed, but ended by themselves: {ended}"]
        with castore.from_url(f"packed+file:{store}") as blobs:
            expected = kept | reported
            problems += [f"{digest} is lost" for digest in blobs.missing(expected)]
            problems += [finding.message for finding in verify(blobs, expected=expected).findings]
        kept = {digest for digest in expected if digest[0] % 2}
    return problems


def test_collectors_that_are_killed_beside_a_writer(tmp_path: Path) -> None:
    """What was rooted is there, and what the writer had reported. Takes some seconds for its programs."""
    assert kill_collectors(tmp_path) == []


def test_a_mistake_of_a_collector_is_noticed(tmp_path: Path) -> None:
    """Takes some seconds for the same programs."""
    assert kill_collectors(tmp_path, "records-left-behind")
