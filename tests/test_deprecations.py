"""All that castore does, without a call that a later Python, or a library, is about to take away."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from castore import Registry

COMPOSITION = """\
allow_faults = true

[blobservices.root]
type = "fallback"
services = ["&cached", "&lost", "&shy"]

[blobservices.cached]
type = "cache"
near = "&near"
far = "&far"
write = "both"

[blobservices.near]
type = "lru"
inner = "&rows"
max_bytes = "1 GiB"

[blobservices.rows]
type = "sqlite"
path = "blobs.sqlite"

[blobservices.far]
type = "retry"
inner = "&wary"

[blobservices.wary]
type = "breaker"
inner = "&narrow"

[blobservices.narrow]
type = "limit"
inner = "&many"
concurrency = 8

[blobservices.many]
type = "mirror"
services = ["&files", "&held", "&packs"]

[blobservices.held]
type = "memory"

[blobservices.files]
type = "verify"
inner = "&timed"

[blobservices.timed]
type = "timeout"
inner = "&folder"
timeout = "60 s"

[directoryservices.root]
type = "priority"
services = { 0 = "&trees" }

[directoryservices.trees]
type = "blobs"
blobs = "&root"

[blobservices.folder]
type = "objectstore"
object_store_url = "file:./folder"

[blobservices.shy]
type = "read_only"
inner = "&slow"

[blobservices.slow]
type = "faulty"
inner = "&folder"
delay = 1.0
latency = "1 ms"

[blobservices.packs]
type = "packed"
object_store_url = "file:./packs"

[blobservices.lost]
type = "error"
outcome = "absent"
"""

SERVICES = """\
import time
import castore
from castore.contract.capabilities import BlobLister
from castore.upkeep import collect, verify

data = bytes(range(256)) * 8192 + b"the end"
with castore.open("composition.toml") as stores:
    large, small, gone = (stores.blobs().write(some) for some in (data, b"small", data[1:]))
    other = castore.B3Digest.of(b"other")
    for name in ("root", "cached", "near", "far", "shy"):
        blobs = stores.blobs(name)
        assert blobs.read(large) == data
        with blobs.open_read(large) as reader:
            reader.seek(-7, 2)
            assert reader.read() == b"the end"
        assert blobs.missing([large, small, other]) == {other}
    assert large in stores.blobs("cached").capability(BlobLister).list_blobs()
    for name in ("rows", "folder"):
        blobs = stores.blobs(name)
        collect(blobs, [large, small], grace_seconds=0, clock=lambda: time.time() + 86400)
        assert blobs.missing([large, small, gone]) == {gone}
        assert verify(blobs).ok
"""

COMMANDS = """\
from castore.cli.app import app

for line in (
    "put composition.toml", "--service cached list", "check", "graph", "plugins", "schema",
    "copy --from far --to folder --all", "--service folder verify",
    "--service folder gc --no-roots --grace 0s",
):
    assert not app.main(line.split(), prog_name="castore", standalone_mode=False), line
"""

LEFT_OPEN = """\
import castore

stores = castore.open("composition.toml")
digest = stores.blobs().write(bytes(1 << 20))
reader = stores.blobs().open_read(digest)
reader.read(1)
"""

IMPORTS = """\
import importlib.util, pkgutil
from importlib.metadata import entry_points

for name in ("castore", *sorted({point.module for point in entry_points(group="castore")})):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if module.name == "castore.access.upath" and importlib.util.find_spec("upath") is None:
            continue  # universal_pathlib is not among what tests need.
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def test_the_composition_has_every_bundled_type() -> None:
    types = {
        entry.tag
        for entry in Registry.default().all_types()
        if entry.plugin is not None and entry.plugin.distribution.startswith("castore ")
    }
    # That one needs a server: it is in tests/serving, where warnings are errors as well.
    assert set(re.findall(r'type = "(\w+)"', COMPOSITION)) == types - {"grpc"}


@pytest.mark.parametrize("program", [IMPORTS, SERVICES, COMMANDS, LEFT_OPEN])
def test_nothing_is_deprecated_nor_left_to_the_collector(tmp_path: Path, program: str) -> None:
    """Each of these is an error in the process, also where it can only be printed."""
    (tmp_path / "composition.toml").write_text(COMPOSITION)
    kinds = ("DeprecationWarning", "PendingDeprecationWarning", "ResourceWarning")
    # What castore itself says of what is dropped is for tests/test_dropped.py.
    own = [f"ignore:a {what} was not closed" for what in ("composition", "reader", "writer")]
    options = [part for filter_ in (*(f"error::{kind}" for kind in kinds), *own) for part in ("-W", filter_)]
    done = subprocess.run(
        [sys.executable, *options, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not done.stderr, done.stderr
    assert done.returncode == 0
