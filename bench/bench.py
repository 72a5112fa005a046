"""How fast castore is, as ratios: to the limit of the hardware, and to what people would use instead.

`make bench` measures everything, five times over, and takes about half an hour; `bench.py --quick` does it
with small corpora, once. Each round takes the costs of the steps, the works and the peers in turn, so that
each ratio is of figures that were taken within a minute; what is shown is the median of the ratios, and the
lowest and the highest of them. `bench/README.md` tells how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import small_blobs
from even import fill_memory, settle
from limits import STEPS, all_at_once, cost_of
from peers import PEERS, Ran
from table import Table

HERE = Path(__file__).parent
MIB = 1 << 20
_FILLED = 24
"""So many times the size of a corpus a round may write."""
DELAYED = "30 ms a request"

Figures: TypeAlias = "dict[str, float]"
"""What one round found: the names of figures, and their values."""


def work(*arguments: object) -> dict[str, Any]:
    """Do a piece of work in a process of its own."""
    settle()
    command = [sys.executable, str(HERE / "work.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def large(path: Path, scratch: Path) -> Iterator[tuple[str, Figures]]:
    """Measure one large file, as shares of the limit."""
    size = path.stat().st_size
    costs = work("costs", scratch, path)
    limits = {name: cost_of(costs, steps) * size for name, steps in STEPS.items()}
    process, full, out = scratch / "process", scratch / "full", scratch / "out"

    def figures(found: dict[str, Any], limit: float, *, amount: float = size) -> Figures:
        ran = {"MB/s": amount / found["seconds"] / 1e6, "peak MiB": found["peak MiB"]}
        return ran | {"ratio": limit / found["seconds"], "ratio of CPU": _of_cpu(limit, found["cpu"])}

    found = work("put", process, path, "--durability", "process")
    digest = found["digest"]
    yield "put, process", figures(found, limits["put"])
    yield "put, full", figures(work("put", full, path, "--durability", "full"), limits["put"])
    again = limits["put again"]
    yield "put again, streamed", figures(work("stream", process, path, "--durability", "process"), again)
    yield "put again, put_file", figures(work("put", process, path, "--durability", "process"), again)
    yield "get to nowhere", figures(work("get", process, digest), limits["get"])
    yield (
        "get to a file",
        figures(work("get-file", process, digest, "--output", out), limits["get to a file"]),
    )
    found = work("random", process, digest)
    touched = cost_of(costs, STEPS["random reads"]) * found["touched"]
    # One reader is one thread's worth of work: it reads where nothing could be fetched ahead.
    touched *= os.cpu_count() or 1
    yield "random reads of 64 KiB", figures(found, touched, amount=found["read"])


def _of_cpu(limit: float, cpu: float) -> float:
    return limit * (os.cpu_count() or 1) / cpu


def small(folder: Path, scratch: Path) -> Iterator[tuple[str, Figures]]:
    """Measure many small files beside a bare loop that writes the same objects."""
    paths = sorted(folder.rglob("*.txt"))
    rates = small_blobs.measure(scratch, paths)
    for (durability, tag, name), rate in rates.items():
        if tag in ("objectstore", "sqlite"):
            bare = rates[durability, "same keys", name]
            flat = rates[durability, "bare loop", name]
            yield (
                f"{name}, {tag}, {durability}",
                {"per s": rate, "ratio": rate / bare, "to 256 folders": rate / flat},
            )


def waiting(path: Path, size: int, scratch: Path) -> Iterator[tuple[str, Figures]]:
    """Measure a store that takes 30 ms for each request, beside one request at a time."""
    some = min(size, 24 * MIB)
    alone = work("one-at-a-time", scratch / "alone", path, "--size", some)
    found = work("waiting", scratch / "waiting", path, "--size", size)
    for name in ("get", "put"):
        one = alone[name] / alone["chunks"]
        each = found[name] / found["chunks"]
        yield name, {"MB/s": size / found[name] / 1e6, "ratio": one / each, "peak MiB": found["peak MiB"]}


def settled(run: Callable[[], Ran]) -> Ran:
    """Run a peer when nothing waits to be written."""
    settle()
    return run()


def peers(source: Path, scratch: Path) -> Iterator[tuple[str, Figures]]:
    """Measure whole processes of castore and of its peers."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    ran: dict[str, dict[str, Ran]] = {}
    stored: dict[str, float] = {}
    for peer_type in PEERS:
        if peer_type.available():
            peer = peer_type(scratch / peer_type.name.replace(", ", "-"), source)
            works = {"put": settled(peer.put)}
            stored[peer.name] = peer.stored_bytes() / size
            ran[peer.name] = works | {"put again": settled(peer.put), "get": settled(peer.get)}
    for name in next(iter(ran.values())):
        others = {who: works[name].seconds for who, works in ran.items() if not who.startswith("castore")}
        for who, works in ran.items():
            one = works[name]
            best = min(others.values(), default=one.seconds)
            yield (
                f"{name}, {who}",
                {
                    "MB/s": size / one.seconds / 1e6,
                    "ratio": best / one.seconds,
                    "peak MiB": one.peak,
                    "stored": stored[who],
                },
            )


