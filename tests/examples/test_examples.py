"""Everything in `examples/` runs, from a copy, as its README says."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of someone who has castore on the PATH and nothing else set up."""
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def embed(tmp_path: Path) -> Path:
    """A copy of the example `embed`, with its mailbox."""
    folder = tmp_path / "embed"
    shutil.copytree(EXAMPLES / "embed", folder)
    subprocess.run([sys.executable, "make_mailbox.py", "inbox.mbox"], cwd=folder, check=True)
    return folder


@pytest.fixture
def archive(embed: Path, environment: dict[str, str]) -> Run:
    """Run the archiver."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "archive.py", *arguments]
        return subprocess.run(
            command, cwd=embed, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_every_example_is_tested_here() -> None:
    """A folder that is added to `examples/` needs a test beside this one."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    source = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))

    assert {name for name in folders if f'EXAMPLES / "{name}"' not in source} == set()


# -- embed --


def test_what_the_archiver_stored_comes_back(archive: Run, embed: Path) -> None:
    assert archive("store", "inbox.mbox").returncode == 0
    assert archive("restore", "out").returncode == 0

    restored = {path.name.partition("-")[2]: path.stat().st_size for path in (embed / "out").iterdir()}
    assert set(restored) == {"beach.raw", "notes.zip", "beach again.raw", "forest.raw"}
    assert restored["forest.raw"] == 300_000


def test_storing_a_mailbox_again_notes_and_stores_nothing(archive: Run, embed: Path) -> None:
    archive("store", "inbox.mbox")
    before = {path: path.stat().st_mtime_ns for path in (embed / "stores").rglob("*") if path.is_file()}

    again = archive("store", "inbox.mbox")

    assert (again.returncode, again.stdout) == (0, "")
    assert {p: p.stat().st_mtime_ns for p in (embed / "stores").rglob("*") if p.is_file()} == before
    assert len((embed / "catalogue.jsonl").read_text().splitlines()) == 5


def test_a_photo_sent_twice_is_kept_once(archive: Run, embed: Path) -> None:
    """Five attachments, four blobs: and their chunks take less than the attachments do."""
    archive("store", "inbox.mbox")

    blobs = [path for path in (embed / "stores/far/blobs").rglob("*") if path.is_file()]
    chunks = [path for path in (embed / "stores/far/chunks").rglob("*") if path.is_file()]
    assert len(blobs) == 4
    assert sum(path.stat().st_size for path in chunks) < 800_000  # of 1,223,000


def test_the_archiver_tells_a_lost_blob_from_a_damaged_one(archive: Run, embed: Path) -> None:
    """The one is listed as absent, the other is an error; both stop no other attachment."""
    archive("store", "inbox.mbox")
    shutil.rmtree(embed / "stores")
    archive("store", "inbox.mbox")
    lines = (embed / "catalogue.jsonl").read_text().splitlines()
    digest = re.search(r'"digest": "(\w+)"', next(line for line in lines if "forest" in line))[1]
    for store in ("near", "far"):
        (embed / f"stores/{store}/blobs/b3/{digest[:4]}/{digest}").unlink()

    listed, restored = archive("list"), archive("restore", "out")

    assert [line for line in listed.stdout.splitlines() if "absent" in line] == [
        "  300,000  forest.raw  (absent)"
    ]
    assert restored.returncode == 1
    assert restored.stderr == f"forest.raw: no blob {digest}\n"
    assert len(list((embed / "out").iterdir())) == 4


def test_the_archiver_says_what_is_wrong_with_its_stack(archive: Run, embed: Path) -> None:
    (embed / "composition.toml").write_text('[blobservices.root]\ntype = "cash"\n')

    done = archive("list")

    assert done.returncode == 2
    assert "did you mean `cache`?" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("store",), ("list", "x"), ("fetch", "x")])
def test_the_archiver_shows_how_it_is_used(archive: Run, arguments: tuple[str, ...]) -> None:
    done = archive(*arguments)

    assert done.returncode == 2
    assert "python archive.py store MAILBOX" in done.stderr


def test_the_archiver_shows_progress_on_a_terminal(embed: Path, environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "archive.py", "store", "inbox.mbox"]
    subprocess.run(command, cwd=embed, env=environment, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)

    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert b"forest.raw: 100 %" in shown


# -- demo --


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    """From step to step, on a copy of the files that it works on; its claims are in its output."""
    assert (EXAMPLES / "demo").is_dir()
    ignored = shutil.ignore_patterns("__pycache__", "stores")
    for name in ("castore", "plugins", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("composition.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)

    done = subprocess.run(
        ["sh", "examples/demo/demo.sh"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "every file is what its digest says" in done.stdout
    assert "it has changed" in done.stdout
    assert "the same as before" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\nidentical\n") == 2
    grown = re.search(r"the archive grew by (\d+) KiB", done.stdout)
    assert 0 < int(grown[1]) < 2048


# -- castore-onefile --


@pytest.fixture
def onefile(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A copy of the example `castore-onefile`, on the path as if pip had installed it."""
    folder = tmp_path / "onefile"
    shutil.copytree(EXAMPLES / "castore-onefile", folder, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / f"castore_onefile-{project['version']}.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    entries = project["entry-points"]["castore"]
    lines = [f"{name} = {value}\n" for name, value in entries.items()]
    metadata.joinpath("entry_points.txt").write_text("".join(["[castore]\n", *lines]))
    environment["PYTHONPATH"] = str(folder)
    return folder


def test_the_plugin_passes_its_own_tests(onefile: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=onefile, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_works_from_the_command_line(onefile: Path, environment: dict[str, str]) -> None:
    """With the composition that its README shows; castore lists the type with its distribution."""
    shown = re.search(r"```toml\n(.*?)```", (onefile / "README.md").read_text(), re.DOTALL)
    (onefile / "composition.toml").write_text(shown[1])

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [BIN / "castore", *arguments],
            cwd=onefile,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    digest = run("put", "README.md")[:64]
    assert run("get", digest) == (onefile / "README.md").read_text()
    assert run("list") == f"{digest}\n"
    assert "[castore-onefile 0.1.0]" in run("plugins")
    assert "castore-onefile 0.1.0" in run("plugins", "onefile")
