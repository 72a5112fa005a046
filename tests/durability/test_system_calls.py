"""System calls that fail, or that a file system does not have, under each command that uses a store.

strace makes a call fail. Each cell of the matrix, a call with an error under a command, is right or ends with
one clear error and exit code 1; nothing is lost, and the store is sound afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from castore import B3Digest, Composition
from castore.upkeep import verify

HERE = Path(__file__).parent
COMMANDS = ("put", "get", "verify", "repair", "gc")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def noise(seed: int, size: int = 3000) -> bytes:
    return random.Random(seed).randbytes(size)


KEPT, KNOWN, NEW, GARBAGE, HURT = (noise(seed) for seed in range(5))
MANY = noise(9, 1_500_000)


class Scene:
    """A store with a blob to keep, one that is known and old, garbage; and another with a damaged one."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        tables: dict[str, dict[str, object]] = {
            name: {"type": "objectstore", "object_store_url": f"file:./{name}"}
            if kind == "objectstore"
            else {"type": "sqlite", "path": f"./{name}/blobs.sqlite"}
            for name in ("root", "hurt", "donor")
        }
        lines = []
        for name, table in tables.items():
            lines += [
                f"[blobservices.{name}]",
                *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
            ]
        self.composition = folder / "composition.toml"
        self.composition.write_text("\n".join(lines))
        with self.opened() as stores:
            for data in (KEPT, KNOWN, GARBAGE, MANY):
                stores.blobs().write(data)
            for name in ("hurt", "donor"):
                stores.blobs(name).write(HURT)
        self.grow_old("root")
        self.damage()
        for name, data in (("known", KNOWN), ("new", NEW)):
            (folder / name).write_bytes(data)
        kept = [str(B3Digest.of(data)) for data in (KEPT, KNOWN, NEW, MANY)]
        (folder / "roots").write_text("\n".join(kept[:2] + kept[3:]))
        commands = {
            "put": ["put", "known", "new"],
            "get": ["get", kept[0], "-o", "got"],
            "verify": ["verify"],
            "repair": ["--service", "hurt", "verify", "--repair-from", "donor"],
            "gc": ["gc", "--roots", "roots"],
        }
        (folder / "commands.json").write_text(json.dumps(commands))

    def opened(self) -> Composition:
        return Composition.from_toml(self.composition)

    def grow_old(self, name: str) -> None:
        for path in (self.folder / name).rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - 30 * 86400,) * 2)
        if self.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(self.folder / name / "blobs.sqlite")) as file, file:
                file.execute("UPDATE chunks SET modified = 1000")
                file.execute("UPDATE indexes SET modified = 1000")

    def damage(self) -> None:
        if self.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(self.folder / "hurt/blobs.sqlite")) as file, file:
                file.execute("UPDATE chunks SET frame = x'00'")
        else:
            (path,) = (path for path in (self.folder / "hurt/chunks").rglob("*") if path.is_file())
            path.write_bytes(b"?")

    def path(self, name: str, folder: str, data: bytes, end: str = "") -> str:
        digest = str(B3Digest.of(data))
        return f"{self.folder}/{name}/{folder}/b3/{digest[:4]}/{digest}{end}"

    def run(self, *injections: str, paths: tuple[str, ...] = ()) -> dict[str, int]:
        options = [part for path in paths for part in ("-P", path)]
        for injection in injections:
            options += ["-e", f"trace={injection.partition(':')[0]}", "-e", f"inject={injection}"]
        if not paths:
            options.append("--seccomp-bpf")
        command = ["strace", "-f", "-qq", "-o", str(self.folder / "record"), *options]
        subprocess.run(
            [*command, sys.executable, str(HERE / "commands.py"), str(self.folder)],
            check=True,
            timeout=100,
            capture_output=True,
        )
        codes: dict[str, int] = json.loads((self.folder / "codes.json").read_text())
        return codes

    def require_right(self, codes: dict[str, int], *, call: str, right: bool) -> None:
        for name in COMMANDS:
            code = codes[name]
            said = (self.folder / f"{name}.err").read_text()
            out = (self.folder / f"{name}.out").read_text()
            assert "Traceback" not in said, (name, said)
            assert "mistake in castore" not in said, (name, said)
            assert code in (0, 1), (name, code, said)
            assert code == 0 or not right, (name, code, said)
            if code:
                # A verification tells in its table what cannot be read.
                assert said.startswith("castore: ") or out, (name, said)
                assert said.count("\n") <= 2, (name, said)
        self.require_sound(codes)

    def require_sound(self, codes: dict[str, int]) -> None:
        with self.opened() as stores:
            blobs = stores.blobs()
            for data in (KEPT, KNOWN, MANY):
                assert blobs.read(B3Digest.of(data)) == data
            if codes["put"] == 0:
                assert blobs.read(B3Digest.of(NEW)) == NEW
            if codes["get"] == 0:
                assert (self.folder / "got").read_bytes() == KEPT
            if codes["repair"] == 0:
                assert stores.blobs("hurt").read(B3Digest.of(HURT)) == HURT
            assert not blobs.has(B3Digest.of(GARBAGE)) or codes["gc"] == 1
            assert stores.blobs("donor").read(B3Digest.of(HURT)) == HURT
            assert verify(blobs).ok
            # All of it can be done now.
            assert blobs.write(NEW) == B3Digest.of(NEW)
            assert blobs.read(B3Digest.of(NEW)) == NEW


