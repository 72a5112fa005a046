"""The tree that the reference has stored, made anew; and services to store it in."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from castore import Composition

ROOT: Final = "2f2f5b660205f4f169a02fb4cdfdc23c014ad3acec1eb43e1c44699323fabfdf"
"""What the reference says of that tree."""

FILES: Final[dict[bytes, bytes]] = {
    b"a-b": b"a-b",
    b"a.b": b"x",
    b"a/z": b"sorted",
    b"a\nb": b"newline",
    b"ab": b"ab",
    b" lead and trail ": b"space",
    b"caf\xe9": b"latin \xe9",
    b"deep/a/two": b"same bytes twice",
    b"deep/one": b"same bytes twice",
    b"empty": b"",
    b"hello.txt": b"Hello World!",
    b"keep/.keep": b"",
    b"n" * 255: b"long",
    b"random.bin": random.Random(20261130).randbytes(1_500_000),
    b"run.sh": b"#!/bin/sh\necho hi\n",
    b"text.txt": b"".join(b"line %d of a text\n" % number for number in range(80_000)),
    "\N{SNOWMAN}".encode(): b"snow",
}
EXECUTABLE: Final = (b"run.sh", b"deep/a/two")
LINKS: Final[dict[bytes, bytes]] = {
    b"link": b"hello.txt",
    b"absolute": b"/nix/store/somewhereelse",
    b"deep/dangling": b"../../up\xe9",
    b"deep/longest": b"t" * 4095,
}
EMPTY_FOLDERS: Final = (b"empty-dir", b"deep/a/b/c")


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; no test may change it."""
    folder = tmp_path_factory.mktemp("golden") / "tree"
    root = os.fsencode(folder)
    for name in EMPTY_FOLDERS:
        os.makedirs(os.path.join(root, name))
    for name, data in FILES.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o755 if name in EXECUTABLE else 0o644)
    for name, target in LINKS.items():
        os.symlink(target, os.path.join(root, name))
    return folder


@pytest.fixture
def stores() -> Iterator[Composition]:
    """A composition whose directories are in its blobs."""
    with Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        yield stores


@pytest.fixture
def snapshot() -> Callable[[Path], dict[bytes, object]]:
    """Return what is in a folder: the kind of each entry, its mode, and its bytes or target."""

    def snapshot(folder: Path) -> dict[bytes, object]:
        found: dict[bytes, object] = {}
        base = os.fsencode(folder)
        for where, folders, names in os.walk(base):
            for name in (*folders, *names):
                path = os.path.join(where, name)
                key = os.path.relpath(path, base)
                if os.path.islink(path):
                    found[key] = os.readlink(path)
                elif os.path.isdir(path):
                    found[key] = oct(os.stat(path).st_mode)
                else:
                    with open(path, "rb") as file:
                        found[key] = oct(os.stat(path).st_mode), file.read()
        return found

    return snapshot
