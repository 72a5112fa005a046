"""The drivers of buckets, fsspec and obstore: the same keys, bytes and errors, on servers good and bad."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
import pytest
from fsspec.registry import _registry as loaded

from castore import (
    B3Digest,
    BlobService,
    Composition,
    CompositionError,
    CorruptBlobError,
    MissingDriverError,
    RefService,
    UnavailableError,
    UnsupportedError,
    from_url,
)
from castore.contract.capabilities import BlobLister, ChunkStore, Durable, FrameStore
from castore.contract.upkeep import DigestRange, Evictable, Sweepable
from castore.testing import BLOB_A, CHUNKS, EMPTY, HELLO, P3M, BlobServiceContract
from castore.upkeep import explain, verify
from castore_objectstore import drivers, obstore_store
from castore_objectstore.locations import choose_driver, open_store
from castore_objectstore.object_store import ObjectStore, TooLargeError
from castore_objectstore.obstore_options import CannotError, read_bucket
from castore_objectstore.service import ObjectStoreBlobService
from tests.plugins import test_chunk_stores as chunk_stores
from tests.plugins.s3_server import S3Server
from tests.refs import test_services as refs

if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask", "obstore")):
    pytest.skip("needs moto[s3,server], s3fs and obstore", allow_module_level=True)

import boto3

from tests.plugins.moto_servers import moto_server

DRIVERS = ("fsspec", "obstore")
REAL = os.environ.get("CASTORE_S3_ENDPOINT")
"""A server to be used in place of moto, with its keys in `CASTORE_S3_KEY` and `CASTORE_S3_SECRET`."""

SECRET = os.environ.get("CASTORE_S3_SECRET") or "a-secret-that-nobody-may-see"
ID = os.environ.get("CASTORE_S3_KEY") or "an-id"
KEYS = {"aws_access_key_id": ID, "aws_secret_access_key": SECRET, "aws_region": "us-east-1"}

CONFIG = """
[blobservices.root]
type = "objectstore"
object_store_url = "s3://bucket/pre/fix"
driver = "DRIVER"

