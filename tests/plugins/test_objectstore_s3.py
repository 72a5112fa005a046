"""Buckets: a real S3 server (moto's, over HTTP), written to and read through a composition."""

from __future__ import annotations

import http.server
import importlib.util
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from castore import (
    BlobService,
    Composition,
    CompositionError,
    CorruptChunkError,
    RefService,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import BlobLister, ChunkStore, Durable, FrameStore
from castore.contract.upkeep import Evictable, Sweepable
from castore.format import refs as written
from castore.testing import BLOB_A, BLOB_B, EMPTY, HELLO, P3M, BlobServiceContract
from castore.upkeep import CopyCounts, collect, copy, repair, verify
from tests.refs import test_services as refs

if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask")):
    pytest.skip("needs moto[s3,server] and s3fs", allow_module_level=True)

import boto3

from tests.plugins.moto_servers import moto_server

NOBODY = "http://127.0.0.1:9"
SECRET = "a-secret-that-nobody-may-see"

FSSPEC_NAMES = """
[blobservices.root]
type = "objectstore"
object_store_url = "s3://bucket/pre/fix"
driver = "fsspec"

[blobservices.root.object_store_options]
key = "an-id"
secret = "${CASTORE_TEST_SECRET}"
endpoint_url = "ENDPOINT"
client_kwargs = { region_name = "us-east-1" }
"""

NAMES_OF_THE_REFERENCE = """
[blobservices.root]
type = "objectstore"
object_store_url = "s3://bucket/pre/fix"
driver = "fsspec"

[blobservices.root.object_store_options]
aws_access_key_id = "an-id"
aws_secret_access_key = "${CASTORE_TEST_SECRET}"
aws_endpoint_url = "ENDPOINT"
aws_region = "us-east-1"
aws_allow_http = "1"
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server of its own, on a port that is free."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def other_client(endpoint: str) -> Iterator[Any]:
    """Another client than castore's."""
    s3 = boto3.resource(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="an-id",
        aws_secret_access_key=SECRET,
    )
    yield s3
    s3.meta.client.close()


@pytest.fixture
def bucket(other_client: Any) -> Iterator[Any]:
    """A new, empty bucket, as the other client sees it."""
    bucket = other_client.Bucket("bucket")
    bucket.create()
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture
def compose(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Composition]]:
    """Write a composition to a file and open it."""
    monkeypatch.setenv("CASTORE_TEST_SECRET", SECRET)
    opened: list[Composition] = []

    def make(text: str = FSSPEC_NAMES, *, to: str = endpoint) -> Composition:
        path = tmp_path / "composition.toml"
        path.write_text(text.replace("ENDPOINT", to))
        opened.append(Composition.from_toml(path))
        return opened[-1]

    yield make
    for composition in opened:
        composition.close()


@pytest.mark.slow
class TestContract(BlobServiceContract):
    """A bucket keeps the contract."""

    capabilities = (BlobLister, ChunkStore, FrameStore, Durable, Sweepable, Evictable)

    @pytest.fixture
    def service(self, bucket: Any, compose: Callable[..., Composition]) -> BlobService:
        return compose().blobs()


@pytest.mark.parametrize("text", [FSSPEC_NAMES, NAMES_OF_THE_REFERENCE], ids=["fsspec", "reference"])
def test_round_trip(bucket: Any, compose: Callable[..., Composition], text: str) -> None:
    """By either names of its options, a bucket takes blobs and gives them back, and lists them."""
    blobs = compose(text).blobs()
    for blob in (BLOB_A, BLOB_B, EMPTY, P3M):
        assert blobs.has(blob.digest) is False
        assert blobs.write(blob.data) == blob.digest
        assert blobs.read(blob.digest) == blob.data
    lister = blobs.capability(BlobLister)
    assert lister is not None
    assert set(lister.list_blobs()) == {blob.digest for blob in (BLOB_A, BLOB_B, EMPTY, P3M)}
    assert blobs.missing([BLOB_A.digest, HELLO.digest]) == {HELLO.digest}


