"""What was found right, kept on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from castore.testing import HELLO, P3M
from castore.upkeep import Ledger, Scope, StateFileError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verify.state"


def test_a_blob_is_not_a_chunk_of_the_same_digest() -> None:
    ledger = Ledger()
    assert ledger.add("blob", HELLO.digest) is True
    assert ledger.add("blob", HELLO.digest) is False
    assert (ledger.has("blob", HELLO.digest), ledger.has("chunk", HELLO.digest)) == (True, False)
    ledger.close()


def test_it_is_found_again_with_its_scope(path: Path) -> None:
    """What the new run says of the scope does not count any more."""
    ledger = Ledger(path, service="local", scope=Scope(0.5, 7, 12.0))
    ledger.add("chunk", HELLO.digest)
    ledger.close()

    again = Ledger(path, service="local", scope=Scope())
    assert (again.scope, again.found_before) == (Scope(0.5, 7, 12.0), 1)
    assert again.has("chunk", HELLO.digest)
    assert not again.has("chunk", P3M.digest)
    again.close()


def test_what_was_not_saved_is_lost_and_nothing_else(path: Path) -> None:
    """As when the process is killed: the file stays usable."""
    ledger = Ledger(path)
    ledger.add("chunk", HELLO.digest)
    ledger.save()
    ledger.add("chunk", P3M.digest)
    ledger._database.rollback()
    ledger._database.close()

    again = Ledger(path)
    assert (again.has("chunk", HELLO.digest), again.has("chunk", P3M.digest)) == (True, False)
    again.close()


def test_it_is_saved_by_itself_from_time_to_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little is lost."""
    now = 100.0
    monkeypatch.setattr("castore.upkeep.ledger.time.monotonic", lambda: now)
    ledger = Ledger(path)
    ledger.add("chunk", HELLO.digest)
    now += 5
    ledger.add("chunk", P3M.digest)

    with closing(sqlite3.connect(path)) as other, other:
        assert other.execute("SELECT count(*) FROM right_items").fetchone() == (2,)
    other.close()
    ledger.close()


def test_finished_it_is_gone(path: Path) -> None:
    """The next verification begins anew."""
    ledger = Ledger(path)
    ledger.finish()
    ledger.close()

    assert not path.exists()


def test_a_file_of_another_service_is_refused(path: Path) -> None:
    Ledger(path, service="local").close()

    with pytest.raises(StateFileError, match="it is about `local`, not about `archive`"):
        Ledger(path, service="archive")


def test_files_of_others_are_refused_and_left_alone(path: Path) -> None:
    """Also another program's database: it would be removed in the end."""
    path.write_text("a letter, which is long enough to look like something that one would want to keep")
    before = path.read_bytes()
    with pytest.raises(StateFileError, match=r"verify\.state: it cannot be used as a state file"):
        Ledger(path)
    assert path.read_bytes() == before

    path.unlink()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE letters(text)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StateFileError, match="it is a database, but none of a verification"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateFileError, match=r"nowhere/verify\.state"):
        Ledger(tmp_path / "nowhere" / "verify.state")
