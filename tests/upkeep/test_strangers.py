"""Whatever others keep in, above and below a store stays as it is, whoever looks after the store."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest, BlobService, Composition, UnavailableError
from castore.contract.capabilities import ChunkStore
from castore.contract.upkeep import Sweepable
from castore.upkeep import collect

OLD = 1_000_000_000.0
HEX = "c0ffee" * 10 + "abcd"
MARK = "0b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a"

TABLES: dict[str, dict[str, dict[str, object]]] = {
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./place/store"}},
    "lru": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "100 MB"},
        "store": {"type": "objectstore", "object_store_url": "file:./place/store"},
    },
    "sqlite": {"root": {"type": "sqlite", "path": "./place/store/blobs.sqlite", "create": "path"}},
    "lru over sqlite": {
        "root": {"type": "lru", "inner": "&store", "max_bytes": "100 MB"},
        "store": {"type": "sqlite", "path": "./place/store/blobs.sqlite", "create": "path"},
    },
    "objectstore by fsspec": {
        "root": {"type": "objectstore", "object_store_url": "local://{folder}/place/store"}
    },
}

PLACES = (
    ".", "store", "store/blobs", "store/blobs/b3", "store/blobs/b3/c0ff", "store/chunks", "store/chunks/b3",
    "store/chunks/b3/c0ff", "store/leases", "store/being-filled", "store/quarantine/blobs", "store/lru",
    "store/lru/owners", "store/lost+found", "store/chunks/b3/notes", "store/blobs.sqlite-being-filled",
    "store/blobs.sqlite-lru", "store/blobs.sqlite-lru/owners",
)  # fmt: skip

FILES = (
    "notes.txt", "todo#1", "todo#12", "#1", HEX[:-1], HEX + "0", HEX.upper(), "f" * 64,
    "f" * 64 + "#1",
    f"{HEX}#notes", f"{HEX}#0", f"{HEX}#01", f"{HEX}~1", f"{HEX}.bak", f"{HEX} #1", MARK.upper(),
    f"{MARK}~", MARK.replace("-4d43", "-1d43"), MARK, "contract.pdf", ".hidden", "c0ff.txt",
    f"blobs.sqlite-lease-{MARK}",
    "blobs.sqlite-lease-x", "journal.sqlite.bak", "castore.lock.txt", "a\nb", "\udcff", "leases.zip", "#",
    "~",
    "0" * 32, "d41d8cd98f00b204e9800998ecf8427e",
)  # fmt: skip

LINKS: dict[str, str] = {
    "to a file": "{folder}/mine/file", "to a folder": "{folder}/mine", "to here": ".", "to above": "..",
    "far above": "../../../..", "to nowhere": "nowhere", "to itself": "to itself",
    "cafe": "{folder}/mine", "beef": "../..", "dead": ".", "f00d": "nowhere",
    f"{'c0ff' + 'a' * 60}#1": "{folder}/mine/file", f"{'c0ff' + 'b' * 60}#2": "{folder}/mine",
    f"{'c0ff' + 'c' * 60}#3": "nowhere", "c0ff" + "d" * 60: "{folder}/mine/file",
    "c0ff" + "e" * 60: "nowhere",
    "1b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a": "{folder}/mine/empty",
    "2b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a": "{folder}/mine", "link#7": "{folder}/mine/file",
    "loop": "loop/..",
}  # fmt: skip


def add_strangers(folder: Path) -> int:
    """Files and links of many kinds, all old, none empty where castore has empty files."""
    mine = folder / "mine"
    for name in ("file", f"{HEX}#1", MARK, f"c0ff/c0ff{'a' * 60}#1", "todo#1", f"b3/c0ff/c0ff{'a' * 60}"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(f"mine: {name}")
    for name in ("empty", "3b7cf5cc-5a52-4d43-9c7c-c1a4a30e6b1a"):
        (mine / name).touch()
    count = 0
    for name in PLACES:
        place = folder / "place" / name
        place.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            with contextlib.suppress(FileExistsError), (place / file).open("x") as stream:
                stream.write(f"{name}/{file!r}")
                count += 1
        for link, target in LINKS.items():
            (place / link).symlink_to(target.format(folder=folder))
            count += 1
        os.mkfifo(place / f"{'c0ff' + 'f' * 60}#4")
        (place / f"{'c0ff' + 'f' * 60}#5/deep").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as there, contextlib.chdir(place):
            there.bind("socket")
        count += 3
    for path in everything(folder):
        os.utime(path, (OLD, OLD), follow_symlinks=False)
    return count


def everything(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):
        yield from (Path(top, name) for name in (*folders, *files))


def look_of(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return ("folder",)  # What is in it may change.
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = path.readlink()
    elif stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino, content


def looks_of(folder: Path) -> dict[str, tuple[object, ...]]:
    return {str(path.relative_to(folder)): look_of(path) for path in everything(folder)}


def write_composition(folder: Path, kind: str) -> Path:
    text = json.dumps(TABLES[kind]).replace("{folder}", str(folder))
    lines = []
    for name, table in json.loads(text).items():
        lines += [f"[blobservices.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path = folder / "composition.toml"
    path.write_text("\n".join(lines))
    return path


def run(composition: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "castore", "--composition", str(composition), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def age_what_is_stored(folder: Path) -> None:
    """Make rows and files old, also in the account of times."""
    for path in everything(folder / "place"):
        if not path.is_symlink():
            os.utime(path, (OLD, OLD))
    file = folder / "place/store/blobs.sqlite"
    if file.exists():
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            for table in ("chunks", "indexes"):
                database.execute(f"UPDATE {table} SET modified = ?", (int(OLD * 1000),))


def leave_things(folder: Path, kind: str) -> list[Path]:
    """What killed programs of castore leave, all old."""
    store = folder / "place/store"
    left = {
        "objectstore": [
            f"blobs/b3/c0ff/c0ff{'1' * 60}#1", f"chunks/b3/c0ff/c0ff{'2' * 60}#13",
            f"chunks/b3/c0ff/c0ff{'2' * 60}#0123456789abcdef", f"leases/{uuid.uuid4()}",
            f"being-filled/{HEX[::-1]}",
        ],
        "sqlite": [f"blobs.sqlite-lease-{uuid.uuid4()}", f"blobs.sqlite-being-filled/{HEX[::-1]}"],
        "objectstore by fsspec": [f"chunks/b3/c0ff/c0ff{'2' * 60}#0123456789abcdef", "leases/" + "1" * 32],
    }[kind.removeprefix("lru over ").replace("lru", "objectstore")]  # fmt: skip
    paths = [store / name for name in left]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"castore" if path.name == "1" * 32 else b"half" if "#" in path.name else b"")
        os.utime(path, (OLD, OLD))
    return paths


@pytest.mark.parametrize("kind", TABLES)
def test_strangers_stay(tmp_path: Path, kind: str) -> None:
    """A thousand of them; garbage and left-overs go, and a rehearsal says which, and changes nothing.

    It takes seconds: it runs four commands.
    """
    (tmp_path / "place").mkdir()
    composition = write_composition(tmp_path, kind)
    strangers = add_strangers(tmp_path)
    assert strangers >= 1000
    before = looks_of(tmp_path)
    with Composition.from_toml(composition) as stores:
        kept = stores.blobs().write(random.Random(1).randbytes(700_000))
        stores.blobs().write(b"garbage")
    left = leave_things(tmp_path, kind)
    age_what_is_stored(tmp_path)
    stored = looks_of(tmp_path)

    rehearsed = json.loads(run(composition, "--json", "gc", "--dry-run", str(kept)))
    assert {name: look for name, look in looks_of(tmp_path).items() if "lru" not in name} == {
        name: look for name, look in stored.items() if "lru" not in name
    }
    collected = json.loads(run(composition, "--json", "gc", str(kept)))

    after = looks_of(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert {item["key"] for item in rehearsed["items"]} == {item["key"] for item in collected["items"]}
    assert [path for path in left if path.exists()] == []
    assert collected["residue"]["gone"]["count"] == len(left)
    assert collected["chunks"]["gone"]["count"] == 1
    assert run(composition, "list").split() == [str(kept)]
    run(composition, "get", str(kept), "-o", str(tmp_path / "out"))


@pytest.mark.parametrize("kind", ["objectstore", "sqlite"])
def test_what_lives_stays(tmp_path: Path, kind: str) -> None:
    """A lease that somebody has keeps what was put since, however old it is."""
    (tmp_path / "place").mkdir()
    with Composition.from_toml(write_composition(tmp_path, kind)) as stores:
        blobs = stores.blobs()
        blobs.write(b"garbage")
        name = f"leases/{MARK}" if kind == "objectstore" else f"blobs.sqlite-lease-{MARK}"
        lease = tmp_path / "place/store" / name
        lease.parent.mkdir(exist_ok=True)
        with lease.open("w") as file:
            os.utime(lease, (OLD, OLD))
            fcntl.flock(file, fcntl.LOCK_EX)
            age_what_is_stored(tmp_path)
            collected = collect(blobs, (), no_roots=True)
            assert collected.leased_since == OLD
            assert not any(amount.count for amount in collected.gone.values())
        collected = collect(blobs, (), no_roots=True)
        assert collected.gone["chunk"].count == 1
        assert not lease.exists()


def take_lease(blobs: BlobService) -> None:
    store = blobs.capability(ChunkStore)
    assert store is not None
    with store.lease():
        pass


LINKED: dict[str, tuple[str, tuple[str, ...], Callable[[Any], object]]] = {
    "leases": ("objectstore", ("store/leases",), lambda blobs: collect(blobs, (), no_roots=True)),
    "leases of a writer": ("objectstore", ("store/leases",), take_lease),
    "indexes": ("objectstore", ("store/blobs/b3",), lambda blobs: collect(blobs, (), no_roots=True)),
    "chunks": ("objectstore", ("store/chunks/b3",), lambda blobs: collect(blobs, (), no_roots=True)),
    "a journal": ("lru", ("store/lru",), lambda blobs: blobs.write(b"?")),
    "those who share a journal": ("lru", ("store/lru/owners",), lambda blobs: blobs.write(b"?")),
}


@pytest.mark.parametrize("case", LINKED)
def test_a_linked_folder_is_refused(tmp_path: Path, case: str) -> None:
    """It is said which one; what is in the folder that it leads to stays."""
    kind, links, call = LINKED[case]
    (tmp_path / "place").mkdir()
    add_strangers(tmp_path)
    for link in links:
        subprocess.run(["rm", "-r", tmp_path / "place" / link], check=True)
        (tmp_path / "place" / link).symlink_to(tmp_path / "mine")
    before = looks_of(tmp_path / "mine")
    said = f"This is a link.*{links[0]}"
    with Composition.from_toml(write_composition(tmp_path, kind)) as stores:
        blobs = stores.blobs()
        with pytest.raises(UnavailableError, match=said):
            call(blobs)
    assert looks_of(tmp_path / "mine") == before


FILES_OF_ITS_OWN = {
    "castore.lock": ("objectstore", lambda blobs: collect(blobs, (), no_roots=True)),
    "lru/journal.sqlite": ("lru", lambda blobs: blobs.write(b"?")),
    "lru/journal.sqlite-wal": ("lru", lambda blobs: blobs.write(b"?")),
    "lru/lock": ("lru", lambda blobs: blobs.write(b"?")),
    "lru/scan-lock": ("lru", lambda blobs: blobs.write(b"?")),
    "blobs.sqlite-wal": ("sqlite", lambda blobs: blobs.write(b"?")),
    "blobs.sqlite-shm": ("sqlite", lambda blobs: blobs.write(b"?")),
    "blobs.sqlite-journal": ("sqlite", lambda blobs: blobs.write(b"?")),
}


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", FILES_OF_ITS_OWN)
def test_a_link_to_a_file_is_refused(tmp_path: Path, name: str, there: bool) -> None:
    """Where castore, or SQLite for it, keeps a file: the link stays, and what it leads to."""
    kind, call = FILES_OF_ITS_OWN[name]
    (tmp_path / "place").mkdir()
    composition = write_composition(tmp_path, kind)
    with Composition.from_toml(composition) as stores:
        stores.blobs().write(b"garbage")
    age_what_is_stored(tmp_path)
    (tmp_path / "mine").mkdir()
    if there:
        (tmp_path / "mine/file").write_bytes(b"precious")
    link = tmp_path / "place/store" / name
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "mine/file")
    said = f"This is a link, where .* keeps a file of its own; move it: .*{name}"
    with contextlib.suppress(UnavailableError), Composition.from_toml(composition) as stores:
        blobs = stores.blobs()
        with pytest.raises(UnavailableError, match=said):
            call(blobs)
    assert link.is_symlink()
    assert [path.read_bytes() for path in (tmp_path / "mine").iterdir()] == [b"precious"] * there


def test_a_bucket(tmp_path: Path) -> None:
    """Of objects in a bucket only those go that castore has put there, by their keys and bytes."""
    from castore.threads.pool import Pool  # noqa: PLC0415
    from castore_objectstore.fsspec_store import FsspecObjectStore  # noqa: PLC0415
    from castore_objectstore.service import ObjectStoreBlobService  # noqa: PLC0415

    store = FsspecObjectStore("memory:", {}, instance="memory")
    blobs = ObjectStoreBlobService(store, pool=Pool(0))
    fs: Any = store._open()[0]
    keys = {f"{place}/{name}".replace("store/", "") for place in PLACES[1:] for name in FILES}
    # Below a folder that looks like the store's own, and leases of other bytes.
    keys |= {
        f"blobs/b3/x/blobs/b3/abab/{'ab' * 32}",
        f"chunks/b3/c0ff/c0ff{'2' * 60}/more",
        "leases/" + "0" * 32,
    }
    for key in keys:
        fs.pipe_file(f"/{key}", b"another's")
    fs.pipe_file("/leases/" + "1" * 32, b"castore")
    fs.pipe_file("/leases/" + "2" * 32, b"7 bytes")
    kept = blobs.write(b"kept")
    blobs.write(b"garbage")
    for file in fs.store.values():
        file.modified = file.created = file.modified.fromtimestamp(OLD, file.modified.tzinfo)
    before = dict(fs.store)
    assert set(blobs.list_blobs()) == {kept, B3Digest.of(b"garbage")}

    collect(blobs, [kept], dry_run=True)
    assert fs.store == before
    collect(blobs, [kept])

    gone = set(before) - set(fs.store)
    chunk = f"b3/{B3Digest.of(b'garbage').hex()[:4]}/{B3Digest.of(b'garbage')}"
    assert gone == {f"/blobs/{chunk}", f"/chunks/{chunk}", "/leases/" + "1" * 32}
    assert all(fs.store[name] is before[name] for name in fs.store)


@pytest.mark.parametrize("kind", ["objectstore", "sqlite", "lru", "lru over sqlite"])
@pytest.mark.parametrize("grace", [0.0, 30.0, 3600.0])
def test_a_rehearsal_is_right(tmp_path: Path, kind: str, grace: float) -> None:
    """What it says is what goes then, whatever the grace time."""
    (tmp_path / "place").mkdir()
    with Composition.from_toml(write_composition(tmp_path, kind)) as stores:
        blobs = stores.blobs()
        for age in (0.0, 45.0, 100.0, 7200.0):
            blobs.write(str(age).encode())
            key = str(B3Digest.of(str(age).encode()))
            modified = time.time() - age
            for path in (tmp_path / "place").rglob(key):
                os.utime(path, (modified, modified))
            file = tmp_path / "place/store/blobs.sqlite"
            if file.exists():
                with contextlib.closing(sqlite3.connect(file)) as database, database:
                    for table in ("chunks", "indexes"):
                        database.execute(
                            f"UPDATE {table} SET modified = ? WHERE digest = ?",
                            (int(modified * 1000), bytes.fromhex(key)),
                        )
        assert blobs.capability(Sweepable)
        said, done = (
            collect(blobs, (), grace_seconds=grace, no_roots=True, dry_run=dry) for dry in (True, False)
        )
        assert {kind: amount.count for kind, amount in said.gone.items()} == {
            kind: amount.count for kind, amount in done.gone.items()
        }