def test_layout(bucket: Any, compose: Callable[..., Composition], key_of: Any) -> None:
    """The keys are the reference's, under the prefix of the URL, and nothing else is in the bucket."""
    compose().blobs().write(P3M.data)
    compose().blobs().write(b"")
    keys = sorted(entry.key for entry in bucket.objects.all())
    chunks = compose().blobs().chunks(P3M.digest) or ()
    assert len(chunks) == 8
    expected = [f"pre/fix/{key_of('chunks', chunk.digest)}" for chunk in chunks]
    expected += [f"pre/fix/{key_of('blobs', digest)}" for digest in (P3M.digest, EMPTY.digest)]
    assert keys == sorted(expected)


def test_what_others_write_is_seen_at_once(
    bucket: Any, compose: Callable[..., Composition], key_of: Any, frame_of: Any
) -> None:
    """No listing is cached: what another client puts or deletes is so for castore, too."""
    blobs = compose().blobs()
    lister = blobs.capability(BlobLister)
    assert lister is not None
    assert list(lister.list_blobs()) == []
    assert blobs.has(HELLO.digest) is False
    bucket.put_object(Key=f"pre/fix/{key_of('chunks', HELLO.digest)}", Body=frame_of(HELLO.data))
    bucket.put_object(Key=f"pre/fix/{key_of('blobs', HELLO.digest)}", Body=b"")
    assert list(lister.list_blobs()) == [HELLO.digest]
    assert blobs.read(HELLO.digest) == HELLO.data
    bucket.objects.all().delete()
    assert list(lister.list_blobs()) == []
    assert blobs.open_read(HELLO.digest) is None


def test_damage_is_told(bucket: Any, compose: Callable[..., Composition], key_of: Any, frame_of: Any) -> None:
    """A chunk that was changed in the bucket is corrupt."""
    blobs = compose().blobs()
    blobs.write(HELLO.data)
    bucket.put_object(Key=f"pre/fix/{key_of('chunks', HELLO.digest)}", Body=frame_of(b"Other World!"))
    with pytest.raises(CorruptChunkError, match=key_of("chunks", HELLO.digest)):
        blobs.read(HELLO.digest)


def test_maintenance(
    bucket: Any, compose: Callable[..., Composition], tmp_path: Path, key_of: Any, frame_of: Any
) -> None:
    """A bucket is filled by a copy, verified, and mended from where the copy came from."""
    place = f'\n[blobservices.here]\ntype = "objectstore"\nobject_store_url = "file:{tmp_path}/here"\n'
    stores = compose(FSSPEC_NAMES + place)
    here, there = stores.blobs("here"), stores.blobs()
    blobs = [here.write(blob.data) for blob in (P3M, HELLO, EMPTY, BLOB_A)]
    assert copy(here, there, pool=stores.pool)[0].blobs_copied == 4
    assert copy(here, there, pool=stores.pool)[0] == CopyCounts(blobs_skipped=4)
    assert verify(there, expected=blobs).ok
    chunks = [chunk.digest for chunk in there.chunks(P3M.digest) or ()]
    bucket.put_object(Key=f"pre/fix/{key_of('chunks', chunks[1])}", Body=frame_of(b"something else"))
    bucket.Object(f"pre/fix/{key_of('chunks', chunks[2])}").delete()
    bucket.put_object(Key=f"pre/fix/{key_of('blobs', HELLO.digest)}", Body=b"rubbish")

    findings = verify(there, expected=blobs).findings

    assert {(finding.what, finding.digest, finding.code) for finding in findings} == {
        ("chunk", chunks[1], "corrupt-chunk"),
        ("chunk", chunks[2], "missing-chunk"),
        ("blob", P3M.digest, "corrupt-chunk"),
        ("index", HELLO.digest, "bad-index"),
    }
    assert all(mending.mended for mending in repair(there, here, findings))
    assert verify(there, expected=blobs).ok
    assert there.read(P3M.digest) == P3M.data
    quarantined = bucket.Object(f"pre/fix/quarantine/{key_of('blobs', HELLO.digest)}").get()["Body"].read()
    assert quarantined == b"rubbish"


