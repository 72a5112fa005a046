"""Whatever is nested, repeated or long without measure: one clear error, soon, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import castore
from castore import CastoreError, Composition, CompositionError

ROOT = '[blobservices.root]\ntype = "memory"\n'
STORE = '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "s3://b"\nobject_store_options = '

DEEP: dict[str, Any] = {
    "dotted keys": lambda n: ROOT + ".".join(["a"] * n) + " = 1\n",
    "dotted headers": lambda n: f"[{'.'.join(['a'] * n)}]\nx = 1\n",
    "dotted headers of arrays": lambda n: f"[[{'.'.join(['a'] * n)}]]\nx = 1\n",
    "dotted keys in a table": lambda n: STORE + "{ " + ".".join(["a"] * n) + " = 1 }\n",
    "arrays": lambda n: ROOT + "x = " + "[" * n + "]" * n + "\n",
    "tables": lambda n: STORE + "{a = " * n + "1" + "}" * n + "\n",
    "arrays without an end": lambda n: ROOT + "x = " + "[" * n + "\n",
    "tables without an end": lambda n: ROOT + "x = " + "{a = " * n + "\n",
    "URLs in a file": lambda n: f'[blobservices.root]\ntype = "retry"\ninner = "{"retry+" * n}memory:"\n',
    "defaults of variables": lambda n: (
        f'[blobservices.root]\ntype = "sqlite"\npath = "{"${CASTORE_NONE:-" * n}{"}" * n}"\n'
    ),
}


@pytest.mark.parametrize("count", [1100, 10_000])
@pytest.mark.parametrize("name", DEEP)
def test_what_is_nested_too_deeply_is_told(tmp_path: Path, name: str, count: int) -> None:
    """With a line of the file, in a message that a terminal can show."""
    path = tmp_path / "composition.toml"
    path.write_text(DEEP[name](count))
    with pytest.raises(CompositionError) as caught:
        Composition.from_toml(path)
    assert f"{path}:" in str(caught.value)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("count", [1100, 10_000])
@pytest.mark.parametrize("scheme", ["cache", "retry", "objectstore", "sqlite", "memory"])
def test_schemes_without_end_are_no_url(scheme: str, count: int) -> None:
    with pytest.raises(CastoreError) as caught:
        castore.from_url(f"{scheme}+" * count + "memory:")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("depth", [1100, 10_000])
def test_mappings_within_mappings(depth: int) -> None:
    inner: dict[str, Any] = {}
    table = inner
    for _ in range(depth):
        inner["a"] = inner = {}
    store = {"type": "objectstore", "object_store_url": "s3://b", "object_store_options": table}
    with pytest.raises(CompositionError, match="nested too deeply"):
        Composition.from_mapping({"blobservices": {"root": store}})


@pytest.mark.parametrize("key", ["path", "queue"])
def test_a_variable_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """A path of a hundred thousand parts is no place, and costs no more than its length."""
    monkeypatch.setenv("CASTORE_PART", "/part")
    path = tmp_path / "composition.toml"
    long = "${CASTORE_PART}" * 100_000
    if key == "path":
        path.write_text(f'[blobservices.root]\ntype = "sqlite"\npath = "{long}"\n')
    else:
        table = 'near = "objectstore+file:./near"\nfar = "memory:"\nwrite = "behind"'
        path.write_text(f'[blobservices.root]\ntype = "cache"\n{table}\nqueue = "{long}"\n')
    with Composition.from_toml(path) as stores, pytest.raises(CastoreError) as caught:
        stores.blobs().write(b"there is no such place")
    assert len(str(caught.value)) < 5000
