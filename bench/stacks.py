"""What does a stack cost beside what it is made of?

5,000 files of 1 to 4 KiB, new and again; a new file of 256 MiB, a known one of 128 MiB, and reading 256 MiB:
each through a stack of services and through the bare store, by turns, each turn in a fresh folder. What is
shown are the medians of the quotients, times of the stack over those of the bare store. `python
bench/stacks.py` takes about an hour; `--pairs 3 --only retry --only lru` less. On a machine with other
programs at work `--cpu` compares the CPU time of this process instead.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from corpora import source_text, write_random
from even import settle

from castore import BlobService, Composition
from castore.metrics.shell import bare

FILES = 5_000
MIB = 1 << 20
NEW, KNOWN, READ = 256 * MIB, 128 * MIB, 256 * MIB

Tables = dict[str, dict[str, Any]]


def wrapped(tables: Tables, *layers: dict[str, Any]) -> Tables:
    """Return *tables*, whose `root` becomes `store`, with wrappers around it, the outermost first."""
    names = ["root", *(f"layer{number}" for number in range(1, len(layers))), "store"]
    found: Tables = {"store": tables["root"]}
    for number, layer in enumerate(layers):
        found[names[number]] = {**layer, "inner": f"&{names[number + 1]}"}
    return found


def store(backend: str, durability: str, place: str) -> dict[str, Any]:
    """Return the table of a bare store in a folder."""
    if backend == "sqlite":
        return {"type": "sqlite", "path": f"{place}/store.db", "durability": durability}
    return {"type": "objectstore", "object_store_url": f"file:{place}", "durability": durability}


RETRY = {"type": "retry"}
LIMIT = {"type": "limit", "concurrency": 1024, "operations_per_second": 1e8, "bytes_per_second": 1 << 40}
BREAKER = {"type": "breaker"}
VERIFY = {"type": "verify"}
LRU = {"type": "lru", "max_bytes": 1 << 40}


def stacks(backend: str, durability: str) -> dict[str, Callable[[Path], Tables]]:
    """Return what makes the tables of each stack in a folder."""

    def one(place: str) -> dict[str, Any]:
        return store(backend, durability, place)

    def around(*layers: dict[str, Any]) -> Callable[[Path], Tables]:
        return lambda _: wrapped({"root": one("store")}, *layers)

    return {
        "metrics": lambda _: {"root": one("store")},
        "retry": around(RETRY),
        "limit": around(LIMIT),
        "breaker": around(BREAKER),
        "verify": around(VERIFY),
        "lru": around(LRU),
        "fallback": lambda _: {
            "root": {"type": "fallback", "services": ["&a", "&b"]},
            "a": one("a"),
            "b": one("b"),
        },
        "mirror of two": lambda _: {
            "root": {"type": "mirror", "services": ["&a", "&b"]},
            "a": one("a"),
            "b": one("b"),
        },
        "cache, both": lambda _: {
            "root": {"type": "cache", "near": "&near", "far": "&far", "write": "both"},
            "near": one("near"),
            "far": one("far"),
        },
        "five wrappers": around(RETRY, LIMIT, BREAKER, VERIFY),
        "five and lru": around(RETRY, LIMIT, BREAKER, VERIFY, LRU),
    }


ASKED = {
    "small files": {
        **dict.fromkeys(("metrics", "retry", "limit", "breaker", "verify"), 1.15),
        "lru": 1.3,
        "fallback": 1.3,
        "mirror of two": 2.3,
        "cache, both": 2.3,
        "five wrappers": 1.4,
        "five and lru": 1.9,
    },
    "large files": {
        **dict.fromkeys(("metrics", "retry", "limit", "breaker", "verify", "lru", "five wrappers"), 1.1),
        "fallback": 1.1,
        "mirror of two": 2.2,
        "cache, both": 2.2,
    },
    "reading": {
        **dict.fromkeys(
            ("metrics", "retry", "limit", "breaker", "lru", "fallback", "mirror of two"), 1 / 0.93
        ),
        "cache, both": 1 / 0.93,
        "verify": 1 / 0.85,
    },
}
"""How many times the bare store's time a stack may take."""


def small_files(folder: Path) -> list[Path]:
    """Write files of 1 to 4 KiB, which compress as source text does."""
    chance = random.Random(1)
    text = b""
    for data in source_text():
        text += data
        if len(text) > 16 * MIB:
            break
    paths = []
    for number in range(FILES):
        start = chance.randrange(len(text) - 4096)
        path = folder / f"{number:05}"
        path.write_bytes(b"%d\n" % number + text[start : start + chance.randrange(1 << 10, 4 << 10)])
        paths.append(path)
    return paths