def check_unavailable(blobs: BlobService) -> list[str]:
    """Check that everything raises `UnavailableError`; return the messages."""
    lister = blobs.capability(BlobLister)
    assert lister is not None
    calls: list[Callable[[], object]] = [
        lambda: blobs.has(HELLO.digest),
        lambda: blobs.open_read(HELLO.digest),
        lambda: blobs.chunks(HELLO.digest),
        lambda: blobs.write(HELLO.data),
        lambda: list(lister.list_blobs()),
    ]
    messages = []
    for call in calls:
        with pytest.raises(UnavailableError) as caught:
            call()
        messages.append(str(caught.value))
    return messages


FALLBACK = """
[blobservices.root]
type = "fallback"
services = ["&near", "&bucket"]

[blobservices.near]
type = "memory"

"""


def test_a_bucket_that_is_not_there(endpoint: str, compose: Callable[..., Composition]) -> None:
    """What does not exist has no blobs and lacks none: each question is an error that says so."""
    stores = compose(FSSPEC_NAMES.replace("bucket", "no-such-bucket"))
    blobs = stores.blobs()
    for message in check_unavailable(blobs):
        assert "s3://no-such-bucket/pre/fix: there is no bucket `no-such-bucket`" in message
    for call in (lambda: verify(blobs), lambda: copy(blobs, blobs), lambda: blobs.missing([HELLO.digest])):
        with pytest.raises(UnavailableError, match="no bucket `no-such-bucket`"):
            call()
    [probe] = stores.probe(timeout=30)
    assert (probe.state, "no bucket" in probe.result) == ("unavailable", True)


def test_a_fallback_does_not_take_it_for_an_empty_one(
    endpoint: str, compose: Callable[..., Composition]
) -> None:
    text = FSSPEC_NAMES.replace("bucket", "no-such-bucket").replace("services.root", "services.bucket")
    blobs = compose(FALLBACK + text).blobs()
    with pytest.raises(UnavailableError, match="no bucket `no-such-bucket`"):
        blobs.has(HELLO.digest)
    with pytest.raises(UnavailableError, match="no bucket `no-such-bucket`"):
        blobs.open_read(HELLO.digest)


def test_a_bucket_that_goes_while_it_is_used(
    other_client: Any, endpoint: str, compose: Callable[..., Composition]
) -> None:
    """S3 says of a read, and of a list, what is missing; so that is told without a question."""
    going = other_client.Bucket("going")
    going.create()
    blobs = compose(FSSPEC_NAMES.replace("bucket", "going")).blobs()
    assert blobs.has(HELLO.digest) is False
    going.delete()
    for call in (lambda: blobs.read(HELLO.digest), lambda: verify(blobs), lambda: blobs.write(HELLO.data)):
        with pytest.raises(UnavailableError, match="no bucket `going`"):
            call()


def count_requests(blobs: BlobService) -> Counter[str]:
    """Count what a driver sends from now on, as `HEAD`, `LIST`, `HEAD bucket` and so on."""
    counts: Counter[str] = Counter()
    fs, _ = blobs._store._open()  # type: ignore[attr-defined]
    fs.connect()

    def note(request: Any, **_: Any) -> None:
        place, _, query = request.url.partition("?")
        of_bucket = place.rstrip("/").endswith("/bucket")
        verb = "LIST" if "list-type" in query else request.method
        counts[f"{verb} bucket" if of_bucket and verb != "LIST" else verb] += 1

    fs.s3.meta.events.register("before-send.s3", note)
    return counts


