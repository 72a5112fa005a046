"""Every driver that the documentation names, against a server: absence and what is none.

The servers of Google and Azure are small ones of these tests, which answer what the drivers ask for. S3 is
moto's, SFTP that of OpenSSH, both in files of their own.
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import re
import threading
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import pytest

from castore import BlobService, Composition, UnavailableError
from castore.contract.capabilities import BlobLister
from castore.contract.upkeep import Inventory
from castore.testing import BLOB_A, HELLO, P3M
from castore.upkeep import copy, verify

# Else gcsfs asks by gRPC what sort of bucket it has, for which it waits a minute, and a server of these tests
# does not speak that. It looks when it is imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azure's emulator: printed in its manual."""

DATE = "Mon, 30 Nov 2026 12:00:00 GMT"


class Cloud(http.server.BaseHTTPRequestHandler):
    """Objects in a dictionary, in one bucket."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]]
    requests: ClassVar[list[str]]

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: a client waits for the end of each answer.

    def _take(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        self.handle_request(urllib.parse.urlsplit(self.path), self.rfile.read(length))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _take

    def handle_request(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Google(Cloud):
    """As much of Google's JSON API as gcsfs uses."""

    def handle_request(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        query = dict(urllib.parse.parse_qsl(url.query))
        match = re.fullmatch(r"(?:/upload|/download)?/storage/v1/b/([^/]+)(/o(?:/(.+))?)?", url.path)
        if match is None or match[1] != "bucket":
            self.answer(404, b'{"error": {"message": "The specified bucket does not exist."}}')
        elif self.command == "POST":
            meta = json.loads(re.search(rb"\{.*?\}(?=\s*\r?\n--)", body, re.DOTALL)[0])  # type: ignore[index]
            boundary = re.match(rb"--(\S+)", body)[1]  # type: ignore[index]
            part = body.split(b"--" + boundary)[2]
            content = re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1]
            self.objects[meta["name"]] = content.removesuffix(b"\n").removesuffix(b"\r")
            self.json(self.said_of(meta["name"]))
        elif match[2] is None:
            self.json({"name": match[1]})
        elif match[3] is None:
            prefix = query.get("prefix", "")
            self.json({"items": [self.said_of(key) for key in self.objects if key.startswith(prefix)]})
        elif (key := urllib.parse.unquote(match[3])) not in self.objects:
            self.answer(404, b"No such object")
        elif self.command == "DELETE":
            del self.objects[key]
            self.answer(204)
        elif query.get("alt") == "media":
            self.answer(200, self.objects[key])
        else:
            self.json(self.said_of(key))

    def said_of(self, key: str) -> dict[str, Any]:
        size = str(len(self.objects[key]))
        return {"name": key, "size": size, "updated": "2026-11-30T12:00:00.000Z", "generation": "1"}

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")


