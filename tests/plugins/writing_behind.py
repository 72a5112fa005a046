"""Puts blobs that far gets later, until it is killed; run by `test_cache_behind.py` as a program.

`python writing_behind.py FOLDER NEAR`: near is the service type NEAR in FOLDER, and far is down. It prints
the digest of each blob when it is acknowledged.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from castore import Composition


def tables(near: str, far: dict[str, Any]) -> dict[str, Any]:
    """Return a composition that writes behind."""
    nears = {
        "objectstore": {"type": "objectstore", "object_store_url": "file:./near", "avg_chunk_size": 2048},
        "sqlite": {"type": "sqlite", "path": "./near.sqlite"},
    }
    root = {
        "type": "cache", "near": "&near", "far": "&far", "write": "behind", "queue": "./queue",
        "retry_after": "1 ms", "drain": "30 s",
    }  # fmt: skip
    return {"blobservices": {"root": root, "near": nears[near], "far": far}}


def main() -> None:
    folder, near = Path(sys.argv[1]), sys.argv[2]
    stores = Composition.from_mapping(tables(near, {"type": "error"}), base=folder)
    blobs = stores.blobs()
    for number in range(100_000):
        data = random.Random(number).randbytes(number % 7 * 3000)
        print(blobs.write(data), flush=True)


if __name__ == "__main__":
    main()