@attrs.frozen
class Case:
    """A call that fails.

    Attributes:
        call: Its names, as strace knows it.
        errno: What it fails with.
        failing: The commands that cannot be done then; all others are right.
        on: Where it fails, if not everywhere: `new` is what `put` writes, `known` what it claims, `kept` what
            `get` reads, `file` a database.
        when: Which times, as strace says it.
    """

    call: str
    errno: str
    failing: frozenset[str] = attrs.field(converter=frozenset, default=frozenset())
    on: str | None = None
    kind: str = "objectstore"
    when: str = ""

    def __str__(self) -> str:
        return f"{self.call} {self.errno} {self.on or ''} {self.kind}".replace("  ", " ")


CASES = [
    Case("linkat", "EOPNOTSUPP"),
    Case("flock", "EINVAL", {"gc"}),
    Case("syncfs", "ENOSYS"),
    Case("syncfs", "EIO", {"put", "repair", "gc"}),
    Case("utimensat", "EPERM"),
    Case("utimensat", "EIO", {"put"}),
    Case("rename", "EACCES", {"put", "get", "repair"}),
    Case("unlink,unlinkat", "EACCES", {"repair", "gc"}),
    Case("write", "ENOSPC", {"put"}, on="new"),
    Case("openat", "EMFILE", {"get", "verify", "gc"}, on="kept"),
    Case("read", "EIO", {"get", "verify", "gc"}, on="kept"),
    Case("fdatasync", "EIO", {"put", "repair", "gc"}, kind="sqlite"),
]
"""Sixty cells: each of these under five commands."""


CALLS = {
    "objectstore": (
        "linkat,link", "flock", "syncfs", "utimensat", "rename", "unlink,unlinkat", "mkdir", "fchmod",
        "fsync", "access,faccessat2 new", "pread64 known", "fadvise64", "copy_file_range", "chmod",
        "openat new", "openat kept", "openat known", "write new", "read kept", "read known", "close new",
        "fstat new", "newfstatat new", "newfstatat kept", "newfstatat known", "utimensat known",
        "rename new",
    ),
    "sqlite": (
        "fdatasync,fsync", "pwrite64", "ftruncate", "fallocate", "unlink,unlinkat", "flock", "mkdir",
        "fchmod", "mremap", "fcntl file", "pread64 file", "openat file", "mmap file",
    ),
}  # fmt: skip
ERRORS = (
    "EOPNOTSUPP", "ENOSYS", "EINVAL", "EMLINK", "EXDEV", "EPERM", "EACCES", "EROFS", "EIO", "ENOSPC",
    "EDQUOT", "ENOLCK", "ESTALE", "ENOMEM", "ETIMEDOUT",
)  # fmt: skip
"""Not `EINTR` and `EAGAIN`, which never come each time: Python, and who waits for a lock, try again."""

BUSY = ("ENOLCK", "EACCES", "ETIMEDOUT")
"""What SQLite takes for somebody else's lock, and waits for."""


def try_out(folder: Path, case: Case) -> dict[str, int]:
    scene = Scene(folder, case.kind)
    paths: tuple[str, ...] = ()
    if case.on == "file":
        paths = tuple(f"{folder}/root/blobs.sqlite{end}" for end in ("", "-wal", "-shm"))
    elif case.on is not None:
        data = {"new": NEW, "kept": KEPT, "known": KNOWN}[case.on]
        ends = ("", "#1") if case.on == "new" else ("",)
        paths = tuple(scene.path("root", kind, data, end) for kind in ("chunks", "blobs") for end in ends)
    codes = scene.run(f"{case.call}:error={case.errno}{case.when}", paths=paths)
    record = (folder / "record").read_text()
    assert "(INJECTED)" in record, "the call is not made"
    scene.require_right(codes, call=case.call, right=False)
    return codes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_call_that_fails(tmp_path: Path, case: Case) -> None:
    """The commands that can be done without it are right; the others say what was wrong."""
    codes = try_out(tmp_path, case)
    said = {name: (tmp_path / f"{name}.err").read_text() for name in COMMANDS if codes[name]}
    assert set(said) == case.failing, said


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", CALLS)
def test_each_call_with_each_error(tmp_path: Path, kind: str) -> None:
    """Whatever fails: right, or one clear error. It takes about ten minutes."""
    wrong, cells = [], 0
    for call in CALLS[kind]:
        name, _, on = call.partition(" ")
        for error in [error for error in ERRORS if name != "fcntl" or error not in BUSY]:
            folder = tmp_path / f"{name}-{on}-{error}"
            folder.mkdir()
            try:
                try_out(folder, Case(name, error, on=on or None, kind=kind))
            except AssertionError as failure:
                if "is not made" in str(failure):
                    break
                wrong.append(f"{call} {error}: {failure}")
            except Exception as failure:
                wrong.append(f"{call} {error}: {type(failure).__name__}: {failure}")
            cells += len(COMMANDS)
    print(f"{cells} cells")
    assert not wrong, "\n".join(wrong)
