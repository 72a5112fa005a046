"""A stack for each mechanism that a fork, an interrupt or the end of the interpreter may find half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

Tables = dict[str, dict[str, Any]]

CHUNK: Final = 16 << 10


def _file(folder: str, durability: str = "full") -> dict[str, Any]:
    return {
        "type": "objectstore",
        "object_store_url": f"file:./{folder}",
        "avg_chunk_size": CHUNK,
        "durability": durability,
    }


def _over(type_: str, **fields: Any) -> Tables:
    return {"root": {"type": type_, "inner": "&store", **fields}, "store": _file("store")}


def _cache(**fields: Any) -> Tables:
    return {
        "root": {"type": "cache", "near": "&near", "far": "&far", **fields},
        "near": _file("near"),
        "far": _file("far"),
    }


STACKS: Final[dict[str, Tables]] = {
    "memory": {"root": {"type": "memory"}},
    "files": {"root": _file("store")},
    "files-process": {"root": _file("store", "process")},
    "packed": {"root": {"type": "packed", "object_store_url": "file:store", "avg_chunk_size": CHUNK}},
    "sqlite": {"root": {"type": "sqlite", "path": "blobs.sqlite", "avg_chunk_size": CHUNK}},
    "fsspec": {"root": {"type": "objectstore", "object_store_url": "memory:"}},
    "lru-files": _over("lru", max_bytes="64 MiB"),
    "lru-sqlite": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "64 MiB"},
        "store": {"type": "sqlite", "path": "blobs.sqlite", "avg_chunk_size": CHUNK},
    },
    "cache": _cache(),
    "cache-both": _cache(write="both"),
    "cache-behind": _cache(write="behind", queue="./queue", drain="5 s"),
    "mirror": {
        "root": {"type": "mirror", "services": ["&one", "&two"]},
        "one": _file("one"),
        "two": _file("two"),
    },
    "mirror-timed": {
        "root": {
            "type": "mirror",
            "services": [{"ref": "&one", "timeout": "30 s"}, {"ref": "&two", "timeout": "30 s"}],
            "hedge_after": "5 s",
        },
        "one": _file("one"),
        "two": _file("two"),
    },
    "fallback": {
        "root": {"type": "fallback", "services": ["&one", "&two"]},
        "one": _file("one"),
        "two": _file("two"),
    },
    "retry": _over("retry"),
    "breaker": _over("breaker"),
    "limit": _over("limit", concurrency=2),
    "verify": _over("verify"),
    "faulty": _over("faulty"),
}
"""By name; the root of each is written to and read from."""

KEEPS_IN_MEMORY: Final = frozenset({"memory", "fsspec"})
"""What another process has put cannot be found there."""


def tables(name: str) -> dict[str, Any]:
    """Return a stack as the tables of a composition."""
    return {"allow_faults": True, "blobservices": STACKS[name]}


def folder_of(base: Path) -> Path:
    """Return a folder that is there."""
    base.mkdir(parents=True, exist_ok=True)
    return base