[blobservices.root.object_store_options]
aws_access_key_id = "KEY"
aws_secret_access_key = "${CASTORE_TEST_SECRET}"
aws_endpoint_url = "ENDPOINT"
aws_region = "us-east-1"
aws_allow_http = "1"
config_kwargs = { connect_timeout = 1, read_timeout = SILENT }
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own settings counts."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CASTORE_TEST_SECRET", SECRET)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of its own, on a port that is free, or the one that is named."""
    if REAL:
        yield REAL
        return
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    """A new, empty bucket, as another client sees it."""
    s3 = boto3.resource(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ID,
        aws_secret_access_key=SECRET,
    )
    bucket = s3.Bucket("bucket")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()
    s3.meta.client.close()


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[..., Composition]]:
    """Open a composition with a bucket by a driver."""
    opened: list[Composition] = []

    def make(driver: str, to: str, *, silent: float = 5, text: str = CONFIG) -> Composition:
        path = tmp_path / f"{driver}{len(opened)}.toml"
        text = (
            text.replace('"KEY"', f'"{ID}"')
            .replace("DRIVER", driver)
            .replace("ENDPOINT", to)
            .replace("SILENT", str(silent))
        )
        path.write_text(text)
        opened.append(Composition.from_toml(path))
        return opened[-1]

    yield make
    for composition in opened:
        composition.close()


def open_bucket(driver: Any, endpoint: str, *, silent: float = 5.0, **options: Any) -> ObjectStore:
    given = {**KEYS, "aws_endpoint_url": endpoint, "config_kwargs": {"read_timeout": silent}, **options}
    return open_store("s3://bucket/pre", given, base=Path("/"), instance="root", driver=driver)


@pytest.fixture
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


# -- the same on both --


def test_a_listing_in_parts_asks_for_each_page_once(server: S3Server) -> None:
    """A server begins where a part begins, and is asked no more where it ends: a page more for each part."""
    digests = [B3Digest.of(b"%d" % number) for number in range(7000)]
    for digest in digests:
        server.objects[f"pre/chunks/b3/{digest.hex()[:4]}/{digest.hex()}"] = b"x"
    for name in ("0", "3x", "zz/y", "0800"):
        server.objects[f"pre/chunks/b3/{name}"] = b"of somebody else"
    inventory = ObjectStoreBlobService(open_bucket("obstore", server.endpoint))
    server.requests.clear()
    whole = Counter(item.key for item in inventory.list_items())
    asked = len(server.requests)
    assert whole.total() == 7004
    server.requests.clear()
    parts = DigestRange.parts(8)
    assert Counter(item.key for part in parts for item in inventory.list_items_in(part)) == whole
    # Of indexes there are none: a request for each part.
    assert len(server.requests) <= asked + 2 * len(parts)


class TestContract(BlobServiceContract):
    """A bucket keeps the contract."""

    capabilities = (BlobLister, ChunkStore, FrameStore, Durable, Sweepable, Evictable)

    @pytest.fixture
    def service(self, server: S3Server, compose: Callable[..., Composition]) -> BlobService:
        return compose("obstore", server.endpoint).blobs()


@pytest.fixture(params=["objectstore", "packed"])
def chunk_store(request: pytest.FixtureRequest, server: S3Server) -> Iterator[Any]:
    """One by its URL, with nothing around it."""
    options = {**KEYS, "aws_endpoint_url": server.endpoint, "driver": "obstore"}
    with from_url(f"{request.param}+s3://bucket/pre?{urlencode(options)}") as service:
        yield service


@pytest.mark.parametrize("case", chunk_stores.CLAIMS)
def test_blobs_are_claimed_as_everywhere(chunk_store: Any, case: str) -> None:
    chunk_stores.test_a_blob_is_claimed_if_all_of_it_is_there(chunk_store, case)


@pytest.mark.parametrize("case", chunk_stores.LISTS)
def test_lists_are_replaced_as_everywhere(chunk_store: Any, case: str) -> None:
    chunk_stores.test_the_last_list_counts(chunk_store, case)


def test_what_one_writes_the_other_reads(
    endpoint: str, bucket: Any, compose: Callable[..., Composition]
) -> None:
    """Equal keys and equal bytes, on moto, as another client sees them."""
    written: dict[str, dict[str, bytes]] = {}
    blobs = (BLOB_A, EMPTY, P3M, HELLO)
    for driver, other in (("fsspec", "obstore"), ("obstore", "fsspec")):
        with compose(driver, endpoint) as writer, compose(other, endpoint) as reader:
            for blob in blobs:
                assert writer.blobs().write(blob.data) == blob.digest
            for blob in blobs:
                assert reader.blobs().read(blob.digest) == blob.data
            assert set(reader.blobs().list_blobs()) == {blob.digest for blob in blobs}  # type: ignore[attr-defined]
            assert verify(reader.blobs()).ok
            # Nothing is written anew of what the other one has written.
            before = {entry.key: entry.last_modified for entry in bucket.objects.all()}
            reader.blobs().write(P3M.data)
            assert {entry.key: entry.last_modified for entry in bucket.objects.all()} == before
        written[driver] = {entry.key: entry.get()["Body"].read() for entry in bucket.objects.all()}
        bucket.objects.all().delete()
    assert written["fsspec"] == written["obstore"]
    assert len(written["obstore"]) > len(blobs)


@pytest.fixture(params=["folder", "memory", *DRIVERS])
def store(request: pytest.FixtureRequest, server: S3Server, tmp_path: Path) -> ObjectStore:
    """Each store that there is."""
    if request.param in DRIVERS:
        return open_bucket(request.param, server.endpoint)
    url = {"folder": f"file:{tmp_path}", "memory": "memory:"}[request.param]
    return open_store(url, {}, base=Path("/"), instance="root")


DIGEST = B3Digest.of(b"an object").hex()
KEY = f"chunks/b3/{DIGEST[:4]}/{DIGEST}"

# A part of 100 bytes that is asked for, and what comes.
RANGES = {(0, 10): (0, 10), (95, 10): (95, 100), (0, 1000): (0, 100), (100, 5): (0, 0), (500, 5): (0, 0)}


def test_parts_of_an_object(store: ObjectStore) -> None:
    data = bytes(range(100))
    store.put(KEY, data)
    store.flush()
    for (offset, count), (begin, end) in RANGES.items():
        assert store.get_range(KEY, offset, count) == data[begin:end], (offset, count)
    assert store.get_tail(KEY, 7) == data[-7:]
    assert store.get_tail(KEY, 700) == data
    absent = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
    assert store.get_range(absent, 0, 5) is None
    assert store.get_tail(absent, 5) is None
    assert store.get(absent) is None
    with pytest.raises(TooLargeError):
        store.get(KEY, 99)
    assert store.get(KEY, 100) == data
    empty = absent
    store.put(empty, b"")
    store.flush()
    assert store.get(empty) == b""
    assert store.get_range(empty, 0, 5) == b""
    assert store.get_tail(empty, 5) == b""


def test_what_is_listed_and_removed(store: ObjectStore) -> None:
    """Many at once, from where one left off; what is not there is no error."""
    digests = sorted(B3Digest.of(bytes([n, m])).hex() for n in range(6) for m in range(4))
    keys = [f"chunks/b3/{digest[:4]}/{digest}" for digest in digests]
    for key in keys:
        store.put(key, b"x" * 20)
    store.flush()
    listed = {entry.key: entry.size for entry in store.list("chunks/b3/") if not entry.foreign}
    assert listed == dict.fromkeys(keys, 20)
    assert sorted(entry.key for entry in store.list("chunks/b3/", after=keys[9])) == keys[10:]
    assert list(store.list("blobs/b3/")) == []
    store.remove([*keys[:20], keys[0]])
    store.remove(keys[:1])
    assert sorted(entry.key for entry in store.list("chunks/b3/")) == keys[20:]
    aside = store.set_aside(keys[20])
    assert aside == f"quarantine/{keys[20]}"
    assert store.get(aside) == b"x" * 20
    assert store.describe(keys[20]) is None


def test_a_thousand_are_removed_by_one_request(server: S3Server) -> None:
    store = open_bucket("obstore", server.endpoint)
    digests = [B3Digest.of(n.to_bytes(2)).hex() for n in range(1200)]
    server.objects |= {f"pre/chunks/b3/{digest[:4]}/{digest}": b"" for digest in digests}
    server.requests.clear()
    store.remove([f"chunks/b3/{digest[:4]}/{digest}" for digest in digests])
    assert server.objects == {}
    assert len(server.requests) == 2


def test_a_listing_goes_on_where_it_is_to(server: S3Server) -> None:
    """The server leaves out what comes before: a listing of news does not list all."""
    digests = sorted(B3Digest.of(n.to_bytes(2)).hex() for n in range(2500))
    keys = [f"chunks/b3/{digest[:4]}/{digest}" for digest in digests]
    server.objects |= {f"pre/{key}": b"" for key in keys}
    store = open_bucket("obstore", server.endpoint)
    server.requests.clear()
    assert [entry.key for entry in store.list("chunks/b3/")] == keys
    assert len(server.requests) == 3
    server.requests.clear()
    assert [entry.key for entry in store.list("chunks/b3/", after=keys[-10])] == keys[-9:]
    assert len(server.requests) == 1


REFS = CONFIG.replace("blobservices", "refservices") + CONFIG


@pytest.mark.long
class TestRefs(refs.TestReadingAndWriting):
    """In a bucket by obstore as everywhere."""

    @pytest.fixture
    def service(self, server: S3Server, compose: Callable[..., Composition]) -> RefService:
        return compose("obstore", server.endpoint, text=REFS).refs()


class TestRefsExpected(refs.TestExpecting):
    """What is expected is compared by the server, in one step with the change."""

    @pytest.fixture
    def service(
        self, endpoint: str, bucket: Any, compose: Callable[..., Composition]
    ) -> Iterator[RefService]:
        service = compose("obstore", endpoint, text=REFS).refs()
        yield service
        for name in list(service.names()):
            assert service.delete(name, expect=service.get(name))
        # A condition is tried on an object of its own, which does not stay.
        assert list(bucket.objects.all()) == []


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_passes_over_conditions(server: S3Server, driver: str) -> None:
    """It is found out before anything is changed, and nothing of the trial stays."""
    store = open_bucket(driver, server.endpoint)
    store.replace("refs/www.json", b"1")
    server.fault = lambda method, key: "no-conditions"
    with pytest.raises(UnsupportedError, match="the server passes over"):
        store.replace("refs/www.json", b"2", lambda there: there == b"1")
    assert server.objects == {"pre/refs/www.json": b"1"}


def test_a_server_that_refuses_what_a_condition_allows(server: S3Server) -> None:
    """As one of Ceph's does; else there would be no end of trying."""
    store = open_bucket("obstore", server.endpoint)
    puts: list[str] = []

    def fault(method: str, key: str) -> object:
        if method in ("PUT", "DELETE"):
            puts.append(method)
        return 412 if puts[1:] and method == "PUT" else None

    server.fault = fault
    with pytest.raises(UnsupportedError, match="the server refuses what a condition allows"):
        store.replace("refs/www.json", b"2", lambda there: True)


