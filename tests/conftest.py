"""The tier of each test: `-m unit`, `-m kit` or `-m processes`; CONTRIBUTING says what each may take."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent

KIT: Final = (
    "plugins",
    "simulation",
    "testing",
    "test_capability_algebra.py",
    "test_conformance.py",
)
"""Whole services: each type, and stacks of them."""

PROCESSES: Final = (
    "aio",
    "cli",
    "durability",
    "examples",
    "forking",
    "hostile",
    "serving",
    "test_bench.py",
    "test_deprecations.py",
    "test_docs.py",
    "test_packaging.py",
)
"""What starts processes: commands, programs that are killed, servers."""


@pytest.fixture(autouse=True, scope="session")
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands know of files is no business of the user's who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def tier_of(path: Path) -> str:
    """Return the tier of the tests in a file."""
    first = path.relative_to(HERE).parts[0]
    return "processes" if first in PROCESSES else "kit" if first in KIT else "unit"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") is None:
            item.add_marker(tier_of(item.path))


def pytest_collection_finish() -> None:
    """Leave the tests themselves out of each collection of garbage: there are many."""
    gc.collect()
    gc.freeze()