class Azure(Cloud):
    """As much of the protocol of blobs as adlfs uses."""

    def handle_request(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        query = dict(urllib.parse.parse_qsl(url.query))
        _, _, container, *rest = url.path.split("/", 3)
        key = urllib.parse.unquote(rest[0]) if rest else ""
        dated = {"Last_Modified": DATE, "ETag": '"1"'}
        if container != "bucket":
            self.fail("ContainerNotFound")
        elif query.get("comp") == "list":
            found = [name for name in self.objects if name.startswith(query.get("prefix", ""))]
            blobs = "".join(
                f"<Blob><Name>{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Etag>1</Etag>"
                f"<Content-Length>{len(self.objects[name])}</Content-Length><BlobType>BlockBlob</BlobType>"
                "</Properties></Blob>"
                for name in found
            )
            xml = (
                '<?xml version="1.0"?><EnumerationResults ServiceEndpoint="http://127.0.0.1/me" '
                f'ContainerName="bucket"><Blobs>{blobs}</Blobs></EnumerationResults>'
            )
            self.answer(200, xml.encode(), Content_Type="application/xml")
        elif not key:
            self.answer(200, **dated)
        elif self.command == "PUT":
            self.objects[key] = body
            self.answer(201, **dated)
        elif key not in self.objects:
            self.fail("BlobNotFound")
        elif self.command == "DELETE":
            del self.objects[key]
            self.answer(202)
        else:
            data = self.objects[key]
            whole = f"bytes 0-{len(data) - 1}/{len(data)}"
            length = {} if self.command == "GET" else {"Content_Length": str(len(data))}
            status = 206 if self.headers.get("x-ms-range") and data else 200
            self.answer(status, data, Content_Range=whole, x_ms_blob_type="BlockBlob", **length, **dated)

    def fail(self, code: str) -> None:
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
        self.answer(404, body.encode(), x_ms_error_code=code, Content_Type="application/xml")


class Web(Cloud):
    """A server of pages that takes none: there is a folder `bucket`, and nothing is in it."""

    def handle_request(self, url: urllib.parse.SplitResult, body: bytes) -> None:
        self.answer(200 if url.path == "/bucket/" else 410 if "gone" in url.path else 404)


@attrs.frozen
class Place:
    """A bucket on a server that runs."""

    url: str
    options: dict[str, Any]
    handler: type[Cloud]

    def composition(self, name: str = "bucket/pre/fix", **more: Any) -> Composition:
        mapping = {
            "type": "objectstore",
            "object_store_url": self.url.format(name),
            "object_store_options": self.options,
            # obstore asks for more than these servers know; Azurite is there for both drivers.
            "driver": "fsspec" if self.url.startswith("abfs") else "auto",
            **more,
        }
        return Composition.from_mapping({"blobservices": {"root": mapping}})


DRIVERS: dict[str, tuple[str, type[Cloud], str, Callable[[int], dict[str, Any]]]] = {
    "gs": (
        "gcsfs",
        Google,
        "gs://{}",
        lambda port: {"token": "anon", "endpoint_url": f"http://127.0.0.1:{port}", "project": "p"},
    ),
    "abfs": (
        "adlfs",
        Azure,
        "abfs://{}",
        lambda port: {
            "connection_string": f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey={KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/me;"
        },
    ),
    "http": ("aiohttp", Web, "http://127.0.0.1:PORT/{}", lambda port: {}),
}
BUCKETS = ("gs", "abfs")


@pytest.fixture
def place_of() -> Iterator[Callable[[str], Place]]:
    """Start the server for a driver."""
    running: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(name: str) -> Place:
        module, base, url, options = DRIVERS[name]
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
        handler = type("Own", (base,), {"objects": {}, "requests": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return Place(url.replace("PORT", str(server.server_port)), options(server.server_port), handler)

    with warnings.catch_warnings():
        # The clients of these clouds warn of much, among that of each other.
        warnings.simplefilter("ignore")
        yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_written_and_read(place_of: Callable[[str], Place], name: str) -> None:
    """Blobs come back, are listed under their keys, and go; what is absent is absent, after one question."""
    place = place_of(name)
    with place.composition() as stores:
        blobs = stores.blobs()
        assert not blobs.has(HELLO.digest)
        assert not blobs.has(BLOB_A.digest)
        assert blobs.write(P3M.data) == P3M.digest
        assert blobs.write(HELLO.data) == HELLO.digest
        assert blobs.read(P3M.digest) == P3M.data
        lister = blobs.capability(BlobLister)
        assert lister is not None
        assert set(lister.list_blobs()) == {P3M.digest, HELLO.digest}
        assert verify(blobs).ok
    assert all(key.startswith("pre/fix/") for key in place.handler.objects)


CALLS: dict[str, Callable[[BlobService], object]] = {
    "has": lambda blobs: blobs.has(HELLO.digest),
    "missing": lambda blobs: blobs.missing([HELLO.digest, BLOB_A.digest]),
    "open_read": lambda blobs: blobs.open_read(HELLO.digest),
    "chunks": lambda blobs: blobs.chunks(HELLO.digest),
    "write": lambda blobs: blobs.write(HELLO.data),
    "list": lambda blobs: list(blobs.capability(BlobLister).list_blobs()),  # type: ignore[union-attr]
    "verify": verify,
    "copy": lambda blobs: copy(blobs, blobs),
}


@pytest.mark.parametrize("name", DRIVERS)
def test_a_bucket_that_is_not_there_is_unavailable(place_of: Callable[[str], Place], name: str) -> None:
    """Whatever is asked: that there is no bucket, or folder, is not that a blob is absent."""
    with place_of(name).composition("no-such-bucket/blobs") as stores:
        for call in CALLS.values():
            with pytest.raises(UnavailableError, match=r"there is no bucket `no-such-bucket`|no such folder"):
                call(stores.blobs())
        [probe] = stores.probe(timeout=30)
        assert probe.state == "unavailable"


@pytest.mark.parametrize("name", DRIVERS)
def test_it_is_asked_for_once(place_of: Callable[[str], Place], name: str) -> None:
    """A hundred blobs that are absent cost one more request than there are questions."""
    place = place_of(name)
    with place.composition("bucket") as stores:
        blobs = stores.blobs()
        blobs.has(HELLO.digest)
        first = len(place.handler.requests)
        blobs.has(BLOB_A.digest)
        second = len(place.handler.requests) - first
        for _ in range(3):
            blobs.has(P3M.digest)
        assert len(place.handler.requests) == first + 4 * second
        assert first - second == 1


def test_a_web_page_that_is_gone_is_absent(place_of: Callable[[str], Place]) -> None:
    """410 says what 404 says, and for good."""
    with place_of("http").composition("bucket/gone", create="path") as stores:
        assert stores.blobs().has(HELLO.digest) is False
        assert stores.blobs().open_read(HELLO.digest) is None


@pytest.mark.parametrize("name", DRIVERS)
def test_a_machine_on_which_nobody_listens_is_told_at_once(
    place_of: Callable[[str], Place], name: str
) -> None:
    """One attempt, and not the minute for which the drivers of Google's and Azure's would go on."""
    _, _, url, options = DRIVERS[name]
    place = Place(url.replace("PORT", "9"), options(9), Cloud)
    with warnings.catch_warnings(), place.composition() as stores:
        warnings.simplefilter("ignore")
        [probe] = stores.probe(timeout=8)
        assert probe.state == "unavailable"
        assert "no answer" not in probe.result


def test_a_bucket_cannot_list_what_is_not_there(place_of: Callable[[str], Place]) -> None:
    """Nor does it take an inventory."""
    with place_of("abfs").composition("no-such-bucket") as stores:
        inventory = stores.blobs().capability(Inventory)
        assert inventory is not None
        with pytest.raises(UnavailableError):
            list(inventory.list_items())
