"""A client in another language drives the server: Node's, with the proto file loaded at run time.

Its packages are not part of Python's: `npm install --prefix build/grpc-js @grpc/grpc-js @grpc/proto-loader`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from castore import B3Digest
from castore.format.directories import Directory
from castore.format.nodes import FileNode

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "build/grpc-js/node_modules"
BIG = (b"castore " * 375_000)[:3_000_000]


@pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "@grpc/grpc-js").exists(),
    reason="needs Node, and its gRPC in build/grpc-js",
)
def test_node_puts_and_gets_blobs_and_directories(serving: Any) -> None:
    """Every call of both services, right and wrong."""
    served = serving(None, {"root": {"type": "memory"}})
    script, proto = Path(__file__).parent / "node/drive.js", ROOT / "castore/format/proto/castore.proto"
    done = subprocess.run(
        ["node", script, MODULES, proto, f"unix:{served.path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    digest = B3Digest.of(BIG)
    chunks = served.stores.blobs().chunks(digest)
    assert len(chunks) > 2
    root = Directory({b"f": FileNode(digest, len(BIG))})
    assert found == {
        "put": digest.hex(),
        "stat": [[meta.digest.hex(), meta.size] for meta in chunks],
        "same": True,
        "absent": 5,
        "short": 3,
        "root": root.digest.hex(),
        "names": [["f"]],
        "dangling": 13,
    }
