"""The same on a cluster of Dask, whose workers may be lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from castore import B3Digest, Composition
from castore.cli import clusters
from castore.cli.app import app
from castore.contract.upkeep import Inventory
from castore.upkeep import collect, marking, spread, verify
from castore.upkeep.marking import Marker

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


@pytest.mark.filterwarnings("ignore")
def test_a_collection_whose_worker_is_killed(
    stores: Composition, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The indexes are read again elsewhere; what goes is what one process removes, to the last file."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(marking, "_MOST_BLOBS", 5)
    kept = sorted(stores.blobs().capability(Inventory).list_items(), key=lambda item: item.key)  # type: ignore[union-attr]
    roots = [item.digest for item in kept if item.kind == "index" and item.digest][::2]
    now = time.time() + 1e7

    def gone(marker: Marker | None, *, dry_run: bool) -> list[str]:
        items: list[str] = []
        collect(
            stores.blobs(),
            roots,
            grace_seconds=1.0,
            marker=marker,
            dry_run=dry_run,
            clock=lambda: now,
            on_gone=lambda item: items.append(item.key),
        )
        return items

    alone = gone(None, dry_run=True)
    with distributed.Client(cluster, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
        tasks: list[Any] = []

        def submit(*call: Any) -> Any:
            tasks.append(client.submit(*call, pure=False, retries=2))
            if len(tasks) == 20:
                tasks[3].result()
                os.kill(pids[0], signal.SIGKILL)
            return tasks[-1]

        assert gone(spread("mark", stores, "root", submit, parts=20, prove=False), dry_run=False) == alone
    assert len(tasks) > 20
    assert len(alone) > BLOBS / 2
    assert all(stores.blobs().has(digest) for digest in roots)


@pytest.mark.filterwarnings("ignore")
def test_the_command_that_collects(stores: Composition, cluster: Any, tmp_path: Path) -> None:
    """`castore gc --dask` says what `castore gc` says."""
    root = str(B3Digest.of(b"5" * 50))
    base = [
        "--composition",
        str(tmp_path / "composition.toml"),
        "gc",
        "--json",
        "--dry-run",
        "--grace",
        "0 s",
    ]
    alone, spread_out = (
        CliRunner().invoke(app, [*base, root, *more]) for more in ([], ["--dask", cluster.scheduler_address])
    )
    assert alone.exit_code == spread_out.exit_code == 0, spread_out.output
    told, told_too = json.loads(alone.stdout), json.loads(spread_out.stdout)
    assert {**told, "cutoff": 0, "goes_from": 0} == {**told_too, "cutoff": 0, "goes_from": 0}
    assert told["roots"] == 1


def digests(told: Any) -> list[str]:
    return [found["digest"] for found in told["findings"]]


def test_no_scheduler(stores: Composition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the address."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(clusters, "_CONNECT_SECONDS", 1.0)
    base = ["--composition", str(tmp_path / "composition.toml")]
    for command, address in itertools.product(("verify", "gc"), ("tcp://127.0.0.1:9", "nonsense://x")):
        more = [str(B3Digest.of(b"root"))] if command == "gc" else []
        result = CliRunner().invoke(app, [*base, command, *more, "--dask", address])
        assert result.exit_code == 1
        assert f"`{address}` is unavailable" in result.stderr
        assert "Traceback" not in result.stderr
