"""Compare what `castore stat --json` says of two blobs: how much do they share?"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(first: str, second: str) -> None:
    """Print how many chunks of the second blob the first one has, too."""
    known = {chunk["digest"] for chunk in json.loads(Path(first).read_text())["chunks"]}
    chunks = json.loads(Path(second).read_text())["chunks"]
    shared = [chunk for chunk in chunks if chunk["digest"] in known]
    total = sum(chunk["size"] for chunk in chunks)
    new = total - sum(chunk["size"] for chunk in shared)
    print(f"{len(shared)} of the {len(chunks)} chunks of the copy were there already:", end=" ")
    print(f"{new:,} of {total:,} bytes are new")


if __name__ == "__main__":
    main(*sys.argv[1:])
