"""The composition in the root of the repository, which the demo uses, is right and works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import B3Digest, BlobService

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy, whose stores come to lie beside it."""
    return Path(shutil.copy(ROOT / "composition.toml", tmp_path))


@pytest.fixture(scope="module")
def schema() -> Any:
    """What `castore schema` prints."""
    command = [Path(sys.executable).with_name("castore"), "schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_it_loads_and_opens_nothing(copied: Path) -> None:
    """Loading checks all of it, and makes no folder."""
    with castore.open(copied) as stores:
        assert {instance.name for instance in stores.graph.instances.values()} == {"root", "near", "archive"}

    assert list(copied.parent.iterdir()) == [copied]


def test_a_blob_goes_to_both_stores_and_comes_back(copied: Path) -> None:
    """It is written to near and archive, and either of them alone is enough to read it."""
    data = bytes(range(256)) * 8192
    with castore.open(copied) as stores:
        digest = stores.blobs().write(data)
        assert digest == B3Digest.of(data)
        for name in ("near", "archive"):
            assert stores.build(BlobService, name).read(digest) == data

    for name in ("near", "archive"):
        hidden = copied.parent / "stores" / name
        hidden.rename(hidden.with_name("hidden"))
        with castore.open(copied) as stores:
            assert stores.blobs().read(digest) == data
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.with_name("hidden").rename(hidden)


def test_the_picture_in_the_readme_is_what_castore_draws() -> None:
    """Draw it anew with `castore graph --format svg > docs/images/composition.svg`, and look at it."""
    command = [Path(sys.executable).with_name("castore"), "graph", "--format", "svg"]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, check=True)

    assert done.stdout == (ROOT / "docs/images/composition.svg").read_bytes()
    assert "](docs/images/composition.svg)" in (ROOT / "README.md").read_text()


def test_it_agrees_with_the_schema(schema: Any) -> None:
    """An editor that uses the schema has nothing to say against it."""
    jsonschema = pytest.importorskip("jsonschema")
    document = tomllib.loads((ROOT / "composition.toml").read_text())

    jsonschema.validators.validator_for(schema).check_schema(schema)
    jsonschema.validate(document, schema)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type = "cache"', 'type = "cash"'),
        ('write = "both"', 'write = "all"'),
        ("compression_level = 9", 'compression_level = "nine"'),
        ('avg_chunk_size = "256 KiB"', "avg_chunk = 1024"),
        ('near = "&near"', 'near = "near"'),
    ],
)
def test_the_schema_finds_mistakes(schema: Any, old: str, new: str) -> None:
    """What castore refuses in this file, the schema refuses, too."""
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "composition.toml").read_text()
    assert old in text

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text.replace(old, new)), schema)
    with pytest.raises(castore.CompositionError):
        castore.Composition.from_mapping(tomllib.loads(text.replace(old, new)))