# -- bad servers --


@attrs.frozen
class Bad:
    """What a server does wrong, how often, and what comes of it: `right`, or the class of the error."""

    fault: object
    times: int = 10_000
    read: Any = UnavailableError
    write: Any = UnavailableError
    has: Any = UnavailableError
    listing: Any = UnavailableError


RIGHT = "right"
ONCE: dict[str, Any] = {"times": 1, "read": RIGHT, "write": RIGHT, "has": RIGHT, "listing": RIGHT}
BAD = {
    "500": Bad(500),
    "500 once": Bad(500, **ONCE),
    "503": Bad(503),
    "503 once": Bad(503, **ONCE),
    "429": Bad(429),
    "403": Bad(403),
    "hangs": Bad("hang"),
    "hangs once": Bad("hang", **ONCE),
    "closes": Bad("close"),
    "closes once": Bad("close", **ONCE),
    "closes in mid-body": Bad("cut", write=RIGHT, has=RIGHT),
    "closes in mid-body once": Bad("cut", **ONCE),
    "truncates": Bad("short", read=CorruptBlobError, write=RIGHT, has=RIGHT, listing=RIGHT),
    "flips a bit": Bad("flip", read=CorruptBlobError, write=RIGHT, has=RIGHT, listing=RIGHT),
    "ignores ranges": Bad("no-ranges", read=RIGHT, write=RIGHT, has=RIGHT, listing=RIGHT),
    "lists garbage": Bad("garbage", read=RIGHT, write=RIGHT, has=RIGHT),
}
QUICK = [
    ("obstore", name)
    for name in ("500", "503 once", "403", "hangs once", "closes once", "closes in mid-body", "truncates")
] + [("fsspec", "500 once"), ("fsspec", "truncates")]
SLOW = [(driver, name) for driver in DRIVERS for name in BAD if (driver, name) not in QUICK]

