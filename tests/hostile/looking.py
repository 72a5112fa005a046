"""A program that looks at a store as its users do, and prints what came of it and the memory that it took.

Its arguments: a composition, the names of services, and digests. The last line is the peak, in MiB.
"""

from __future__ import annotations

import sys
from pathlib import Path

import castore
from castore.threads.pool import Pool
from castore.upkeep import verify

path, services, *texts = sys.argv[1:]
digests = [castore.B3Digest.parse(text) for text in texts]


def look(service: castore.BlobService, digest: castore.B3Digest) -> list[str]:
    said = []

    def attempt(what: str, call) -> None:
        try:
            said.append(f"{what} {call()}")
        except castore.CastoreError as error:
            said.append(f"{what} {error.code}")

    def read() -> int:
        with service.open(digest) as reader:
            reader.seek(reader.size // 2)
            return len(reader.read(10))

    attempt("has", lambda: service.has(digest))
    attempt("chunks", lambda: len(service.chunks(digest) or ()))
    attempt("read", lambda: len(service.read(digest)))
    attempt("part", read)
    return said


with castore.open(path) as stores:
    for name in services.split(","):
        service = stores.blobs(name)
        for digest in digests:
            print(name, str(digest)[:2], *look(service, digest))
        if name == "verified":
            print(name, "verify", len(verify(service, pool=Pool(4)).findings))
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
