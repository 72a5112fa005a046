"""Writes blobs into an SQLite file until it is killed; run by `test_kill_sqlite.py` as a program of its own.

`python killing_sqlite.py FOLDER SECONDS [MUTANT]`, as `killing.py` does it with a folder.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from killing import content, one_death

from castore import B3Digest, CastoreError
from castore.threads.pool import Pool
from castore_sqlite import rows
from castore_sqlite.database import Database
from castore_sqlite.service import SqliteBlobService


def service_on(path: Path) -> SqliteBlobService:
    """Return a service with small chunks."""
    database = Database(path, instance="file", durability="process")
    return SqliteBlobService(database, avg_chunk_size=1024, pool=Pool(2))


def write_forever(path: Path, first: int, report: int) -> None:
    """Store blob after blob, every third time several at once; report the number of each that is stored."""
    service = service_on(path)
    for seed in range(first, first + 300_000, 3):
        for number in (seed, seed + 1):
            service.write(content(number))
            os.write(report, b"%d\n" % number)
        data = content(seed + 2)
        service.put_chunk(B3Digest.of(data), data)
        service.put_indexes({B3Digest.of(data): ()})
        os.write(report, b"%d\n" % (seed + 2))


def faults_in(path: Path, reported: list[int]) -> list[str]:
    """Say what is wrong with the file, or with what was reported."""
    faults = []
    service = service_on(path)
    try:
        for number in reported:
            if service.read(B3Digest.of(content(number))) != content(number):
                faults.append(f"blob {number} reads back as another")
        for digest in service.list_blobs():
            if B3Digest.of(service.read(digest)) != digest:
                faults.append(f"blob {digest} reads back as another")
    except CastoreError as error:
        faults.append(str(error))
    service.close()
    connection = sqlite3.connect(path)
    faults += [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    connection.close()
    return faults


def break_service(mutant: str) -> None:
    """Make a mistake that must be noticed."""
    commit = SqliteBlobService._commit

    def indexes_first(service: SqliteBlobService, batch: object) -> None:
        with service._database.writing(lasting=False) as connection:
            rows.put_indexes(connection, batch.indexes)  # type: ignore[attr-defined]
        commit(service, batch)  # type: ignore[arg-type]

    def later(service: SqliteBlobService, blobs: dict[B3Digest, Any]) -> None:
        service._group._upcoming.indexes.update(blobs)
        if len(service._group._upcoming.indexes) > 5:
            service._group.commit()

    if mutant == "index-before-chunks":
        SqliteBlobService._commit = indexes_first  # type: ignore[method-assign]
    else:
        SqliteBlobService.put_indexes = later  # type: ignore[method-assign,assignment]


def main() -> int:
    """Kill writers until the time is over."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    if len(sys.argv) > 3:
        break_service(sys.argv[3])
    source = random.Random(1)
    end = time.monotonic() + seconds
    deaths = blobs = 0
    path = folder / "0"
    while time.monotonic() < end:
        if deaths % 20 == 0:
            path = folder / str(deaths)
        first = source.randrange(1 << 40)
        reported = one_death(path, first, source.uniform(0, 0.05), write_forever)
        deaths += 1
        blobs += len(reported)
        faults = faults_in(path, reported)
        if faults:
            print("\n".join(faults[:5]))
            return 1
    print(f"{deaths} killed, {blobs} blobs reported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
