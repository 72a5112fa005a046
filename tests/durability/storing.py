"""Stores some blobs and reports each; run under strace by `test_power_cut.py`.

`python storing.py FOLDER WHAT [MUTANT]`; WHAT is the name of a function here.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import mutants
from facts import service_on

from castore import B3Digest
from castore_objectstore import staging


def report(digest: B3Digest) -> None:
    """Say that a blob is stored."""
    os.write(1, f"{digest}\n".encode())


def blobs(folder: Path) -> None:
    """Store small, empty, known and large blobs, several at once, and one whose writer is aborted."""
    service, other = service_on(folder), service_on(folder)
    source = random.Random(7)
    shared = source.randbytes(4000)
    for data in (b"", b"small", shared + source.randbytes(2000), b"small", shared):
        report(service.write(data))
    with service.open_write() as writer:
        writer.write(source.randbytes(3000))
        writer.abort()
    # What one service has stored and not yet flushed, another finds there.
    half = source.randbytes(2500)
    with service.open_write() as first:
        first.write(half)
        report(other.write(half))
        report(first.close())
    report(service.write(shared + half))
    service.close()
    other.close()


def files(folder: Path) -> None:
    """Store many files, some small ones at a time, some of which are there already."""
    service = service_on(folder)
    service.round = 5
    source = random.Random(9)
    paths = [folder.with_name(f"file-{number}") for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(source.randbytes(3000 if number == 7 else 100 * (number % 4)))
    for path in (paths[1], paths[6]):
        report(service.put_file(path))
    for _ in range(2):
        for digest in service.put_files(paths):
            assert isinstance(digest, B3Digest)
            report(digest)
    service.close()


def more_than_may_wait(folder: Path) -> None:
    """Store blobs whose chunks are flushed and get their names before the blob ends; one is aborted then.

    What is done for that beside the writer is done by itself here, so that the record has its order.
    """
    staging._MANY_FILES = 4  # type: ignore[misc] - these few are to be much
    threading.Thread.start = threading.Thread.run  # type: ignore[method-assign]
    service = service_on(folder)
    source = random.Random(8)
    shared = source.randbytes(8000)
    for data in (shared, shared + source.randbytes(6000)):
        report(service.write(data))
    with service.open_write() as writer:
        writer.write(source.randbytes(9000))
        writer.abort()
    report(service.write(source.randbytes(3000) + shared))
    service.close()


def what_others_have_not_flushed(folder: Path) -> None:
    """Store blobs that are there already, but were written by somebody who does not flush."""
    service, careless = service_on(folder), service_on(folder, durability="process")
    for data in (b"small", b"small" * 1000):
        careless.write(data)
        report(service.write(data))
        careless.write(data + b"!")
        report(service.write(b"?" + data + b"!"))
    paths = [folder.with_name(f"file-{number}") for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(b"file %d" % number)
        if number % 2:
            careless.put_file(path)
    for digest in service.put_files(paths):
        assert isinstance(digest, B3Digest)
        report(digest)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        mutants.apply(sys.argv[3])
    globals()[sys.argv[2]](Path(sys.argv[1]))
