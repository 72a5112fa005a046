"""The names and forms that are castore's own, and the files that it makes for all who share a folder."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

import pytest

from castore import B3Digest, owned

DIGEST = B3Digest.of(b"")
HEX = str(DIGEST)


@pytest.mark.parametrize(
    ("path", "left_over"),
    [
        (f"{HEX[:4]}/{HEX}", False), (f"{HEX[:4]}/{HEX}#1", True), (f"{HEX[:4]}/{HEX}#120", True),
        (f"{HEX[:4]}/{HEX}#0123456789abcdef", True),
    ],
)  # fmt: skip
def test_places(path: str, left_over: bool) -> None:
    assert owned.object_at(path) == owned.OwnObject(DIGEST, left_over)


@pytest.mark.parametrize(
    "path",
    [
        HEX, f"0000/{HEX}", f"{HEX[:4]}/{HEX}\n", f"{HEX[:4]}/{HEX}#", f"{HEX[:4]}/{HEX}#0",
        f"{HEX[:4]}/{HEX}#01",
        f"{HEX[:4]}/{HEX}#1x", f"{HEX[:4]}/{HEX}#beef", f"{HEX[:4]}/{HEX}#1#2", f"{HEX[:4]}/{HEX}~1",
        f"{HEX[:4]}/{HEX.upper()}", f"{HEX[:4].upper()}/{HEX.upper()}", f"x/{HEX[:4]}/{HEX}",
        f"/{HEX[:4]}/{HEX}",
        f"{HEX[:4]}/{HEX}#1234567890", f"{HEX[:4]}//{HEX}", f"{HEX[:4]}/{HEX[:-1]}",
        f"{HEX[:4]}/{HEX}#\u0661",
    ],
)  # fmt: skip
def test_what_is_no_place(path: str) -> None:
    assert owned.object_at(path) is None


def test_names() -> None:
    assert owned.digest_named(HEX) == DIGEST
    for name in (HEX.upper(), f"{HEX}\n", DIGEST.sri, HEX[:-1], f"b3:{HEX}", ""):
        assert owned.digest_named(name) is None
    assert owned.is_mark(str(uuid.uuid4()))
    for name in (str(uuid.uuid4()).upper(), str(uuid.uuid1()), uuid.uuid4().hex, "../../victim", "", "x"):
        assert not owned.is_mark(name)
    assert owned.is_bucket_mark("0" * 32)
    assert not owned.is_bucket_mark("0" * 31)
    assert owned.has_some_digests("af13")
    assert not owned.has_some_digests("AF13")


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    """A file elsewhere is neither made nor opened by way of one."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link") as caught:
        owned.open_lock(tmp_path / "link")
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(OSError, match=r"make it a folder.*link"):
        owned.require_no_link(tmp_path / "link")


@pytest.mark.parametrize(("mode", "group"), [(0o2775, 0o070), (0o2755, 0o050), (0o775, 0o050)])
def test_what_is_made_in_a_shared_folder_is_for_the_group(tmp_path: Path, mode: int, group: int) -> None:
    """If it is setgid, and the group may write there; whatever the umask says."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(0o022)
    try:
        owned.make_folders(folder / "a/b")
        os.close(owned.open_lock(folder / "a/lock"))
    finally:
        os.umask(before)
    for name in ("a", "a/b"):
        found = stat.S_IMODE((folder / name).stat().st_mode)
        assert found & 0o070 == group
        assert found & stat.S_ISGID == mode & stat.S_ISGID
    assert (folder / "a/lock").stat().st_mode & 0o020 == group & 0o020