Timed = Callable[[Callable[[], object]], float]


def timed_by(clock: Callable[[], float]) -> Timed:
    """Return what returns the seconds that a call takes."""

    def timed(call: Callable[[], object]) -> float:
        begun = clock()
        call()
        return clock() - begun

    return timed


def repeated(timed: Timed, call: Callable[[], object]) -> float:
    """Return the median of some calls that take a tenth of a second: one says more of the machine."""
    return statistics.median(timed(call) for _ in range(5))


def read_all(service: BlobService, digest: Any) -> None:
    """Read a blob from start to end."""
    with service.open(digest) as reader:
        while reader.read_view():
            pass


def turns(
    make: Callable[[Path], Tables], scratch: Path, works: set[str], sources: Path, timed: Timed
) -> dict[str, float]:
    """Do all works once through one stack in a fresh folder; return their seconds."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    tables = make(folder)
    alone = tables.pop("bare", None) is not None
    found = {}
    settle()
    with Composition.from_mapping({"blobservices": tables}, base=folder) as composition:
        service = composition.blobs()
        service = bare(service) if alone else service
        if "small files" in works:
            paths = sorted((sources / "small").iterdir())
            found["small files, new"] = timed(lambda: list(service.put_files(paths)))
            found["small files, again"] = timed(lambda: list(service.put_files(paths)))
        if "large files" in works:
            found["large file, new"] = timed(lambda: service.put_file(sources / "new"))
            service.put_file(sources / "known")
            found["large file, again"] = repeated(timed, lambda: service.put_file(sources / "known"))
        if "reading" in works:
            digest = service.put_file(sources / "new")
            read_all(service, digest)
            found["reading"] = repeated(timed, lambda: read_all(service, digest))
    return found


def measure(
    backend: str, durability: str, options: argparse.Namespace, scratch: Path, sources: Path
) -> Iterator[tuple[str, str, list[float]]]:
    """Yield, for each stack and work, the quotients of all pairs."""
    alone: Callable[[Path], Tables] = lambda _: {  # noqa: E731 - as those of the stacks
        "bare": {},
        "root": store(backend, durability, "store"),
    }
    works = set(options.work or ASKED)
    timed = timed_by(time.process_time if options.cpu else time.perf_counter)
    for name, make in stacks(backend, durability).items():
        if options.only and name not in options.only:
            continue
        quotients: dict[str, list[float]] = {}
        for pair in range(options.pairs):
            first, second = (alone, make) if pair % 2 else (make, alone)
            ran = {
                first: turns(first, scratch, works, sources, timed),
                second: turns(second, scratch, works, sources, timed),
            }
            for work, seconds in ran[make].items():
                quotients.setdefault(work, []).append(seconds / ran[alone][work])
        for work, values in quotients.items():
            yield name, work, values
        if options.clean:
            for entry in list(scratch.iterdir()):
                shutil.rmtree(entry)


def asked(name: str, work: str) -> float | None:
    """Return how many times the bare time a stack may take for a work."""
    section = next(section for section in ASKED if work.startswith(section.rstrip("s")))
    return ASKED[section].get(name)


def main() -> None:
    """Measure, and print a table for people, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", action="append", help="a stack, as `retry`; more than once for several")
    parser.add_argument("--work", action="append", choices=list(ASKED))
    parser.add_argument("--backend", action="append", choices=["objectstore", "sqlite"])
    parser.add_argument("--durability", action="append", choices=["full", "process"])
    parser.add_argument("--scratch", type=Path, help="a folder on a disk; by default one for temporary files")
    parser.add_argument("--clean", action="store_true", help="remove what was stored after each stack")
    parser.add_argument("--cpu", action="store_true", help="compare CPU time")
    parser.add_argument("--json", type=Path, help="where to write all quotients")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as place:
        sources, scratch = Path(place, "sources"), Path(place, "scratch")
        (sources / "small").mkdir(parents=True)
        scratch.mkdir()
        small_files(sources / "small")
        write_random(sources / "new", NEW, seed=2)
        write_random(sources / "known", KNOWN, seed=3)
        for backend in options.backend or ["objectstore", "sqlite"]:
            for durability in options.durability or ["full", "process"]:
                print(f"\n{backend}, {durability}")
                for name, work, values in measure(backend, durability, options, scratch, sources):
                    most = asked(name, work)
                    spread = f"{min(values):.2f}..{max(values):.2f}"
                    limit = "" if most is None else f"<={most:.2f}"
                    middle = statistics.median(values)
                    print(f"  {name:16} {work:20} {middle:6.2f} {spread:>14} {limit:>7}", flush=True)
                    rows.append([backend, durability, name, work, values])
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
