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
COLLECTORS = 2


@pytest.mark.timeout(SECONDS + 120)
def test_nothing_reachable_is_lost_and_nothing_else_stays(tmp_path: Path) -> None:
    """Every root can be read at any time; in the end there are the files of the roots, and no others."""
    script = [sys.executable, str(HERE / "collecting.py")]
    commands = [
        *([*script, "write", str(tmp_path), str(number), str(SECONDS)] for number in range(WRITERS)),
        *([*script, "collect", str(tmp_path), str(SECONDS)] for _ in range(COLLECTORS)),
    ]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        output, errors = process.communicate(timeout=SECONDS + 100)
        print(output, end="")
        assert (process.returncode, errors) == (0, "")
    time.sleep(GRACE + FRESH + 0.5)
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