NEW = b"something new " * 100
SMALL = CHUNKS[0]


def meet(server: S3Server, bad: Bad, call: Callable[[], object]) -> object:
    """Do something while the server is bad; return what came of it, or the error, with its time."""
    left = [bad.times]

    def fault(method: str, key: str) -> object:
        left[0] -= 1
        return bad.fault if left[0] >= 0 else None

    server.fault = fault
    started = time.monotonic()
    try:
        return call()
    except Exception as error:
        return error
    finally:
        server.fault = lambda method, key: None
        # Nothing hangs: two attempts of at most so long, and what an upload of a MiB may take.
        assert time.monotonic() - started < 40


def check_bad(server: S3Server, store: Any, name: str) -> None:
    bad = BAD[name]
    digest = store.write(SMALL.data)
    outcomes = {
        "read": (bad.read, lambda: store.read(digest), SMALL.data),
        "has": (bad.has, lambda: store.has(digest), True),
        "listing": (bad.listing, lambda: list(store.list_blobs()), [digest]),
        "write": (bad.write, lambda: store.write(NEW), B3Digest.of(NEW)),
    }
    for operation, (expected, call, right) in outcomes.items():
        found = meet(server, bad, call)
        allowed = expected if isinstance(expected, tuple) else (expected,)
        if isinstance(found, Exception):
            kinds = tuple(kind for kind in allowed if kind != RIGHT)
            assert isinstance(found, kinds), (operation, found)
            assert SECRET not in str(found)
            assert "\n" not in str(found)
        else:
            assert RIGHT in allowed, (operation, found)
            assert found == right, operation
    # And all is right again, with nothing wrong left behind.
    assert store.write(NEW) == B3Digest.of(NEW)
    assert store.read(digest) == SMALL.data
    assert store.read(B3Digest.of(NEW)) == NEW