def test_requests(bucket: Any, compose: Callable[..., Composition]) -> None:
    """One to read a chunk and two to write it; nothing is listed, and the bucket asked for once."""
    data = P3M.data + P3M.data[::-1]
    blobs = compose().blobs()
    counts = count_requests(blobs)
    digest = blobs.write(data)
    several = len({meta.digest for meta in blobs.chunks(digest) or ()})
    assert counts == {
        "HEAD bucket": 1,
        "HEAD": several + 1,
        "PUT": several + 1,
        "GET": 1,  # The index is read again, for the list of the chunks.
    }

    blobs = compose().blobs()
    counts = count_requests(blobs)
    assert blobs.read(digest) == data
    # It might be a chunk, which is asked for first; then that could be for want of a bucket.
    assert counts == {"GET": several + 2, "HEAD bucket": 1}

    counts.clear()
    blobs.missing([BLOB_A.digest, HELLO.digest])
    assert counts == {"HEAD": 4}


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (
            403,
            {},
            "<Error><Code>InvalidAccessKeyId</Code><Message>That key is not known here</Message></Error>",
            r"not known here \(credentials: .*; the endpoint is http://127.0.0.1:\d+, the region us-east-1\)",
        ),
        (
            301,
            {"x-amz-bucket-region": "eu-central-1"},
            "<Error><Code>PermanentRedirect</Code><Message>Use another endpoint</Message></Error>",
            r'Use another endpoint.*region: the bucket is in eu-central-1: set `aws_region = "eu-central-1"`',
        ),
        (
            400,
            {},
            "<Error><Code>ExpiredToken</Code><Message>The token has expired</Message></Error>",
            "The token has expired",
        ),
    ],
)
def test_what_s3_has_against_a_question(
    compose: Callable[..., Composition], status: int, headers: dict[str, str], body: str, said: str
) -> None:
    """The answer to a HEAD has no body, and so no reason: that is had by another request."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_HEAD

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        blobs = compose(to=f"http://127.0.0.1:{server.server_port}").blobs()
        with pytest.raises(UnavailableError, match=said):
            blobs.has(HELLO.digest)
        server.shutdown()
        thread.join()


def test_an_endpoint_that_is_down(compose: Callable[..., Composition], caplog: Any) -> None:
    """Nobody listens: `UnavailableError`, soon, with the instance's name and without the secret."""
    messages = check_unavailable(compose(to=NOBODY).blobs())
    for message in messages:
        assert message.startswith("`root` is unavailable: s3://bucket/pre/fix: ")
    assert SECRET not in "".join(messages) + caplog.text


def test_no_secret_leaves(endpoint: str, compose: Callable[..., Composition]) -> None:
    """The secret is in no repr, neither of the composition nor of its config, and not in an error."""
    stores = compose()
    shown = f"{stores!r} {stores.graph!r} {stores.blobs()!r} {vars(stores.blobs())!r}"
    assert SECRET not in shown
    with pytest.raises(CompositionError, match="no option `nonsense`") as caught:
        compose(FSSPEC_NAMES.replace('key = "an-id"', 'nonsense = "${CASTORE_TEST_SECRET}"'))
    assert SECRET not in str(caught.value)


def test_it_works_in_a_forked_child(bucket: Any, compose: Callable[..., Composition], tmp_path: Path) -> None:
    """A child of a fork opens a composition of its own, and does not hang on the threads it has not."""
    compose()
    program = f"""
import os, sys, warnings
import castore
warnings.simplefilter("ignore", DeprecationWarning)
stores = castore.open({str(tmp_path / "composition.toml")!r})
digest = stores.blobs().write(b"Hello World!")
sys.stdout.flush()
child = os.fork()
if not child:
    try:
        other = castore.open({str(tmp_path / "composition.toml")!r})
        assert other.blobs().read(digest) == b"Hello World!"
    except BaseException:
        os._exit(1)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"


def test_garbage_is_collected(bucket: Any, compose: Callable[..., Composition]) -> None:
    """What no root reaches goes from a bucket, when it is old; a writer's lease is an object meanwhile."""
    stores = compose()
    blobs = stores.blobs()
    kept, gone = blobs.write(P3M.data), blobs.write(P3M.data[::-1])
    holding = blobs.capability(ChunkStore)
    assert holding is not None
    later = time.time() + 30 * 86400

    with holding.lease():
        held = collect(blobs, [kept], clock=lambda: later)
        assert held.leased_since is not None
    assert held.gone["index"].count == 0
    assert collect(blobs, [kept]).gone["index"].count == 0
    collected = collect(blobs, [kept], clock=lambda: later, pool=stores.pool)

    assert (collected.gone["index"].count, collected.kept("index").count) == (1, 1)
    assert not blobs.has(gone)
    assert blobs.read(kept) == P3M.data
    assert len(list(bucket.objects.all())) == 9


