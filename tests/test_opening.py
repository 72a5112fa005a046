"""The front doors: what is said to those who knock at them wrongly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import castore
from castore import CompositionError


@pytest.mark.parametrize("path", ["./stores", "/srv/stores", "stores"])
def test_a_path_is_no_url_and_the_error_has_the_url(path: str) -> None:
    with pytest.raises(CompositionError) as caught:
        castore.from_url(path)
    assert str(caught.value).endswith(f"did you mean `objectstore+file:{path}`?")


def test_a_misspelt_name_of_the_package_is_known_to_python() -> None:
    """With these two attributes the interpreter adds what may have been meant."""
    with pytest.raises(AttributeError) as caught:
        castore.BlobServise  # noqa: B018 - looking it up is what fails
    assert (caught.value.name, caught.value.obj) == ("BlobServise", castore)


def test_what_is_opened_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the variable names, else the one in the current folder, else the default."""
    for name in ("here", "home", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("CASTORE_COMPOSITION", raising=False)
    text = '[blobservices.root]\ntype = "memory"\n'

    assert castore.open().name == "<default>"
    Path("composition.toml").write_text(text)
    assert castore.open().name == "composition.toml"
    other = tmp_path / "other/stack.toml"
    other.write_text(text)
    monkeypatch.setenv("CASTORE_COMPOSITION", str(other))
    assert castore.open().name == str(other)
    assert list((tmp_path / "home").iterdir()) == []
    assert castore.open(search=False).name == str(other)
    monkeypatch.delenv("CASTORE_COMPOSITION")
    assert castore.open(search=False).name == "<default>"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder within others, which is the current one; the outermost of them is returned."""
    monkeypatch.delenv("CASTORE_COMPOSITION", raising=False)
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    inner = tmp_path / "project" / "photos" / "2026"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return tmp_path / "project"


MEMORY = '[blobservices.root]\ntype = "memory"\n'


def test_a_composition_counts_in_all_folders_below_it(folders: Path) -> None:
    """The nearest one is used; relative paths start from where it lies."""
    (folders / "composition.toml").write_text(MEMORY)
    with castore.open() as stores:
        assert (stores.name, stores.base) == (str(folders / "composition.toml"), folders)
    (folders / "photos" / "composition.toml").write_text(MEMORY)
    with castore.open() as stores:
        assert stores.base == folders / "photos"
    assert castore.open(None, search=False).name == "<default>"


def test_a_link_that_leads_nowhere_is_not_passed_over(folders: Path) -> None:
    """Another store would be used than the one that is meant."""
    (folders / "composition.toml").write_text(MEMORY)
    (folders / "photos" / "composition.toml").symlink_to("nowhere.toml")
    with pytest.raises(CompositionError, match=r"photos/composition.toml"):
        castore.open()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@needs_root
@pytest.mark.parametrize("where", ["photos/2026", "photos", "."])
@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_another_user_is_used_only_if_it_is_named(
    folders: Path, where: str, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file of theirs nor a link of theirs to one of mine; theirs is not passed over in silence."""
    file = folders / where / "composition.toml"
    file.write_text(MEMORY)
    if link:
        file.rename(folders / "mine.toml")
        file.symlink_to(folders / "mine.toml")
    os.lchown(file, 12345, 12345)
    with pytest.raises(CompositionError, match=r"to another user \(uid 12345\): if you trust it, name it"):
        castore.open()
    castore.open(search=False).close()
    castore.open(file).close()
    monkeypatch.setenv("CASTORE_COMPOSITION", str(file))
    castore.open().close()


@needs_root
def test_under_sudo_a_file_of_the_one_who_calls_it_is_used(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folders / "composition.toml").write_text(MEMORY)
    os.chown(folders / "composition.toml", 12345, 12345)
    monkeypatch.setenv("SUDO_UID", "12345")
    castore.open().close()
    monkeypatch.setenv("SUDO_UID", "12346")
    with pytest.raises(CompositionError, match="belongs to another user"):
        castore.open()


def test_what_a_person_sees_of_the_package() -> None:
    """Its names and modules, and nothing that it imports for itself."""
    shown = {name for name in dir(castore) if not name.startswith("__")}
    assert shown == {*castore.__all__, "aio", "composition", "errors", "testing", "trees"}
    assert castore.aio.open is not None
