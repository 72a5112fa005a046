"""fsspec's own suite, in a transaction: what it seeds, copies and writes goes into a draft of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fsspec.tests.abstract as suite
import pytest

import castore
from castore.access.fsspec import CastoreFileSystem
from castore.digest import EMPTY


class InTransaction(suite.AbstractFixtures):
    @pytest.fixture
    def fs(self) -> Iterator[CastoreFileSystem]:
        table = {"blobservices": {"root": {"type": "memory"}}}
        with castore.Composition.from_mapping(table) as stores:
            fs = CastoreFileSystem.of(stores)
            with fs.transaction:
                yield fs

    @pytest.fixture
    def fs_path(self) -> str:
        return str(EMPTY)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class TestGet(InTransaction, suite.AbstractGetTests):
    pass


class TestPut(InTransaction, suite.AbstractPutTests):
    pass


class TestCopy(InTransaction, suite.AbstractCopyTests):
    pass


class TestPipe(InTransaction, suite.AbstractPipeTests):
    pass


class TestOpen(InTransaction, suite.AbstractOpenTests):
    pass


def test_all_of_the_get_suite_is_run(request: Any) -> None:
    """45 cases, as fsspec has them: none is lost by the names of fixtures."""
    names = [name for name in dir(TestGet) if name.startswith("test_")]
    assert len(names) >= 13