REFS = NAMES_OF_THE_REFERENCE.replace("blobservices", "refservices") + NAMES_OF_THE_REFERENCE


class TestRefs(refs.TestReadingAndWriting):
    """In a bucket as everywhere."""

    @pytest.fixture
    def service(self, bucket: Any, compose: Callable[..., Composition]) -> RefService:
        return compose(REFS).refs()


class TestRefsExpected(refs.TestExpecting):
    """What is expected is compared by the server, in one step with the change."""

    @pytest.fixture
    def service(self, bucket: Any, compose: Callable[..., Composition]) -> RefService:
        return compose(FSSPEC_NAMES).refs()

    def test_nothing_else_stays_in_the_bucket(self, bucket: Any, service: RefService) -> None:
        service.set("www", refs.of(1), expect=None)
        assert [entry.key for entry in bucket.objects.all()] == ["pre/fix/refs/www.json"]
        assert service.delete("www", expect=refs.of(1))
        assert list(bucket.objects.all()) == []

    def test_somebody_else_is_faster(self, bucket: Any, service: RefService) -> None:
        """Between the look at a ref and its change."""
        service.set("www", refs.of(1), expect=None)
        data = written.encode(refs.of(1))
        store = compose_store(service)
        looks: list[bytes | None] = []

        def allowed(there: bytes | None) -> bool:
            looks.append(there)
            if len(looks) == 1:
                bucket.put_object(Key="pre/fix/refs/www.json", Body=written.encode(refs.of(2)))
            return there == data

        assert not store.replace("refs/www.json", written.encode(refs.of(3)), allowed)
        assert not store.replace("refs/www.json", None, allowed)
        assert looks == [data, written.encode(refs.of(2)), written.encode(refs.of(2))]
        assert service.get("www") == refs.of(2)

        def always(_: bytes | None) -> bool:
            bucket.put_object(Key="pre/fix/refs/www.json", Body=written.encode(refs.of(len(looks))))
            looks.append(None)
            return True

        with pytest.raises(UnavailableError, match="others change it all the time"):
            store.replace("refs/www.json", b"mine", always)

    def test_a_ref_that_was_deleted_meanwhile(self, bucket: Any, service: RefService) -> None:
        service.set("www", refs.of(1), expect=None)
        looks: list[bytes | None] = []

        def allowed(there: bytes | None) -> bool:
            looks.append(there)
            bucket.objects.all().delete()
            return there is not None

        assert not compose_store(service).replace("refs/www.json", b"mine", allowed)
        assert looks[-1] is None
        assert list(bucket.objects.all()) == []


def compose_store(service: RefService) -> Any:
    """Return the store of refs, beneath what measures and hides secrets."""
    found: Any = service
    while not hasattr(found, "_store"):
        found = found._found
    return found._store


def test_a_server_that_passes_over_conditions(
    bucket: Any, compose: Callable[..., Composition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out before anything is changed."""
    service = compose(REFS).refs()
    service.set("www", refs.of(1))
    fs, _ = compose_store(service)._open()
    send = fs.call_s3

    def without_conditions(method: str, *args: Any, **kwargs: Any) -> Any:
        kept = {name: value for name, value in kwargs.items() if name not in ("IfMatch", "IfNoneMatch")}
        return send(method, *args, **kept)

    monkeypatch.setattr(fs, "call_s3", without_conditions)
    with pytest.raises(UnsupportedError, match="the server passes over"):
        service.set("www", refs.of(2), expect=refs.of(1))
    assert service.get("www") == refs.of(1)
    assert [entry.key for entry in bucket.objects.all()] == ["pre/fix/refs/www.json"]


def test_refs_where_there_is_no_bucket(compose: Callable[..., Composition]) -> None:
    service = compose(REFS).refs()
    for call in (
        lambda: service.get("www"),
        lambda: list(service.names()),
        lambda: service.set("www", refs.of(1)),
        lambda: service.set("www", refs.of(1), expect=None),
        lambda: service.delete("www"),
    ):
        with pytest.raises(UnavailableError, match="no bucket `bucket`"):
            call()