@pytest.mark.parametrize(("driver", "name"), QUICK)
def test_a_bad_server(server: S3Server, compose: Callable[..., Composition], driver: str, name: str) -> None:
    """Right bytes or an error with a type, in bounded time."""
    check_bad(server, compose(driver, server.endpoint, silent=0.3).blobs(), name)


@pytest.mark.long
@pytest.mark.parametrize(("driver", "name"), SLOW)
def test_a_bad_server_with_patience(
    server: S3Server, compose: Callable[..., Composition], driver: str, name: str
) -> None:
    """As above, where drivers wait."""
    check_bad(server, compose(driver, server.endpoint, silent=0.3).blobs(), name)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_is_killed_and_started_again(
    server: S3Server, compose: Callable[..., Composition], driver: str
) -> None:
    """Its clients tell that it is gone, and go on with the same connections, opened anew."""
    blobs = compose(driver, server.endpoint).blobs()
    digest = blobs.write(P3M.data)
    server.stop()
    for call in (lambda: blobs.has(digest), lambda: blobs.read(digest), lambda: blobs.write(NEW)):
        with pytest.raises(UnavailableError, match="`root` is unavailable"):
            call()
    server.start()
    assert blobs.read(digest) == P3M.data
    assert blobs.write(NEW) == B3Digest.of(NEW)


# -- forks --


def in_child(call: Callable[[], object]) -> str:
    """Do something in a child of a fork; return what came of it, or `hangs`."""
    receives, sends = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = f"{call()}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(sends, said.encode())
        os._exit(0)
    os.close(sends)
    os.set_blocking(receives, False)
    ends = time.monotonic() + 20
    try:
        while time.monotonic() < ends:
            if os.waitpid(child, os.WNOHANG)[0]:
                return os.read(receives, 10_000).decode()
            time.sleep(0.01)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "hangs"
    finally:
        os.close(receives)


def test_a_child_of_a_fork(server: S3Server) -> None:
    """obstore's threads are not there: another driver does it, or an error tells the way out at once."""
    told, auto = open_bucket("obstore", server.endpoint), open_bucket("auto", server.endpoint)
    for store in (told, auto):
        store.put(KEY, b"of the parent")
        assert isinstance(store, obstore_store.ObstoreObjectStore)
    said = in_child(lambda: told.get(KEY))
    assert "UnsupportedError" in said
    assert "`spawn` or `forkserver`" in said

    def use() -> object:
        auto.put("blobs/of-the-child", b"")
        return auto.get(KEY), auto.describe(KEY).size, [entry.key for entry in auto.list("blobs/")]  # type: ignore[union-attr]

    assert in_child(use) == str((b"of the parent", 13, ["blobs/of-the-child"]))
    # The parent goes on.
    assert auto.get(KEY) == b"of the parent"
    assert told.exists("blobs/of-the-child")


