"""A stack costs what its layers do: how many calls reach each store for many small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from castore import B3Digest, Composition

FILES: Final = 600
TOGETHER: Final = 256
BATCHES: Final = -(-FILES // TOGETHER)

STORE: Final = {"type": "memory"}


def around(*layers: dict[str, Any]) -> dict[str, Any]:
    """A memory store called `store` with wrappers around it, the outermost first."""
    names = ["root", *(f"layer{number}" for number in range(1, len(layers))), "store"]
    inner = (f"&{name}" for name in names[1:])
    tables = {name: {**layer, "inner": next(inner)} for name, layer in zip(names, layers, strict=False)}
    return {**tables, "store": STORE}


def of_two(table: dict[str, Any]) -> dict[str, Any]:
    return {"root": table, "store": STORE, "other": STORE}


def cache(write: str) -> dict[str, Any]:
    return of_two({"type": "cache", "near": "&store", "far": "&other", "write": write})


RETRY: Final = {"type": "retry"}
BREAKER: Final = {"type": "breaker"}
LIMIT: Final = {"type": "limit", "concurrency": 1024}
TIMEOUT: Final = {"type": "timeout"}
VERIFY: Final = {"type": "verify"}
LRU: Final = {"type": "lru", "max_bytes": "1 GiB"}

STACKS: Final = {
    "retry": around(RETRY),
    "breaker": around(BREAKER),
    "limit": around(LIMIT),
    "timeout": around(TIMEOUT),
    "verify": around(VERIFY),
    "lru": around(LRU),
    "five wrappers": around(RETRY, BREAKER, LIMIT, VERIFY, LRU),
    "fallback": of_two({"type": "fallback", "services": ["&store", "&other"]}),
    "mirror": of_two({"type": "mirror", "services": ["&store", "&other"]}),
    "cache, near": cache("near"),
    "cache, far": cache("far"),
    "cache, both": cache("both"),
    "retry of a mirror of limits": {
        "root": {"type": "retry", "inner": "&both"},
        "both": {"type": "mirror", "services": ["&first", "&second"]},
        "first": {**LIMIT, "inner": "&store"},
        "second": {**LIMIT, "inner": "&other"},
        "store": STORE,
        "other": STORE,
    },
}

WRITTEN: Final = {
    **dict.fromkeys(STACKS, ("store",)),
    **dict.fromkeys(("mirror", "cache, both", "retry of a mirror of limits"), ("store", "other")),
    "cache, far": ("other",),
}
"""The stores that new blobs go to."""

NEW: Final = {"lease": 1, "claim_blobs": BATCHES, "claim": BATCHES, "put_chunks": BATCHES, "put_indexes": 1}
AGAIN: Final = {"lease": 1, "claim_blobs": BATCHES, "claim": 0, "put_chunks": 0, "put_indexes": 1}
READ: Final = {"get_chunks": -(-FILES // 16)}
"""A chunk of no known size counts for a MiB, and a call has sixteen of these."""

MORE: Final[dict[str, dict[str, int]]] = {
    # It looks through the store when it is first used, and asks what has come of its writes.
    name: {"find_items": 2 * BATCHES + 2, "stored_items": 1, "remove": 1}
    for name in ("lru", "five wrappers")
}
"""What else a layer needs, and the most calls that it may make for that."""


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}" for number in range(FILES)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%d" % number * 30)
    return paths


class Calls:
    """The calls that have reached a store since the last look."""

    def __init__(self, composition: Composition, name: str) -> None:
        self._composition = composition
        self._name = name
        self._before: dict[str, int] = {}

    def since(self) -> dict[str, int]:
        counted = self._composition.metrics()[self._name].operations
        now = {name: entry.calls for name, entry in counted.items()}
        found = {name: count - self._before.get(name, 0) for name, count in now.items()}
        self._before = now
        return {name: count for name, count in found.items() if count}


def check(found: dict[str, int], most: dict[str, int], stack: str) -> None:
    allowed = {**most, **MORE.get(stack, {})}
    too_many = {name: count for name, count in found.items() if count > allowed.get(name, 0)}
    assert not too_many, f"{too_many} of {found}"


@pytest.mark.parametrize("stack", STACKS)
def test_many_small_files_make_few_calls(stack: str, paths: list[Path]) -> None:
    """No layer turns one call for many into many calls, nor asks what it need not."""
    with Composition.from_mapping({"blobservices": STACKS[stack]}) as composition:
        service = composition.blobs()
        counts = {name: Calls(composition, name) for name in WRITTEN[stack]}
        digests = list(service.put_files(paths))
        for entry in counts.values():
            check(entry.since(), NEW, stack)
        assert list(service.put_files(paths)) == digests
        for entry in counts.values():
            check(entry.since(), AGAIN, stack)


@pytest.mark.parametrize("stack", STACKS)
def test_many_small_blobs_are_read_by_few_calls(stack: str, paths: list[Path]) -> None:
    """Each store is asked in batches, and only for what those before it lack."""
    with Composition.from_mapping({"blobservices": STACKS[stack]}) as composition:
        service = composition.blobs()
        digests = [entry for entry in service.put_files(paths) if isinstance(entry, B3Digest)]
        counts = {name: Calls(composition, name) for name in {"store", "other"} & STACKS[stack].keys()}
        for entry in counts.values():
            entry.since()
        for path, (digest, data) in zip(paths, service.read_many(digests), strict=True):
            assert (digest, data) == (B3Digest.of(path.read_bytes()), path.read_bytes())
        for entry in counts.values():
            # A cache keeps what it has from far, in as many calls.
            check(
                entry.since(),
                {**READ, "put_chunks": READ["get_chunks"], "find_chunks": READ["get_chunks"]},
                stack,
            )
