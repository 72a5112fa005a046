"""What is built and installed is what the sources say, and works without them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_bundled_plugin_is_an_entry_point_and_a_package() -> None:
    """`plugins/`, the entry points and the packages of the wheel name the same plugins."""
    folders = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    declared = PROJECT["project"]["entry-points"]["castore"]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert folders == set(declared.values())
    assert {"castore", *(f"plugins/{folder}" for folder in folders)} == set(packages)
    assert {"castore", *(f"plugins/{folder}" for folder in folders)} == set(PROJECT["tool"]["mypy"]["files"])


def test_the_installed_metadata_is_fresh() -> None:
    """An editable install keeps the entry points of the day it was made; then `pip install -e .` mends it."""
    installed = {
        (e.name, e.value) for e in entry_points(group="castore") if e.dist and e.dist.name == "castore"
    }

    assert installed == set(PROJECT["project"]["entry-points"]["castore"].items())
    assert version("castore") == PROJECT["project"]["version"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as pip builds it: from an sdist, so that a file which the sdist lacks is missed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter in a new environment with the wheel and what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", wheel], check=True, capture_output=True, text=True
    )
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_works_in_a_clean_environment(clean_python: Path, tmp_path: Path) -> None:
    """Without extras: the library, the plugins, the command line and its JSON Schema."""
    (tmp_path / "composition.toml").write_bytes((ROOT / "composition.toml").read_bytes())
    (tmp_path / "file").write_bytes(b"Hello World!")
    castore = clean_python.with_name("castore")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [castore, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    digest = "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c"
    assert run("put", "file") == f"{digest}  file\n"
    assert run("get", digest) == "Hello World!"
    assert "objectstore" in run("plugins")
    assert "blobservices" in run("schema")
    assert "root" in run("graph")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_has_types_and_licence_and_no_strays(wheel: Path) -> None:
    """`py.typed` in each package, the licence, and none of the tests."""
    import zipfile  # noqa: PLC0415 - for this test alone

    names = zipfile.ZipFile(wheel).namelist()

    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"{Path(package).name}/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    allowed = {Path(p).name for p in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == allowed
