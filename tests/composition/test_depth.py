"""Services in a row: as many as a call can go through, and one clear error for more."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import Composition, CompositionError
from castore.composition.graph.graph import DEEPEST
from castore.drawing import FORMATS

DATA = os.urandom(1 << 20)

LAYERS: dict[str, dict[str, Any]] = {
    "cache": {"near": "memory:", "far": "&NEXT", "write": "far"},
    "both": {"type": "cache", "near": "memory:", "far": "&NEXT", "write": "both"},
    "mirror": {"services": ["memory:", "&NEXT"]},
    "timed": {"type": "mirror", "services": ["memory:", {"ref": "&NEXT", "timeout": "1 min"}]},
    "fallback": {"services": ["memory:", "&NEXT"], "write_to": "NEXT"},
    "limit": {"inner": "&NEXT", "concurrency": 9},
    "retry": {"inner": "&NEXT"},
    "verify": {"inner": "&NEXT"},
    "breaker": {"inner": "&NEXT"},
}


def chain(layer: str, length: int) -> dict[str, Any]:
    """So many services in a row, the last of which is a store."""
    names = ["root", *(f"n{number}" for number in range(1, length))]
    tables: dict[str, Any] = {}
    for name, following in itertools.pairwise(names):
        table = {"type": layer, **LAYERS[layer]}
        tables[name] = _replaced(table, following)
    tables[names[-1]] = {"type": "objectstore", "object_store_url": "file:./store"}
    return {"blobservices": tables}


def _replaced(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, name) for item in value]
    return value.replace("NEXT", name) if isinstance(value, str) else value


@pytest.mark.parametrize("layer", LAYERS)
def test_so_many_in_a_row_work(layer: str, tmp_path: Path) -> None:
    """Measured, as it may be in a server: with a hundred calls above it."""

    def use() -> None:
        with Composition.from_mapping(chain(layer, DEEPEST), base=tmp_path) as stores:
            blobs = stores.blobs()
            digests = [blobs.write(DATA), blobs.write(b"small")]
            path = tmp_path / "file"
            path.write_bytes(DATA[::-1])
            digests += list(blobs.put_files([path]))
        with Composition.from_mapping(chain(layer, DEEPEST), base=tmp_path) as stores:
            blobs = stores.blobs()
            assert blobs.missing(digests) == set()
            with blobs.open(digests[0]) as reader:
                reader.seek(1000)
                assert reader.read(10) == DATA[1000:1010]
            assert [blobs.read(digest) for digest in digests[:2]] == [DATA, b"small"]
            assert {digest for digest, found in blobs.read_many(digests) if found is not None} == {*digests}
            assert not stores.obstacles

    def below(frames: int) -> None:
        use() if frames == 0 else below(frames - 1)

    below(100)


@pytest.mark.parametrize("length", [DEEPEST + 1, 1000])
def test_more_are_refused_before_they_are_built(length: int, tmp_path: Path) -> None:
    """The graph can be looked at; what stands deep enough in it can be used."""
    with Composition.from_mapping(chain("retry", length), base=tmp_path) as stores:
        (problem,) = stores.obstacles
        assert (problem.code, problem.dotted) == ("too-deep", "blobservices.root")
        assert f"{length} services stand in a row" in problem.message
        for use in (stores.blobs, stores.released, stores.check_buildable):
            with pytest.raises(
                CompositionError, match=f"{length} services stand in a row.*at most {DEEPEST}"
            ):
                use()
        assert stores.blobs(f"n{length - DEEPEST}").has(castore.B3Digest.of(b"")) is False
        assert [probe.ok for probe in stores.probe()].count(False) == length - DEEPEST


def test_each_drawing_has_them_all(tmp_path: Path) -> None:
    with Composition.from_mapping(chain("cache", 150), base=tmp_path) as stores:
        for draw in FORMATS.values():
            assert "n149" in draw(stores.picture())
