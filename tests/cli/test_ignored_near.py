"""A near that fails and is passed over changes neither the bytes nor the exit code, and is told of once."""

from __future__ import annotations

import random
import subprocess

import pytest

LARGE = random.Random(1).randbytes(3 << 20)

FULL = """
mkdir -p disk && mount -t tmpfs -o size=512k tmpfs disk || exit 77
exec "$@"
"""

NEARS = {
    "sqlite": '[blobservices.near]\ntype = "sqlite"\npath = "disk/near.sqlite"\n',
    "objectstore": '[blobservices.near]\ntype = "objectstore"\nobject_store_url = "file:./disk/near"\n',
    "lru": (
        '[blobservices.near]\ntype = "lru"\ninner = "&within"\nmax_bytes = "1 GiB"\n'
        '[blobservices.within]\ntype = "objectstore"\nobject_store_url = "file:./disk/near"\n'
    ),
    "error": '[blobservices.near]\ntype = "error"\n',
}

OTHERS = """
[blobservices.root]
type = "cache"
near = "&near"
far = "&far"
write = "far"
[blobservices.far]
type = "objectstore"
object_store_url = "file:./far"
"""


@pytest.mark.parametrize(
    "near",
    ["sqlite", "lru", *(pytest.param(near, marks=pytest.mark.long) for near in ("objectstore", "error"))],
)
def test_a_near_on_a_full_disk_is_told_of_once(place, near):
    """The bytes are far's. Small blobs and large ones, and a part of one; four processes for each."""
    place.compose(OTHERS + NEARS[near])
    large = place.file("large", LARGE)
    names = [f"small/{number}" for number in range(20)]
    small = [place.file(name, random.Random(number).randbytes(50_000)) for number, name in enumerate(names)]
    put = place.run("--service", "far", "put", "large", "small")
    assert put.returncode == 0

    for arguments in (["get", large], ["get", large, "--length", "1500000"], ["get", *small]):
        run = subprocess.run(
            ["unshare", "--mount", "sh", "-c", FULL, "sh", *map(str, place.command(*arguments))],
            cwd=place.folder,
            env=place.environment,
            capture_output=True,
            check=False,
        )
        if run.returncode == 77 or run.stderr.startswith(b"unshare"):
            pytest.skip("nothing can be mounted here")

        assert run.returncode == 0, run.stderr
        if len(arguments) > 10:
            assert run.stdout == b"".join((place.folder / name).read_bytes() for name in names)
        else:
            assert run.stdout == LARGE[: 1_500_000 if "--length" in arguments else None]
        assert len(run.stderr.splitlines()) == 1, run.stderr.decode()
        assert b"near failed and is passed over" in run.stderr
