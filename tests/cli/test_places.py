"""Commands about a service whose store is not there."""

from __future__ import annotations

from typing import Any

import pytest

PLACES = {
    "objectstore": 'type = "objectstore"\nobject_store_url = "file:./store"',
    "sqlite": 'type = "sqlite"\npath = "./store"',
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("command", ["list", "verify", "copy --all --from root --to other"])
def test_commands_say_that_there_is_no_store(castore: Any, place: Any, kind: str, command: str) -> None:
    """What was never begun has nothing wrong and no blobs, which is not what a user wants to hear of it."""
    place.compose(f'[blobservices.root]\n{PLACES[kind]}\n[blobservices.other]\ntype = "memory"\n')

    found = castore(*command.split())

    assert found.exit_code == 1
    assert "castore: `root` has no store yet: nothing was begun in /" in found.stderr
    assert place.names == {"composition.toml"}
    place.file("a")
    assert castore("put", "a").exit_code == 0
    found = castore(*command.split())
    assert (found.exit_code, found.stderr) == (0, "")


def test_a_part_that_was_not_begun_is_nothing_to_tell_of(castore: Any, place: Any) -> None:
    """A cache lists what far has, also before anything is in near."""
    place.file("a")
    assert castore("--service", "far", "put", "a").exit_code == 0

    found = castore("list")

    assert found.exit_code == 0
    assert (len(found.stdout.split()), found.stderr) == (1, "")


@pytest.mark.parametrize("command", ["list", "verify", "put a", "copy --all --from root --to other"])
def test_a_disk_that_is_not_mounted(castore: Any, place: Any, command: str) -> None:
    """Nothing is made where it would be, and no command takes it for an empty store."""
    url = "file:./mnt/disk/blobs"
    place.compose(
        f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "{url}"\n'
        '[blobservices.other]\ntype = "memory"\n'
    )
    place.file("a")

    found = castore(*command.split())

    assert found.exit_code == 1
    assert "mnt/disk there: is a disk not mounted?" in found.stderr
    assert place.names == {"a", "composition.toml"}
