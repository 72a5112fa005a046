"""Collections of garbage that run without a pause beside eight writers lose nothing, and leave nothing.

Runs for some seconds; `CASTORE_GC_SECONDS=60` makes it a minute. It goes red if a claim does not renew the
time of a chunk, if a sweep does not look at it again, or if long blobs do not hold what they have put.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collecting import FRESH, GRACE, roots_in, service_of

from castore.upkeep import collect

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("CASTORE_GC_SECONDS", "10"))
WRITERS = 8
PACKED_SECONDS = float(os.environ.get("CASTORE_GC_SECONDS", "4"))
PACKED_WRITERS = 4
COLLECTORS = 2


def run_all(folder: Path, layout: str, seconds: float, writers: int) -> None:
    script = [sys.executable, str(HERE / "collecting.py"), layout]
    commands = [
        *([*script, "write", str(folder), str(number), str(seconds)] for number in range(writers)),
        *([*script, "collect", str(folder), str(seconds)] for _ in range(COLLECTORS)),
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        output, errors = process.communicate(timeout=seconds + 100)
        print(output, end="")
        assert (process.returncode, errors) == (0, "")
    time.sleep(GRACE + FRESH + 0.5)


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_reachable_is_lost_and_nothing_else_stays(tmp_path: Path) -> None:
    """Every root can be read at any time; in the end there are the files of the roots, and no others."""
    run_all(tmp_path, "objectstore", SECONDS, WRITERS)
    service = service_of(tmp_path)
    roots = set(roots_in(tmp_path))

    collect(service, roots, grace_seconds=GRACE)

    chunks = set()
    for digest in roots:
        service.read(digest)
        chunks.update([meta.digest for meta in service.chunks(digest) or ()] or [digest])
    kept = {(item.kind, item.digest) for item in service.list_items()}
    assert kept == {("index", digest) for digest in roots} | {("chunk", digest) for digest in chunks}
    assert list((tmp_path / "store/leases").iterdir()) == []


@pytest.mark.timeout(SECONDS + 120)
def test_the_same_in_packs(tmp_path: Path) -> None:
    """Every root can be read at any time; in the end there are the blobs of the roots, and little waste."""
    run_all(tmp_path, "packed", PACKED_SECONDS, PACKED_WRITERS)
    service = service_of(tmp_path, layout="packed")
    roots = set(roots_in(tmp_path))

    collect(service, roots, grace_seconds=GRACE)

    chunks = set()
    for digest in roots:
        service.read(digest)
        chunks.update([meta.digest for meta in service.chunks(digest) or ()] or [digest])
    items = list(service.list_items())
    assert {item.digest for item in items if item.kind == "index"} == roots
    assert {item.digest for item in items if item.kind == "chunk"} >= chunks
    wanted = {item.digest: item.size or 0 for item in items if item.kind == "chunk" and item.digest in chunks}
    stored = sum(path.stat().st_size for path in tmp_path.glob("store/packs/*/*"))
    # Footers have 44 bytes for each chunk, and the lists of blobs.
    assert stored <= 1.15 * (sum(wanted.values()) + 44 * len(wanted)) + 100 * len(chunks) + 50_000
    assert list((tmp_path / "store/leases").iterdir()) == []
