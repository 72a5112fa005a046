"""Connections and event loops belong to the process that has opened them: buckets and HTTP after a fork."""

from __future__ import annotations

import http.server
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import in_a_child

from castore import B3Digest, Composition

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

DATA = os.urandom(700_000)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, as any server gives them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    """A store in a folder, behind a server."""
    tables = {
        "blobservices": {
            "root": {"type": "objectstore", "object_store_url": "file:./store", "avg_chunk_size": 16 << 10}
        }
    }
    with Composition.from_mapping(tables, base=tmp_path) as stores:
        stores.blobs().write(DATA)
    served = str(tmp_path / "store")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def bucket_url() -> Iterator[tuple[str, dict[str, object]]]:
    if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask")):
        pytest.skip("needs moto[s3,server] and s3fs")
    import boto3  # noqa: PLC0415 - only if it is there
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - as above

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.create_bucket(Bucket="bucket")
    client.close()
    yield (
        "s3://bucket/x",
        {"key": "a", "secret": "b", "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}},
    )
    server.stop()


def composition(url: str, options: dict[str, object] | None = None) -> Composition:
    root = {"type": "objectstore", "object_store_url": url, "avg_chunk_size": 16 << 10}
    return Composition.from_mapping(
        {"blobservices": {"root": root | {"object_store_options": options or {}}}}
    )


@pytest.fixture(params=["http", "s3"])
def stores(request: pytest.FixtureRequest) -> Iterator[Composition]:
    """A service at the other end of a network, which has been used."""
    if request.param == "http":
        made = composition(request.getfixturevalue("http_url"))
    else:
        made = composition(*request.getfixturevalue("bucket_url"))
        made.blobs().write(DATA)
    with made:
        assert made.blobs().read(B3Digest.of(DATA)) == DATA
        yield made


def test_a_child_opens_connections_of_its_own(stores: Composition) -> None:
    def child() -> None:
        assert stores.blobs().read(B3Digest.of(DATA)) == DATA
        stores.close()

    in_a_child(child)
    in_a_child(child)
    assert stores.blobs().read(B3Digest.of(DATA)) == DATA


def test_a_reader_goes_on_in_both(stores: Composition) -> None:
    reader = stores.blobs().open_read(B3Digest.of(DATA))
    assert reader is not None
    assert reader.read(100_000) == DATA[:100_000]

    def child() -> None:
        assert reader.read() == DATA[100_000:]
        reader.close()

    in_a_child(child)
    assert reader.read() == DATA[100_000:]
    reader.close()


PROGRAM = """
import os, sys
from castore import B3Digest, Composition
stores = Composition.from_mapping({"blobservices": {"root": {
    "type": "objectstore", "object_store_url": sys.argv[1]}}})
digest = B3Digest.parse(sys.argv[2])
size = len(stores.blobs().read(digest))
child = os.fork()
if child == 0:
    assert len(stores.blobs().read(digest)) == size
    stores.close()
    sys.exit(0)  # With all that Python does at the end.
assert os.waitpid(child, 0)[1] == 0
assert len(stores.blobs().read(digest)) == size
stores.close()
print(size)
"""


def test_a_child_that_ends_as_programs_do_closes_nothing_of_its_parents(http_url: str) -> None:
    run = subprocess.run(
        # Drivers have threads; from 3.12 on Python warns of a fork beside them.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, http_url, str(B3Digest.of(DATA))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.stdout, run.stderr, run.returncode) == (f"{len(DATA)}\n", "", 0)
