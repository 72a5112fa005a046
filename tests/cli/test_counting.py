"""Counting beforehand what a bar is to show."""

from __future__ import annotations

from pathlib import Path

import pytest

import castore
from castore.cli.counting import count_blobs, count_items
from castore.cli.progress import ProgressMeter
from castore.upkeep import Scope


@pytest.fixture
def meter() -> ProgressMeter:
    return ProgressMeter(hidden=True)


@pytest.mark.parametrize("url", ["objectstore+file:{}", "sqlite:{}/blobs.sqlite"])
def test_of_a_store_all_indexes_and_chunks_are_counted(
    tmp_path: Path, meter: ProgressMeter, url: str
) -> None:
    """Those of a sample alone, if it is one."""
    with castore.from_url(url.format(tmp_path)) as service:
        for number in range(100):
            service.write(b"%d" % number)

        assert count_blobs(service, meter) == 100
        assert count_items(service, Scope(), meter) == 200
        assert 0 < count_items(service, Scope(0.2, 1), meter) < 100


def test_of_what_only_lists_its_blobs_these_are(meter: ProgressMeter) -> None:
    """They are what is checked there."""
    with castore.from_url("memory:") as service:
        service.write(b"one")
        assert count_items(service, Scope(), meter) == 1


def test_a_service_that_takes_its_time_is_not_asked(meter: ProgressMeter) -> None:
    """The bar is not worth that."""
    with castore.from_url("objectstore+memory:") as service:
        service.write(b"one")
        service.high_latency = True
        assert (count_blobs(service, meter), count_items(service, Scope(), meter)) == (None, None)


def test_what_fails_is_not_counted(tmp_path: Path, meter: ProgressMeter) -> None:
    """The work itself will say why."""
    with castore.from_url(f"objectstore+file:{tmp_path}/store") as service:
        service.write(b"one")
        (tmp_path / "store/blobs").rename(tmp_path / "elsewhere")
        (tmp_path / "store/blobs").write_bytes(b"")
        assert count_blobs(service, meter) is None
