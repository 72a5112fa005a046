"""Each type, at each use, forked: neither the child nor the parent notices the other.

`multiprocessing` forks by default on Linux before Python 3.14. What is sent to a process that was spawned is
the composition, which is read anew there.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Final

import pytest
from children import SECONDS, in_a_child
from forked_stacks import KEEPS_IN_MEMORY, STACKS, tables
from forked_uses import SMALL, USES, A, use_rebuilt

from castore import B3Digest, Composition

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ALL: Final = [(stack, use) for stack in STACKS for use in USES]

CI: Final = {
    ("memory", "reading"),
    ("files", "idle"),
    ("files", "writing"),
    ("files", "aborted"),
    ("files", "busy"),
    ("files-process", "writing"),
    ("packed", "busy"),
    ("packed", "writing"),
    ("sqlite", "busy"),
    ("sqlite", "writing"),
    ("sqlite", "closed-there"),
    ("fsspec", "busy"),
    ("lru-files", "busy"),
    ("lru-files", "reading"),
    ("lru-sqlite", "writing"),
    ("cache", "busy"),
    ("cache-both", "aborted"),
    ("cache-behind", "busy"),
    ("mirror", "writing"),
    ("mirror-timed", "busy"),
    ("fallback", "reading"),
    ("limit", "busy"),
    ("retry", "closed-there"),
}
"""Each mechanism once; the others by hand."""

FORKED: Final = [
    pytest.param(*cell, id="-".join(cell), marks=() if cell in CI else pytest.mark.long) for cell in ALL
]

SPAWNED_IN_CI: Final = {"files", "sqlite", "cache-behind"}
SPAWNED: Final = [
    pytest.param(
        stack,
        use,
        id=f"{stack}-{use}",
        marks=() if (stack in SPAWNED_IN_CI and use == "idle") else pytest.mark.long,
    )
    for stack, use in ALL
    if USES[use].spawns and stack not in KEEPS_IN_MEMORY
]


@pytest.mark.parametrize(("stack", "use"), FORKED)
def test_a_fork(stack: str, use: str, tmp_path: Path) -> None:
    with Composition.from_mapping(tables(stack), base=tmp_path) as stores:
        blobs = stores.blobs()
        state = USES[use].prepare(blobs)
        in_a_child(lambda: USES[use].child(blobs, state))
        USES[use].after(blobs, state)
    if stack not in KEEPS_IN_MEMORY:
        with Composition.from_mapping(tables(stack), base=tmp_path) as stores:
            assert stores.blobs().read(B3Digest.of(A)) == A
            assert stores.blobs().read(B3Digest.of(SMALL)) == SMALL


@pytest.mark.parametrize(("stack", "use"), SPAWNED)
def test_a_process_that_was_spawned(stack: str, use: str, tmp_path: Path) -> None:
    """It takes a second or two to start a Python that imports castore."""
    with Composition.from_mapping(tables(stack), base=tmp_path) as stores:
        blobs = stores.blobs()
        state = USES[use].prepare(blobs)
        process = multiprocessing.get_context("spawn").Process(target=use_rebuilt, args=(stores, use))
        process.start()
        process.join(SECONDS)
        assert process.exitcode == 0
        USES[use].after(blobs, state)
