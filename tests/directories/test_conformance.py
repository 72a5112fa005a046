"""Every type of services of directories, alone and around others, keeps the contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from castore import Composition, Registry
from castore.contract.directories import DirectoryService
from castore.testing import DIRECTORY_CLAUSES
from castore.testing.clause import has_of

Tables = dict[str, dict[str, Any]]

FILES: Final = {"type": "objectstore", "object_store_url": "file:./trees", "durability": "process"}
ROWS: Final = {"type": "sqlite", "path": "d.sqlite", "durability": "process"}
MEMORY: Final = {"type": "memory"}
IN_BLOBS: Final = {"type": "blobs", "blobs": "&root"}


def around(tag: str, inner: Any = MEMORY, **fields: Any) -> Tables:
    return {"root": {"type": tag, "inner": "&store", **fields}, "store": inner}


STACKS: Final[dict[str, Tables]] = {
    "memory": {"root": MEMORY},
    "memory with a bound": {"root": {"type": "memory", "max_size": "64 MiB"}},
    "sqlite": {"root": ROWS},
    "blobs": {"root": IN_BLOBS},
    "objectstore": {"root": FILES},
    "objectstore with an index": {"root": {**FILES, "index": True}},
    "cache in objects with an index": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": {**FILES, "index": True},
        "far": ROWS,
    },
    "breaker": around("breaker"),
    "faulty": around("faulty"),
    "limit": around("limit", concurrency=3),
    "limit, in parts": around("limit", ROWS, operations_per_second=1_000_000, bytes_per_second="1 GB"),
    "retry": around("retry"),
    "retry over objects": around("retry", FILES),
    "retry over faults": {
        "root": {"type": "retry", "inner": "&faulty", "attempts": 50, "first_delay": "0 s"},
        "faulty": {"type": "faulty", "inner": "&store", "fail": 0.2, "seed": 7},
        "store": MEMORY,
    },
    "cache": {"root": {"type": "cache", "near": "&near", "far": "&far"}, "near": MEMORY, "far": ROWS},
    "cache, single": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": {"type": "memory", "max_size": "1 KiB"},
        "far": ROWS,
    },
    "cache over objects": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": {**ROWS, "complete": False},
        "far": FILES,
    },
    "cache in objects": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": FILES,
        "far": IN_BLOBS,
    },
    "cache of a near that fails": {
        "root": {"type": "cache", "near": "&near", "far": "&far"},
        "near": {"type": "faulty", "inner": "&store", "fail": 0.3, "corrupt": 0.1, "seed": 3},
        "store": {"type": "memory", "max_size": "1 GiB"},
        "far": MEMORY,
    },
    "fallback": {"root": {"type": "fallback", "services": ["&a", "&b"]}, "a": MEMORY, "b": ROWS},
    "fallback to another": {
        "root": {"type": "fallback", "services": ["&a", {"ref": "&b", "timeout": "60 s"}], "write_to": "b"},
        "a": IN_BLOBS,
        "b": FILES,
    },
    "fallback from one that is corrupt": {
        "root": {"type": "fallback", "services": ["&a", "&b", "&c"], "write_to": "b"},
        "a": {"type": "faulty", "inner": "&b", "corrupt": 0.4, "seed": 5},
        "b": MEMORY,
        "c": {"type": "error", "outcome": "absent"},
    },
    "priority": {"root": {"type": "priority", "services": {"1": "&a", "20": "&b"}}, "a": ROWS, "b": MEMORY},
    "mirror": {"root": {"type": "mirror", "services": ["&a", "&b"]}, "a": MEMORY, "b": ROWS},
    "mirror with objects": {
        "root": {
            "type": "mirror",
            "services": ["&a", {"ref": "&b", "timeout": "60 s"}, "&c"],
            "hedge_after": "30 s",
        },
        "a": FILES,
        "b": ROWS,
        "c": {"type": "error"},
    },
    "sqlite that need not be complete": {"root": {**ROWS, "complete": False}},
    "timeout": around("timeout"),
    "timeout over objects": around("timeout", FILES),
    "verify": around("verify"),
    "verify over objects": around("verify", FILES),
}

UNTESTED: Final = {"grpc", "read_only"}
"""What nothing can be written to, and what needs a peer."""


@contextlib.contextmanager
def opened(tables: Tables, folder: Path) -> Iterator[DirectoryService]:
    mapping: Any = {
        "allow_faults": True,
        "blobservices": {"root": {"type": "memory"}},
        "directoryservices": tables,
    }
    with Composition.from_mapping(mapping, base=folder) as stores:
        yield stores.directories()


@pytest.mark.parametrize("name", STACKS)
def test_the_contract(name: str, tmp_path: Path) -> None:
    failures = {}
    for clause in DIRECTORY_CLAUSES:
        with opened(STACKS[name], tmp_path) as service:
            try:
                if clause.reason_against(has_of(service)) is None:
                    clause.check(service)
            except Exception as error:
                failures[clause.name] = error
    assert failures == {}


def test_each_type_stands_here() -> None:
    registry = Registry.default()
    known = set(registry.types(registry.kind(DirectoryService)))
    here = {table["type"] for tables in STACKS.values() for table in tables.values()}
    assert known - here == UNTESTED
