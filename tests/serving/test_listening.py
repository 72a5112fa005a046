"""Places to listen at, as they are written."""

from __future__ import annotations

from pathlib import Path

from castore.serving.listening import Address


def test_the_folder_above_a_link_is_the_one_above_its_target(tmp_path: Path) -> None:
    """As it is for the system: a path is not shortened by its letters."""
    (tmp_path / "real/within").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/within")
    path = Address.parse(f"unix:{tmp_path}/link/../socket").path
    assert path is not None
    assert path.resolve() == tmp_path / "real/socket"
