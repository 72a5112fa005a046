"""The example of a plugin, as its user gets it: two wheels in an environment that knows nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

import attrs
import pytest

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = ROOT / "examples" / "castore-onefile"
DIGEST: Final = "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    # What the environment of the tests says to Python and pytest is not for the one under test.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
    # The tests have a folder of their own, so that no `castore` or `castore_onefile` is in the current one.
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )


def succeed(*command: object, cwd: Path | None = None) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@attrs.frozen
class Stranger:
    """Someone who uses an environment in a folder."""

    environment: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def try_castore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.python, "-m", "castore", *arguments, cwd=self.folder)

    def castore(self, *arguments: str) -> str:
        return succeed(self.environment / "bin" / "castore", *arguments, cwd=self.folder)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def build_wheel(source: Path, folder: Path) -> Path:
    succeed(sys.executable, "-m", "build", "--outdir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with both wheels and the testing kit; workers of pytest-xdist share one."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "onefile"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            castore = build_wheel(ROOT, folder / "castore")
            onefile = build_wheel(EXAMPLE, folder / "castore-onefile")
            venv.create(folder / "venv", with_pip=True, clear=True)
            pip = (folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
            succeed(*pip, "install", "--quiet", f"{castore}[testing]", onefile)
            (folder / "ready").touch()
    return folder / "venv"


@pytest.fixture
def stranger(environment: Path, tmp_path: Path) -> Stranger:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "file").write_bytes(b"Hello World!")
    return Stranger(environment, folder)


COMPOSITION: Final = """
[blobservices.root]
type = "onefile"
path = "./sub/blobs.db"
max_blob_size = "1 KiB"
"""


def test_what_is_tested_is_what_is_installed(stranger: Stranger) -> None:
    """Neither castore nor the plugin comes from the sources."""
    code = "import castore, castore_onefile; print(castore.__file__, castore_onefile.__file__)"
    for place in succeed(stranger.python, "-c", code, cwd=stranger.folder).split():
        assert Path(place).is_relative_to(stranger.environment)


def test_plugins_names_the_distribution(stranger: Stranger) -> None:
    """`castore plugins` has the type, who brought it, and its fields."""
    assert "[castore-onefile 0.1.0]" in stranger.castore("plugins")
    shown = stranger.castore("plugins", "onefile")
    assert "castore-onefile 0.1.0" in shown
    assert 'max_blob_size  size from 1 to 536870912 bytes; default "64 MiB"' in shown


def test_the_command_line_works_on_it(stranger: Stranger) -> None:
    """Each command is a process of its own, and the file is what they share."""
    stranger.write("composition.toml", COMPOSITION)

    assert "composition.toml: ok" in stranger.castore("check")
    assert not (stranger.folder / "sub").exists(), "`check` makes nothing"
    assert stranger.try_castore("has", DIGEST).returncode == 1
    assert stranger.castore("put", "file") == f"{DIGEST}  file\n"
    assert (stranger.folder / "sub" / "blobs.db").exists()
    assert stranger.castore("get", DIGEST) == "Hello World!"
    assert DIGEST in stranger.castore("has", DIGEST)
    assert stranger.castore("list") == f"{DIGEST}\n"
    assert "root  onefile  ./sub/blobs.db" in stranger.castore("graph")
    assert "root" in stranger.castore("check", "--connect")


def test_a_blob_beyond_its_limit_is_one_clear_message(stranger: Stranger) -> None:
    """The message names the instance, the limit and what to change; nothing is stored."""
    stranger.write("composition.toml", COMPOSITION)
    stranger.write("large", "x" * 1025)

    done = stranger.try_castore("put", "large")

    assert done.returncode != 0
    assert "`root` takes blobs of at most 1024 bytes" in done.stderr
    assert "max_blob_size" in done.stderr
    assert "Traceback" not in done.stderr
    assert stranger.castore("list") == ""


def test_its_mistakes_are_shown_where_they_are(stranger: Stranger) -> None:
    """A bound and a URL form of a stranger's type are checked as castore's own are, all at once."""
    stranger.write(
        "composition.toml",
        '[blobservices.root]\ntype = "onefile"\npath = "x"\nmax_blob_size = "1 GiB"\n'
        '[blobservices.b]\ntype = "cache"\nnear = "onefile:"\nfar = "onefile:x?a=b"\n',
    )

    done = stranger.try_castore("check")

    assert done.returncode == 2
    for place in ("composition.toml:4:17: ", "composition.toml:7:8: ", "composition.toml:8:18: "):
        assert place in done.stdout + done.stderr


def test_the_schema_has_its_fields(stranger: Stranger) -> None:
    """An editor that reads the schema knows the fields and what they are for."""
    schema = json.loads(stranger.castore("schema"))

    fields = schema["$defs"]["blobservices.onefile"]["properties"]

    assert fields["path"]["description"] == "The file; a relative path starts at the composition's file."
    assert fields["max_blob_size"]["default"] == "64 MiB"


def test_a_cache_takes_it_as_its_far_service(stranger: Stranger) -> None:
    """What one process stored far is found by another, and is near from then on."""
    stranger.write(
        "composition.toml",
        '[blobservices.root]\ntype = "cache"\nnear = "&memory"\nfar = "&archive"\nwrite = "far"\n'
        '[blobservices.memory]\ntype = "memory"\n'
        '[blobservices.archive]\ntype = "onefile"\npath = "./far.db"\n',
    )
    assert stranger.castore("put", "file") == f"{DIGEST}  file\n"
    assert stranger.castore("get", DIGEST) == "Hello World!"
    code = (
        "import castore\n"
        "with castore.open() as stores:\n"
        f"    digest = castore.B3Digest.parse('{DIGEST}')\n"
        "    near, root = stores.blobs('memory'), stores.blobs()\n"
        "    print(near.has(digest), root.read(digest), near.has(digest))\n"
    )

    assert succeed(stranger.python, "-c", code, cwd=stranger.folder) == "False b'Hello World!' True\n"


def test_its_own_tests_pass_there(stranger: Stranger) -> None:
    """The conformance kit comes with the wheel, and needs nothing of castore's own tests."""
    for name in ("pyproject.toml", "tests"):
        copy(EXAMPLE / name, stranger.folder / name)

    pytest_there = (stranger.python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    shown = succeed(*pytest_there, f"--basetemp={stranger.folder / 'tmp'}", cwd=stranger.folder)

    assert " passed" in shown


def test_its_types_agree_with_the_installed_castore(stranger: Stranger) -> None:
    """`mypy --strict` passes over the plugin and its tests, with the types that the wheel brings."""
    pytest.importorskip("mypy")
    for name in ("pyproject.toml", "tests", "castore_onefile"):
        copy(EXAMPLE / name, stranger.folder / name)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", stranger.python)

    assert "no issues found" in succeed(*mypy, "castore_onefile", "tests", cwd=stranger.folder)


def test_without_the_distribution_the_type_is_unknown(stranger: Stranger, tmp_path: Path) -> None:
    """The error is at the type, names it, and says which types there are."""
    # The environment is for all tests, so it is a copy that loses the plugin.
    copy(stranger.environment, tmp_path / "venv")
    poorer = Stranger(tmp_path / "venv", stranger.folder)
    succeed(poorer.python, "-m", "pip", "uninstall", "--quiet", "--yes", "castore-onefile")
    poorer.write("composition.toml", COMPOSITION)

    done = poorer.try_castore("check")

    assert done.returncode == 2
    assert "composition.toml:3:8: " in done.stdout + done.stderr
    assert "unknown type of blob service `onefile`" in done.stdout + done.stderr
    assert "`memory`" in done.stdout + done.stderr


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        strays = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(source, target, symlinks=True, ignore=strays)
    else:
        shutil.copy(source, target)