def test_a_fork_before_it_is_used(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a child has threads of its own; this process has used it, and so a new one is asked."""
    program = f"""
import os, sys
from pathlib import Path
from castore_objectstore.locations import open_store
options = {{**{KEYS!r}, "aws_endpoint_url": {server.endpoint!r}}}
store = open_store("s3://bucket/pre", options, base=Path("/"), instance="root", driver="obstore")
if os.fork() == 0:
    store.put("blobs/a", b"by the child")
    os._exit(0)
assert os.wait()[1] == 0
print(store.get("blobs/a"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "b'by the child'\n", done.stderr


def test_one_signal_ends_a_program_whose_bucket_hangs(server: S3Server, tmp_path: Path) -> None:
    """obstore lets none in; so the thread that gets them only waits, also for a page of a listing."""
    server.fault = lambda method, key: "hang"
    path = tmp_path / "composition.toml"
    path.write_text(
        CONFIG.replace("DRIVER", "obstore").replace("ENDPOINT", server.endpoint).replace("SILENT", "60")
    )
    command = [sys.executable, "-m", "castore", "--composition", str(path), "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        ends = time.monotonic() + 60
        while not server.requests and time.monotonic() < ends:
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        program.communicate(timeout=20)
    assert program.returncode == 130


def test_it_is_opened_again_after_it_was_closed(server: S3Server) -> None:
    store = open_bucket("obstore", server.endpoint)
    for number in range(2):
        store.put(KEY, b"%d" % number)
        assert [store.get(entry.key) for entry in store.list("chunks/b3/")] == [b"%d" % number]
        store.close()


# -- which one it is --


@pytest.mark.parametrize("driver", DRIVERS)
def test_which_one_it_is_is_told(server: S3Server, compose: Callable[..., Composition], driver: str) -> None:
    stores = compose(driver, server.endpoint)
    digest = stores.blobs().write(HELLO.data)
    (probe,) = stores.probe()
    assert (probe.result, probe.route) == ("ok", driver)
    for plan in explain(stores, digest):
        assert plan.says.endswith(f", by {driver}")


ENDPOINT = {"aws_endpoint_url": "http://127.0.0.1:9"}
AZURE = {"account_name": "team", "account_key": "a2V5"}

# The URL, the options, the environment, and the driver that `auto` takes, with the words of its reason.
CHOICES: dict[str, tuple[str, dict[str, Any], dict[str, str], str, str]] = {
    "keys and a region": ("s3://bucket/a", KEYS, {}, "obstore", "faster"),
    "keys and an endpoint": ("s3a://bucket/a", {"key": "a", "secret": "b", **ENDPOINT}, {}, "obstore", ""),
    "no credentials": ("s3://bucket/a", {"region": "eu-west-1"}, {}, "fsspec", "no credentials"),
    "keys in the environment": (
        "s3://bucket/a",
        {"region": "eu-west-1"},
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
        "obstore",
        "",
    ),
    "a profile in the environment": (
        "s3://bucket/a",
        {"region": "eu-west-1"},
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_PROFILE": "team"},
        "fsspec",
        "no credentials",
    ),
    "no region": ("s3://bucket/a", {"key": "a", "secret": "b"}, {}, "fsspec", "no region"),
    "a region in the environment": (
        "s3://bucket/a",
        {"key": "a", "secret": "b"},
        {"AWS_DEFAULT_REGION": "eu-west-1"},
        "obstore",
        "",
    ),
    "anonymous": ("s3://bucket/a", {"anon": True, "region": "eu-west-1"}, {}, "obstore", ""),
    "a profile": ("s3://bucket/a", {"aws_profile": "team"}, {}, "fsspec", "`aws_profile`"),
    "an option of s3fs": (
        "s3://bucket/a",
        {**KEYS, "requester_pays": True},
        {},
        "fsspec",
        "`requester_pays`",
    ),
    "another table": (
        "s3://bucket/a",
        {**KEYS, "config_kwargs": {"signature_version": "s3"}},
        {},
        "fsspec",
        "`config_kwargs.signature_version`",
    ),
    "an option of obstore": (
        "s3://bucket/a",
        {**KEYS, "virtual_hosted_style_request": True},
        {},
        "obstore",
        "`virtual_hosted_style_request`",
    ),
    "a chain": ("simplecache::s3://bucket/a", {"s3": KEYS}, {}, "fsspec", "such a URL"),
    "an access point": ("s3://arn:aws:s3:eu-west-1:1:accesspoint/a", KEYS, {}, "fsspec", "names like"),
    "empty parts": ("s3://bucket/a//b", KEYS, {}, "fsspec", "empty parts"),
    "Azure with a key": ("abfs://box/a", AZURE, {}, "obstore", ""),
    "Azure with a SAS": ("az://box/a", {"account_name": "team", "sas_token": "sv=1"}, {}, "obstore", ""),
    "Azure without": ("abfs://box/a", {"account_name": "team"}, {}, "fsspec", "no credentials"),
    "Google": ("gs://bucket/a", {}, {}, "fsspec", "such a URL"),
    "SSH": ("sftp://host/a", {}, {}, "fsspec", "such a URL"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_what_auto_takes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, options, environment, driver, why = CHOICES[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    choice = choose_driver(url, options, "auto")
    assert (choice.driver, why in choice.why) == (driver, True), choice
    # Which of the two is installed is the last word, where there is a choice.
    monkeypatch.setitem(sys.modules, "obstore", None)
    if "virtual" in why:
        with pytest.raises(MissingDriverError, match=r"pip install 'castore\[obstore\]'"):
            choose_driver(url, options, "auto")
    else:
        assert choose_driver(url, options, "auto").driver == "fsspec"


def test_obstore_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where s3fs is not installed, `auto` takes the one that is."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(loaded, "s3", raising=False)
    choice = choose_driver("s3://bucket/a", {}, "auto")
    assert (choice.driver, choice.why) == ("obstore", "`s3fs` is not installed")


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "castore_objectstore.obstore_store")
    with pytest.raises(MissingDriverError) as caught:
        open_bucket("obstore", "http://127.0.0.1:9")
    assert str(caught.value) == "the driver `obstore` is not installed: run `pip install 'castore[obstore]'`"


# Options by any of their names, and what obstore is given.
OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "the reference": (
        "s3://bucket/a/b",
        {
            **KEYS,
            "aws_session_token": "t",
            "aws_endpoint": "https://host/",
            "aws_allow_http": "true",
            "user_agent": "me",
        },
        {
            "access_key_id": ID,
            "secret_access_key": SECRET,
            "session_token": "t",
            "region": "us-east-1",
            "endpoint": "https://host",
            "user_agent": "me",
            "allow_http": False,
        },
    ),
    "s3fs": (
        "s3://bucket",
        {
            "key": "a",
            "secret": "b",
            "token": "t",
            "endpoint_url": "http://host",
            "client_kwargs": {"region_name": "eu-west-1", "verify": False},
            "config_kwargs": {"read_timeout": 3, "user_agent_extra": "me"},
        },
        {
            "access_key_id": "a",
            "secret_access_key": "b",
            "session_token": "t",
            "region": "eu-west-1",
            "endpoint": "http://host",
            "read_timeout": 3,
            "user_agent": "me",
            "allow_http": True,
            "allow_invalid_certificates": True,
        },
    ),
    "nobody": (
        "s3://bucket",
        {"skip_signature": True, "default_region": "eu-west-1"},
        {"skip_signature": True, "region": "eu-west-1", "allow_http": False},
    ),
    "adlfs": (
        "abfs://box@team.dfs.core.windows.net/a",
        {"account_key": "a2V5", "connection_timeout": 3},
        {"account_name": "team", "account_key": "a2V5", "connect_timeout": 3, "allow_http": False},
    ),
    "a connection string": (
        "az://box/a",
        {
            "connection_string": "DefaultEndpointsProtocol=http;AccountName=team;AccountKey=a2V5==;"
            "BlobEndpoint=http://127.0.0.1:10000/team;"
        },
        {
            "account_name": "team",
            "account_key": "a2V5==",
            "endpoint": "http://127.0.0.1:10000/team",
            "allow_http": True,
        },
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_by_any_of_their_names(case: str) -> None:
    url, options, given = OPTIONS[case]
    bucket = read_bucket(url, options)
    assert {**bucket.config, **bucket.client} == given
    assert SECRET not in repr(bucket)
    assert "a2V5" not in repr(bucket)


CANNOT = {
    "half of the keys": ("s3://bucket", {"key": "a"}, "both an access key and its secret"),
    "a profile": ("s3://bucket", {"aws_profile": "a"}, "`aws_profile`"),
    "no account": ("az://box", {"account_key": "a"}, "`account_name`"),
    "two accounts": (
        "abfs://box@a.dfs.core.windows.net",
        {"account_name": "b"},
        "another `account_name`",
    ),
    "no such file": (
        "s3://bucket",
        {"root_certificate": "/nowhere/ca.pem"},
        "No such file or directory: /nowhere/ca.pem",
    ),
}


@pytest.mark.parametrize("case", CANNOT)
def test_what_obstore_cannot(case: str) -> None:
    url, options, said = CANNOT[case]
    with pytest.raises(CannotError, match=said):
        read_bucket(url, options)


OBSTORE_SERVES = "obstore serves `s3:` and `abfs:` here"

# What is wrong with a composition, and what is said of it.
WRONG = {
    "a folder": (
        'object_store_url = "file:./a"\ndriver = "obstore"',
        OBSTORE_SERVES,
    ),
    "a driver for a folder": ('object_store_url = "file:./a"\ndriver = "fsspec"', "castore's own"),
    "Google": ('object_store_url = "gs://a/b"\ndriver = "obstore"', OBSTORE_SERVES),
    "a profile": (
        'object_store_url = "s3://b/b"\ndriver = "obstore"\nobject_store_options = { aws_profile = "a" }',
        "no option `aws_profile`",
    ),
    "an unknown option": (
        'object_store_url = "s3://bucket/b"\ndriver = "obstore"\nobject_store_options = { aws_regoin = "a" }',
        "did you mean `aws_region`",
    ),
    "one in the query": (
        'object_store_url = "s3://bucket/b?anonn=1"\ndriver = "obstore"',
        "no option `anonn`",
    ),
    "of both": (
        'object_store_url = "s3://b/b"\nobject_store_options = { requester_pays = true, s3_express = true }',
        "no driver has all its options: `s3_express` is for obstore, but .* `requester_pays`",
    ),
    "half of the keys": (
        'object_store_url = "s3://bucket/b"\ndriver = "obstore"\nobject_store_options = { key = "a" }',
        "the driver `obstore` cannot have it: .*both an access key and its secret",
    ),
    "another driver": ('object_store_url = "s3://a/b"\ndriver = "boto"', "driver: expected .*obstore"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_when_it_is_read(case: str, tmp_path: Path) -> None:
    text, said = WRONG[case]
    path = tmp_path / "composition.toml"
    path.write_text(f'[blobservices.root]\ntype = "objectstore"\n{text}\n')
    with pytest.raises(CompositionError, match=said):
        Composition.from_toml(path)


def test_no_secret_leaves(server: S3Server, compose: Callable[..., Composition]) -> None:
    stores = compose("obstore", server.endpoint)
    blobs = stores.blobs()
    blobs.write(SMALL.data)
    store: Any = blobs
    while not hasattr(store, "_store"):
        store = store._inner
    shown = f"{stores!r} {stores.graph!r} {vars(store)!r} {vars(store._store)!r}"
    assert SECRET not in shown


def test_a_token_of_the_environment_goes_with_no_other_key(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to the key that stands beside it there."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-another-key")
    tokens: list[str | None] = []
    store = open_bucket("obstore", server.endpoint)
    handler = server._server.RequestHandlerClass
    take = handler._take

    def seen(self: Any) -> None:
        tokens.append(self.headers.get("x-amz-security-token"))
        take(self)

    handler.do_PUT = seen
    store.put(KEY, b"x")
    assert tokens == [None]


def test_an_upload_has_the_time_that_it_needs() -> None:
    """A time limit for all requests alike would end a slow upload of a pack."""
    store: Any = open_bucket("obstore", "http://127.0.0.1:9", silent=30)
    sizes = []
    made = store._open_now
    store._open_now = lambda size: sizes.append(size) or made(size)
    for size in (0, 1, 1 << 20, (1 << 20) + 1, 16 << 20):
        store._open(size)
    assert sizes == [0, 1 << 20, 4 << 20, 16 << 20]


def test_a_driver_of_s3_is_not_patient() -> None:
    """Its own attempts are around those of the library beneath it: together they were 25 for one object."""
    fs, _ = open_bucket("fsspec", "http://127.0.0.1:9")._open()  # type: ignore[attr-defined]
    assert fs.retries == 1
    assert drivers.driver_of("s3").options["config_kwargs"]["retries"] == {"max_attempts": 1}
