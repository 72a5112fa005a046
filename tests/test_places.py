"""Homes and current folders that nobody knows, and paths that begin with `~`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import BuildError, Composition, CompositionError
from castore.places import KeptFolder, PlaceError, Site, expand_user, locate
from castore.testing import HELLO

BASE = Path("/base/folder")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("CASTORE_COMPOSITION", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user whom the system does not know."""
    import pwd  # noqa: PLC0415 - to be without it

    def unknown(_: object) -> Any:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.parametrize(
    ("path", "makes"),
    [
        ("near", 2), ("./stores/near", 2), ("../stores/near", 2), ("./mnt/disk/blobs", 1), ("a/../b/c", 1),
        ("/base/folder/stores/near", 2), ("/base/folder/mnt/disk/blobs", 1), ("/base/near", 1), ("/near", 1),
        ("~/.cache/castore", 2), ("~/a/b/c", 1),
    ],
)  # fmt: skip
def test_how_much_of_a_path_is_made(home: Path, path: str, makes: int) -> None:
    found = locate(BASE, path, "parent")
    assert found.makes == makes
    assert found.path == (BASE / path.replace("~", str(home))).resolve()
    assert locate(BASE, path, False).makes == 0
    assert locate(BASE, path, "path").makes > 100


def test_a_folder_that_is_another_one(tmp_path: Path) -> None:
    """Where nothing tells it from others, each other one is another one."""
    place = KeptFolder(Site(tmp_path / "queue", 1))
    assert place.require() is False
    assert place.make() == [str(tmp_path / "queue")]
    assert place.require() is True
    (tmp_path / "queue").rename(tmp_path / "aside")
    with pytest.raises(PlaceError, match="was here and is gone"):
        place.require()
    (tmp_path / "queue").mkdir()
    with pytest.raises(PlaceError, match="Another folder is here"):
        place.make()


PLACES: dict[str, dict[str, Any]] = {
    "objectstore": {"type": "objectstore", "object_store_url": "file:~/x/store"},
    "sqlite": {"type": "sqlite", "path": "~/x/store"},
    "queue": {"type": "cache", "near": "&near", "far": "memory:", "write": "behind", "queue": "~/x/store"},
}
NEAR = {"near": {"type": "objectstore", "object_store_url": "file:./near"}}


@pytest.mark.parametrize("kind", PLACES)
def test_a_home(home: Path, kind: str, tmp_path: Path) -> None:
    """`~` is that of the shell wherever a path is taken; no folder of that name is made."""
    with Composition.from_mapping({"blobservices": {"root": PLACES[kind], **NEAR}}, base=tmp_path) as stores:
        stores.blobs().write(HELLO.data)
    assert (home / "x" / "store").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("url", ["objectstore+file:~/store", "sqlite:~/store"])
def test_a_home_in_a_url(home: Path, url: str) -> None:
    with castore.from_url(url) as blobs:
        blobs.write(HELLO.data)
    assert (home / "store").exists()


def test_a_home_in_other_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, and files of secrets."""
    (home / "stack.toml").write_text('[blobservices.root]\ntype = "memory"\n')
    monkeypatch.setenv("CASTORE_COMPOSITION", "~/stack.toml")
    assert castore.open().name == str(home / "stack.toml")
    (home / "url").write_text("memory:")
    tables = {"root": {"type": "objectstore", "object_store_url": {"file": "~/url"}}}
    with Composition.from_mapping({"blobservices": tables}) as stores:
        stores.blobs().write(HELLO.data)


@pytest.mark.usefixtures("nobody")
class TestNobodyKnowsTheHome:
    def test_it_is_needed(self, tmp_path: Path) -> None:
        """One error says so, of the instance; others do their work, and so does all that builds nothing."""
        tables = {"root": PLACES["objectstore"], "other": PLACES["sqlite"], "mine": {"type": "memory"}}
        with Composition.from_mapping({"blobservices": tables}) as stores:
            assert stores.blobs("mine").write(HELLO.data) == HELLO.digest
            for name in ("root", "other"):
                with pytest.raises(BuildError, match="`~` stands for a home, but HOME is not set"):
                    stores.blobs(name)
        assert not (tmp_path / "~").exists()

    def test_the_default_needs_it(self) -> None:
        with pytest.raises(CompositionError, match="your home, which nobody knows: set HOME"):
            castore.open()

    def test_a_user_that_is_not_there(self) -> None:
        with pytest.raises(PlaceError, match="there is no such user"):
            expand_user("~nobody-of-that-name/x")

    def test_other_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CASTORE_COMPOSITION", "~/stack.toml")
        with pytest.raises(CompositionError, match=r"HOME is not set.*named by \$CASTORE_COMPOSITION"):
            castore.open()
        tables = {"root": {"type": "objectstore", "object_store_url": {"file": "~/url"}}}
        with pytest.raises(CompositionError, match="HOME is not set"):
            Composition.from_mapping({"blobservices": tables})


def test_a_home_that_is_no_text(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of files are bytes: the default composition works in any home."""
    odd = home / "h\udcff"
    odd.mkdir()
    environment = {**os.environ, "HOME": str(odd), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "castore", "put", "-"]
    done = subprocess.run(command, env=environment, input=b"x", capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count(b"Error")) == (0, 0), done.stderr
    assert (odd / ".local/share/castore/blobs/chunks").is_dir()
