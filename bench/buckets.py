"""What a bucket costs by each driver: requests, seconds and processor, near and 30 ms away.

The server is that of the tests, in this process; the client is a process of its own, so that its processor's
time is that of castore and the driver alone.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DRIVERS = ("fsspec", "obstore")
SMALL, BIG = 4096, 32 << 20


def client(driver: str, endpoint: str, kind: str, count: int) -> dict[str, dict[str, float]]:
    """Put and get blobs; return the seconds and the processor's time of each."""
    import castore  # noqa: PLC0415 - the other process needs none

    text = f"""
[blobservices.root]
type = "{kind}"
object_store_url = "s3://bucket/bench"
driver = "{driver}"
object_store_options = {{ key = "id", secret = "secret", region = "us-east-1", endpoint_url = "{endpoint}" }}
"""
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = random.Random(7)
        files = [Path(folder, f"{number:05d}") for number in range(count)]
        for file in files:
            file.write_bytes(made.randbytes(SMALL))
        big = Path(folder, "big")
        big.write_bytes(made.randbytes(BIG))
        path = Path(folder, "composition.toml")
        path.write_text(text)

        def measure(name: str, call: Callable[[], Any]) -> Any:
            print(name, flush=True)
            sys.stdin.readline()
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            found = call()
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            measured[name] = {"seconds": seconds, "cpu": used}
            return found

        with castore.Composition.from_toml(path) as stores:
            blobs = stores.blobs()
            blobs.has(castore.B3Digest.of(b"so that the driver is imported, and connected"))
            small = measure("put small", lambda: list(blobs.put_files(files)))
        with castore.Composition.from_toml(path) as stores:
            blobs = stores.blobs()
            blobs.has(castore.B3Digest.of(b"as above"))
            measure("has small", lambda: blobs.missing(small))
            measure("get small", lambda: sum(1 for _ in blobs.read_many(small)))
            one = measure("put big", lambda: blobs.put_file(big))
            measure("get big", lambda: blobs.read(one))
    print(json.dumps(measured), flush=True)
    return measured


def run(driver: str, kind: str, count: int, delay: float) -> dict[str, dict[str, float]]:
    """Run a client; return what it measured, with the requests that came."""
    sys.path.insert(0, str(ROOT))
    from tests.plugins.s3_server import S3Server  # noqa: PLC0415 - it lies elsewhere

    requests: dict[str, int] = {}
    with S3Server(delay=delay) as server:
        command = [sys.executable, __file__, "--client", driver, server.endpoint, kind, str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            name = ""
            for line in process.stdout:
                if name:
                    requests[name] = len(server.requests)
                if line.startswith("{"):
                    measured: dict[str, dict[str, float]] = json.loads(line)
                    break
                name = line.strip()
                server.requests.clear()
                process.stdin.write("\n")
                process.stdin.flush()
    return {name: {**row, "requests": requests[name]} for name, row in measured.items()}


def main() -> None:
    """Print a table, of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", type=int, default=256, help="small files, of 4 KiB")
    parser.add_argument("--kind", default="objectstore", choices=("objectstore", "packed"))
    parser.add_argument("--delay", type=float, nargs="*", default=[0.0, 30.0], help="of each request, in ms")
    options = parser.parse_args()
    if options.client:
        driver, endpoint, kind, count = options.client
        client(driver, endpoint, kind, int(count))
        return
    print("| | ms away | driver | requests | seconds | ms of processor a request |")
    print("|---|---|---|---|---|---|")
    for delay in options.delay:
        found: dict[str, list[dict[str, dict[str, float]]]] = {driver: [] for driver in DRIVERS}
        for _ in range(options.runs):
            for driver in DRIVERS:  # In turn: what else the machine does hits both.
                found[driver].append(run(driver, options.kind, options.files, delay / 1000))
        for name in found["fsspec"][0]:
            for driver, runs in found.items():
                one: Counter[str] = Counter()
                for key in ("requests", "seconds", "cpu"):
                    one[key] = statistics.median(entry[name][key] for entry in runs)  # type: ignore[assignment]
                each = one["cpu"] / max(one["requests"], 1) * 1000
                row = f"| {name} | {delay:.0f} | {driver} | {one['requests']:.0f} | {one['seconds']:.2f}"
                print(f"{row} | {each:.2f} |", flush=True)


if __name__ == "__main__":
    main()
