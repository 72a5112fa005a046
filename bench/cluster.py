"""What bulk work costs on a cluster of Dask, beside one process; and that a lost worker changes nothing.

For stores of 1,000 small blobs and more, each of one chunk, in a folder: `verify`, and a rehearsal of `gc`
for which half of the blobs stay, by one process and by four worker processes. Prints CPU seconds of all
processes together, and draws them. In the largest store both are done once more, and a worker is killed
on the way: what comes must be equal to what one process finds. Needs `dask[distributed]` and matplotlib.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plots import HERE, Series, draw
from spreading import TOML, fill

from castore import B3Digest, Composition
from castore.contract.capabilities import BlobLister
from castore.threads.pool import Pool
from castore.upkeep import collect, spread, verify

WORKERS = 4
DAMAGED = 7


def facts_of(report: Any) -> tuple[Any, ...]:
    """Return what must be equal of two reports."""
    findings = {(found.what, found.digest, found.code) for found in report.findings}
    return findings, report.tally.blobs, report.tally.chunks


class Store:
    """A store, work on it by one process and by a cluster, and what that costs."""

    def __init__(self, stores: Composition, client: Any) -> None:
        self.stores = stores
        self.client = client
        self.one = Pool(1)
        self.now = time.time() + 1e7
        lister = stores.blobs().capability(BlobLister)
        assert lister is not None
        self.roots: list[B3Digest] = sorted(lister.list_blobs())[::2]
        self.done = threading.Event()

    def submit(self, *call: Any) -> Any:
        """Run a function on the cluster, again if its worker is lost."""
        return self.client.submit(*call, pure=False, retries=3)

    def verify_alone(self) -> Any:
        return facts_of(verify(self.stores.blobs(), pool=self.one))

    def verify_spread(self) -> Any:
        return facts_of(spread("verify", self.stores, "root", self.submit, parts=64, progress=self._told))

    def collect_alone(self) -> Any:
        return self._collected(None)

    def collect_spread(self) -> Any:
        return self._collected(spread("mark", self.stores, "root", self._submit_told, prove=False))

    def _submit_told(self, *call: Any) -> Any:
        task = self.submit(*call)
        task.add_done_callback(self._told)
        return task

    def _told(self, _: object) -> None:
        self.done.set()

    def _collected(self, marker: Any) -> Any:
        gone: list[str] = []
        collect(
            self.stores.blobs(),
            self.roots,
            grace_seconds=1.0,
            dry_run=True,
            pool=self.one,
            marker=marker,
            clock=lambda: self.now,
            on_gone=lambda item: gone.append(item.key),
        )
        return gone

    def cpu_seconds(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return what this process and the workers have spent, and what came."""
        before = self._spent()
        came = work()
        return self._spent() - before, came

    def _spent(self) -> float:
        spent: dict[str, float] = self.client.run(time.process_time)
        return time.process_time() + sum(spent.values())

    def kill_one_when_something_is_done(self) -> threading.Thread:
        """Kill a worker as soon as the first task has ended."""
        pid = next(iter(self.client.run(os.getpid).values()))
        self.done.clear()

        def kill() -> None:
            self.done.wait()
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        return killer


def spoil(folder: Path) -> None:
    """Damage a few chunks: a report that is equal says something then."""
    chunks = sorted((folder / "store/chunks").rglob("*/*/*"))
    for path in chunks[:: len(chunks) // DAMAGED][:DAMAGED]:
        path.chmod(0o600)
        path.write_bytes(b"spoiled")


def main() -> None:
    """Measure, draw, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=10**6, help="blobs of the largest store (default 10^6)")
    parser.add_argument("--scratch", type=Path, help="where to work (default: where temporary files go)")
    parser.add_argument("--plots", type=Path, default=HERE / "plots", help="where the drawing goes")
    given = parser.parse_args()
    series: Series = {}
    distributed: Any = importlib.import_module("distributed")  # It has no types.
    with (
        distributed.LocalCluster(WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        count = 1000
        while count <= given.most:
            with tempfile.TemporaryDirectory(prefix=".bench-", dir=given.scratch) as name:
                measure(Path(name), count, client, series, last=count * 10 > given.most)
            count *= 10
        # Before the cluster is closed: with a worker lost that may take long.
        given.plots.mkdir(exist_ok=True)
        draw(
            series,
            title=f"Bulk work on a folder, alone and on {WORKERS} workers of Dask",
            x="blobs of one chunk",
            y="CPU seconds of all processes",
            place=given.plots / "cluster",
        )


def measure(folder: Path, count: int, client: Any, series: Series, *, last: bool) -> None:
    """Measure one store; in the last one lose a worker, too."""
    path = folder / "composition.toml"
    path.write_text(TOML)
    with Composition.from_toml(path) as stores:
        fill(stores, folder, count)
        spoil(folder)
        store = Store(stores, client)
        works = {
            "verify": (store.verify_alone, store.verify_spread),
            "gc, rehearsal": (store.collect_alone, store.collect_spread),
        }
        for work, (alone, spread_out) in works.items():
            seconds, wanted = store.cpu_seconds(alone)
            more, came = store.cpu_seconds(spread_out)
            assert came == wanted, work
            series.setdefault(f"{work}, one process", []).append((count, seconds))
            series.setdefault(f"{work}, {WORKERS} workers", []).append((count, more))
            print(f"{count:>9,}  {work:15}{seconds:>8.2f} s alone{more:>8.2f} s spread", flush=True)
        # At the end: a worker that begins anew has spent nothing.
        for work, (alone, spread_out) in works.items() if last else ():
            wanted = alone()
            killer = store.kill_one_when_something_is_done()
            assert spread_out() == wanted, work
            killer.join()
            print(f"{count:>9,}  {work:15}a worker killed: the same", flush=True)
        store.one.close()


if __name__ == "__main__":
    main()
