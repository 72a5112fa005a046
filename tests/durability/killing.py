"""Writes blobs into a store until it is killed; run by `test_kill.py` as a program of its own.

`python killing.py FOLDER SECONDS SEED [MUTANT]` forks a writer again and again, kills it at a random moment,
and looks whether what it had reported is there. A last line says how many were killed; the exit code is 1
after a fault. A fork spares the start of Python for each, so that many die in a minute.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import mutants
from facts import faults_in, files_of, service_on

from castore import B3Digest
from castore.threads.pool import Pool
from castore.upkeep import verify
from castore_objectstore import staging
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService


def content(seed: int) -> bytes:
    """Return the blob of a number: some are empty or small, some share chunks with others."""
    source = random.Random(seed)
    size = source.choice([0, 1, 100, 3000, 20_000, 200_000])
    shared = random.Random(seed % 5).randbytes(size // 2)
    return shared + source.randbytes(size - len(shared))


def write_forever(folder: Path, first: int, report: int) -> None:
    """Store blob after blob; report the number of each that is stored."""
    staging._MANY_FILES = 20  # type: ignore[misc] - these few are to be much
    store = LocalObjectStore(folder, instance="files")
    service = ObjectStoreBlobService(store, avg_chunk_size=1024, pool=Pool(2))
    for seed in range(first, first + 100_000):
        digest = service.write(content(seed))
        assert digest == B3Digest.of(content(seed))
        os.write(report, b"%d\n" % seed)


def one_death(
    folder: Path, first: int, delay: float, write: Callable[[Path, int, int], None] = write_forever
) -> list[int]:
    """Start a writer, kill it after *delay* seconds; return the numbers of the blobs that it has reported."""
    reading, report = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write(folder, first, report)
        os._exit(1)
    os.close(report)
    select.select([reading], [], [], 5)  # The first blob is stored: from here on anything may be going on.
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = b""
    while part := os.read(reading, 1 << 16):
        reported += part
    os.close(reading)
    # The kill may have cut the last line short; it was not reported then.
    return [int(line) for line in reported.split(b"\n")[:-1]]


def main() -> int:
    """Kill writers until the time is over."""
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    if len(sys.argv) > 4:
        mutants.apply(sys.argv[4])
    source = random.Random(seed)
    end = time.monotonic() + seconds
    deaths = blobs = 0
    round_ = folder
    while time.monotonic() < end:
        if deaths % 20 == 0:
            # A store that has grown takes long to look through.
            round_ = folder / str(deaths)
        reported = one_death(round_, source.randrange(1 << 40), source.uniform(0, 0.05))
        deaths += 1
        blobs += len(reported)
        faults = faults_in(files_of(round_))
        service = service_on(round_)
        faults += [
            f"blob {number} reads back as another"
            for number in reported
            if service.read(B3Digest.of(content(number))) != content(number)
        ]
        faults += [f"castore verify: {finding}" for finding in verify(service, pool=Pool(0)).findings]
        if faults:
            print("\n".join(faults[:5]))
            return 1
    print(f"{deaths} killed, {blobs} blobs reported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
