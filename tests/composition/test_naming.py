"""How a service shows itself, and what is said to who looks for a type by another word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import castore
from castore import Composition, CompositionError

STORES = {
    "root": {"type": "retry", "inner": "&local"},
    "local": {"type": "objectstore", "object_store_url": "file:./stores/near"},
    "file": {"type": "sqlite", "path": "./blobs.sqlite"},
    "secret": {"type": "sqlite", "path": "./${TOKEN}.sqlite"},
    "bucket": {"type": "objectstore", "object_store_url": "sftp://me:word@host/x"},
}


@pytest.mark.parametrize("metrics", [True, False])
def test_a_service_says_what_it_is_and_where(
    tmp_path: Path, metrics: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without secrets, and whether it is measured or not."""
    monkeypatch.setenv("TOKEN", "swordfish")
    tables: dict[str, Any] = {"blobservices": STORES}
    with Composition.from_mapping(tables, base=tmp_path, metrics=metrics) as stores:
        assert [repr(stores.blobs(name)) for name in STORES] == [
            "<retry `root`>",
            "<objectstore `local` at file:./stores/near>",
            "<sqlite `file` at blobs.sqlite>",
            "<sqlite `secret` at ./${TOKEN}.sqlite>",
            "<objectstore `bucket` at sftp://me:***@host/x>",
        ]
    with castore.from_url("memory:") as service:
        assert repr(service) == "<memory `root`>"


def test_one_that_no_composition_has_built_is_shown_as_any_object() -> None:
    class Plain(castore.BlobService):
        def has(self, digest: castore.B3Digest) -> bool:
            return False

        def open_read(self, digest: castore.B3Digest) -> None:
            return None

        def open_write(self) -> castore.BlobWriter:
            raise NotImplementedError

    assert "Plain object at 0x" in repr(Plain())


@pytest.mark.parametrize(
    ("word", "tag"),
    [
        ("s3", "objectstore"), ("gs", "objectstore"), ("http", "objectstore"), ("sftp", "objectstore"),
        ("file", "objectstore"), ("folder", "objectstore"), ("S3", "objectstore"), ("sqlite3", "sqlite"),
        ("db", "sqlite"), ("ram", "memory"), ("raid", "mirror"), ("quota", "lru"),
    ],
)  # fmt: skip
def test_who_looks_for_a_type_by_another_word_is_told_its_name(word: str, tag: str) -> None:
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping({"blobservices": {"root": {"type": word}}})
    (problem,) = caught.value.problems
    assert problem.code == "unknown-type"
    assert f'write `type = "{tag}"`; `castore plugins {tag}` shows what it takes' in str(problem.hint)
