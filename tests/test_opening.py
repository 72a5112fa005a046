"""The front doors: what is said to those who knock at them wrongly."""

from __future__ import annotations

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