def start_up(scratch: Path) -> Iterator[tuple[str, Figures]]:
    """Measure `castore has` beside the imports that no program can do without."""
    folder = scratch / "start-up"
    castore = PEERS[0](folder, HERE / "README.md")
    digest = castore.put().output.split()[0]
    times = {}
    for name, command in (
        ("has", [castore.program, "has", digest]),
        ("imports", [sys.executable, "-c", "import blake3, zstandard, fsspec"]),
    ):
        start = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True)
        start()  # It may compile what it imports.
        begun = time.perf_counter()
        for _ in range(10):
            start()
        times[name] = (time.perf_counter() - begun) / 10
    yield "castore has", {"ms": times["has"] * 1000, "ratio": times["has"] / times["imports"]}


def rounds(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str, Figures]]:
    """Make the corpora, then yield what each round finds: the section, the work, its figures."""
    sources = scratch / "sources"
    sources.mkdir()
    size = options.size * MIB
    # In a process of its own: what a process needs, those that it starts are said to have needed, too.
    subprocess.run([sys.executable, HERE / "corpora.py", sources, str(size), str(options.files)], check=True)
    for number in range(options.runs):
        print(f"round {number + 1} of {options.runs} ...", file=sys.stderr)
        place = scratch / f"round-{number}"
        place.mkdir()
        fill_memory(scratch, sources, _FILLED * size)
        sections = {
            "text": partial(large, sources / "text"),
            "random": partial(large, sources / "random"),
            "small files": partial(small, sources / "small"),
            DELAYED: partial(waiting, sources / "text", size),
            "start-up": start_up,
            "peers, text": partial(peers, sources / "text"),
            "peers, random": partial(peers, sources / "random"),
            "peers, edited versions": partial(peers, sources / "versions"),
            "peers, small files": partial(peers, sources / "small"),
        }
        for section, measure in sections.items():
            if not options.only or any(section.startswith(word) for word in options.only):
                folder = place / section.replace(", ", "-").replace(" ", "-")
                folder.mkdir()
                for name, figures in measure(folder):
                    yield section, name, figures
        shutil.rmtree(place)


def machine() -> dict[str, Any]:
    """Return what there is to know of where this ran."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "castore": version("castore"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "at once": round(all_at_once(), 2),
        "processor": platform.machine(),
        "system": platform.system(),
    }


def main() -> None:
    """Print the table, and store what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="MiB of each large corpus (default 1024)")
    parser.add_argument("--files", type=int, default=20_000, help="how many small files (default 20000)")
    parser.add_argument(
        "--runs", type=int, default=5, help="rounds of which the medians are shown (default 5)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 64 MiB and 1000 files")
    parser.add_argument("--only", action="append", metavar="SECTION", help="measure only what begins so")
    parser.add_argument("--scratch", type=Path, default=Path(), help="where to work (default: here)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="JSON", help="show several results as one")
    options = parser.parse_args()
    # With that set Python would compile castore anew in each process.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if options.quick:
        options.size, options.files, options.runs = 64, 1000, 1
    table = Table()
    if options.merge:
        abouts = [table.take(json.loads(path.read_text())) for path in options.merge]
        finish(table, abouts[0] | {"runs": sum(about["runs"] for about in abouts)}, options.results)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix=".bench-") as name:
        for section, work_name, figures in rounds(options, Path(name).absolute()):
            table.add(section, work_name, figures)
    about = machine() | {"MiB": options.size, "files": options.files, "runs": options.runs}
    finish(table, about, options.results)


def finish(table: Table, about: dict[str, Any], results: Path) -> None:
    """Show and store the table."""
    print(table.text(about))
    results.mkdir(exist_ok=True)
    place = results / f"{about['date']}-{about['MiB']}.json"
    place.write_text(json.dumps({"about": about, "figures": table.rows()}, indent=1) + "\n")
    print(f"\nstored in {place}")


if __name__ == "__main__":
    main()
