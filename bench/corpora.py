"""What is stored in the measurements: always the same bytes for the same Python and the same seed."""

from __future__ import annotations

import random
import string
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

SEED = 1
_PIECE = 64 << 20


def source_text(seed: int = SEED) -> Iterator[bytes]:
    """Yield the files of Python's own library in a random order, again and again.

    In each round the letters are others, so that nothing comes twice and all compresses alike.
    """
    chance = random.Random(seed)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("**/*.py"))
    sources = [path for path in sources if "site-packages" not in path.parts]
    letters = string.ascii_letters.encode()
    while True:
        chance.shuffle(sources)
        others = bytearray(letters)
        chance.shuffle(others)
        table = bytes.maketrans(letters, bytes(others))
        for path in sources:
            yield path.read_bytes().translate(table)


def write_text(path: Path, size: int, seed: int = SEED) -> None:
    """Write *size* bytes of source text."""
    with path.open("wb") as out:
        for data in source_text(seed):
            out.write(data[: size - out.tell()])
            if out.tell() == size:
                return


def write_random(path: Path, size: int, seed: int = SEED) -> None:
    """Write *size* bytes that do not compress."""
    stream = blake3(b"castore bench %d" % seed)
    with path.open("wb") as out:
        for start in range(0, size, _PIECE):
            out.write(stream.digest(length=min(_PIECE, size - start), seek=start))


def write_small(folder: Path, count: int, seed: int = SEED) -> int:
    """Write *count* files of 1 to 16 KiB, slices of source text, 100 to a folder; return their bytes."""
    chance = random.Random(seed)
    text = bytearray()
    for data in source_text(seed):
        text += data
        if len(text) > count * 9000:
            break
    total = at = 0
    for number in range(count):
        size = chance.randrange(1 << 10, 16 << 10)
        if at + size > len(text):
            at = chance.randrange(size)
        part = folder / f"{number // 100:03}"
        part.mkdir(parents=True, exist_ok=True)
        part.joinpath(f"{number:05}.txt").write_bytes(b"%d\n" % number + text[at : at + size])
        at += size
        total += size + len(b"%d\n" % number)
    return total


def write_versions(folder: Path, size: int, count: int = 8, edits: int = 64, seed: int = SEED) -> int:
    """Write a file that does not compress and edited versions of it; return the bytes of all.

    Each version is the one before with *edits* places where up to 1 KiB was inserted, removed or replaced.
    """
    chance = random.Random(seed)
    data = blake3(b"castore bench versions %d" % seed).digest(length=size)
    total = 0
    for number in range(count):
        folder.joinpath(f"version-{number}").write_bytes(data)
        total += len(data)
        parts = []
        at = 0
        for place in sorted(chance.sample(range(len(data) - 1024), edits)):
            new = chance.randbytes(chance.randrange(1024))
            parts += [data[at:place], new]
            at = place + chance.choice((0, len(new)))
        data = b"".join([*parts, data[at:]])
    return total
