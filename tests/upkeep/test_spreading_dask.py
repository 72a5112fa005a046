"""The same on a cluster of Dask, whose workers may be lost."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from castore import Composition
from castore.cli import clusters
from castore.cli.app import app
from castore.upkeep import spread, verify

TOML = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"
"""
BLOBS = 400


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Composition]:
    (tmp_path / "composition.toml").write_text(TOML)
    with Composition.from_toml(tmp_path / "composition.toml") as stores:
        root = stores.blobs()
        digests = [root.write(b"%d" % number * 50) for number in range(BLOBS)]
        spoiled = tmp_path / f"store/chunks/b3/{digests[7].hex()[:4]}/{digests[7].hex()}"
        spoiled.chmod(0o600)
        spoiled.write_bytes(b"spoiled")
        yield stores


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes, started anew, which takes some seconds."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed(stores: Composition, cluster: Any) -> None:
    """The engine runs its tasks again; what comes is what one process finds."""
    distributed = pytest.importorskip("distributed")
    alone = verify(stores.blobs())
    with distributed.Client(cluster, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
        killed = threading.Event()

        def kill(done: object) -> None:
            if not killed.is_set():
                killed.set()
                os.kill(pids[0], signal.SIGKILL)

        def submit(*call: Any) -> Any:
            return client.submit(*call, pure=False, retries=2)

        found = spread("verify", stores, "root", submit, parts=40, progress=kill)
    assert killed.is_set()
    assert [finding.digest for finding in found.findings] == [finding.digest for finding in alone.findings]
    assert (found.tally.blobs, found.tally.chunks) == (BLOBS - 1, BLOBS - 1)


@pytest.mark.filterwarnings("ignore")
def test_the_command(stores: Composition, cluster: Any, tmp_path: Path) -> None:
    """`castore verify --dask` says what `castore verify` says."""
    base = ["--composition", str(tmp_path / "composition.toml"), "verify", "--json"]
    alone, spread_out = (
        CliRunner().invoke(app, [*base, *more]) for more in ([], ["--dask", cluster.scheduler_address])
    )
    assert alone.exit_code == spread_out.exit_code == 1, spread_out.output
    told, told_too = json.loads(alone.stdout), json.loads(spread_out.stdout)
    assert [found["digest"] for found in told["findings"]] == [
        found["digest"] for found in told_too["findings"]
    ]
    assert told["checked"]["blobs"] == told_too["checked"]["blobs"] == BLOBS - 1


def digests(told: Any) -> list[str]:
    return [found["digest"] for found in told["findings"]]


def test_no_scheduler(stores: Composition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the address."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1.0)
    base = ["--composition", str(tmp_path / "composition.toml"), "verify", "--dask"]
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        result = CliRunner().invoke(app, [*base, address])
        assert result.exit_code == 1
        assert f"`{address}` is unavailable" in result.stderr
        assert "Traceback" not in result.stderr
