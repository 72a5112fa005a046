"""What is stored in the measurements: always the same bytes for the same Python and the same seed."""

from __future__ import annotations

import os
import random
import string
import sys
import sysconfig
import time
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


def write_small(folder: Path, count: int, seed: int = SEED) -> None:
    """Write *count* files of 1 to 16 KiB, slices of source text, a hundred to a folder."""
    chance = random.Random(seed)
    text = bytearray()
    for data in source_text(seed):
        text += data
        if len(text) > count * 9000:
            break
    at = 0
    for number in range(count):
        size = chance.randrange(1 << 10, 16 << 10)
        if at + size > len(text):
            at = chance.randrange(size)
        part = folder / f"{number // 100:03}"
        part.mkdir(parents=True, exist_ok=True)
        part.joinpath(f"{number:05}.txt").write_bytes(b"%d\n" % number + text[at : at + size])
        at += size


def write_tree(folder: Path, count: int, seed: int = SEED) -> None:
    """Write *count* files, fifteen to a folder, of which some lie many levels deep; all of an hour ago.

    Most have 1 to 8 KiB, some up to 1 MiB; two of three are source text, the others do not compress.
    """
    chance = random.Random(seed)
    text = bytearray()
    for data in source_text(seed):
        text += data
        if len(text) > 8 << 20:
            break
    noise = blake3(b"castore bench tree %d" % seed).digest(length=8 << 20)
    folders = [folder]
    for number in range(max(1, count // 15)):
        folders.append(chance.choice(folders[-100:]) / f"folder-{number}")
        folders[-1].mkdir(parents=True)
    hour_ago = time.time() - 3600
    for number in range(count):
        size = min(int(chance.lognormvariate(8, 1.5)), 1 << 20)
        source = noise if number % 3 == 0 else text
        at = chance.randrange(len(source) - size)
        path = chance.choice(folders) / f"{number}.txt"
        path.write_bytes(b"%d\n" % number + source[at : at + size])
        os.utime(path, (hour_ago, hour_ago))


def write_versions(folder: Path, size: int, count: int = 8, edits: int = 64, seed: int = SEED) -> None:
    """Write a file that does not compress and edited versions of it.

    Each version is the one before with *edits* places where up to 1 KiB was inserted, removed or replaced.
    """
    chance = random.Random(seed)
    data = blake3(b"castore bench versions %d" % seed).digest(length=size)
    folder.mkdir()
    for number in range(count):
        folder.joinpath(f"version-{number}").write_bytes(data)
        parts = []
        at = 0
        for place in sorted(chance.sample(range(len(data) - 1024), edits)):
            new = chance.randbytes(chance.randrange(1024))
            parts += [data[at:place], new]
            at = place + chance.choice((0, len(new)))
        data = b"".join([*parts, data[at:]])


def main() -> None:
    """Write all corpora: `corpora.py FOLDER BYTES FILES`."""
    folder, size, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "text", size)
    write_random(folder / "random", size)
    write_versions(folder / "versions", size // 8)
    write_small(folder / "small", files)


if __name__ == "__main__":
    main()
