"""The `objectstore` type: URLs, options, and the file systems beneath."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import re
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castore
import castore_objectstore.config
from castore import (
    BlobService,
    BuildError,
    Composition,
    CompositionError,
    MissingDriverError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import BlobLister, ChunkStore, Durable, FrameStore
from castore.contract.upkeep import Evictable, Inventory, Sweepable
from castore.format.chunking import FastCdc2016
from castore.metrics.shell import bare
from castore.testing import BLOB_B, HELLO, P3M, BlobServiceContract
from castore.upkeep import verify
from castore_objectstore.config import ObjectStoreConfig
from castore_objectstore.fsspec_store import _driver_options
from castore_objectstore.locations import check_url, open_store
from castore_objectstore.service import AddOnlyBlobService


def installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def root(**table: Any) -> dict[str, Any]:
    return {"blobservices": {"root": {"type": "objectstore", **table}}}


class TestUrls:
    @pytest.mark.parametrize("url", ["memory:", "memory://", "memory:///"])
    def test_memory(self, url: str) -> None:
        """Each memory URL is a store of its own: fsspec's shared dictionary is not used."""
        one, other = castore.from_url(f"objectstore+{url}"), castore.from_url(f"objectstore+{url}")
        one.write(HELLO.data)
        assert one.read(HELLO.digest) == HELLO.data
        assert other.has(HELLO.digest) is False

    def test_file(self, tmp_path: Path) -> None:
        """A `file:` URL is a folder."""
        castore.from_url(f"objectstore+file://{tmp_path}/a%20b").write(HELLO.data)
        assert castore.from_url(f"objectstore+file:{tmp_path}/a%20b").read(HELLO.digest) == HELLO.data
        assert castore.from_url(f"objectstore+file://localhost{tmp_path}/a%20b").has(HELLO.digest)
        assert (tmp_path / "a b" / "blobs").is_dir()

    def test_relative_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a composition's file, a relative path starts at the current folder of that moment."""
        monkeypatch.chdir(tmp_path)
        blobs = castore.from_url("objectstore+file:store")
        monkeypatch.chdir("/")
        blobs.write(HELLO.data)
        assert (tmp_path / "store" / "blobs").is_dir()

    @pytest.mark.parametrize(
        ("url", "driver", "extra"),
        [
            ("https://localhost:8080/some-path", "aiohttp", "http"),
            ("s3://bucket/path", "s3fs", "s3"),
            ("gs://bucket/path", "gcsfs", "gs"),
            ("abfss://container@account/path", "adlfs", "azure"),
            ("az://container/path", "adlfs", "azure"),
            ("sftp://host/path", "paramiko", "sftp"),
        ],
    )
    def test_cloud(self, url: str, driver: str, extra: str) -> None:
        """What the reference accepts is accepted; a driver that is missing is named with its extra."""
        if installed(driver):
            assert isinstance(castore.from_url(f"objectstore+{url}"), AddOnlyBlobService)
            return
        with pytest.raises(BuildError, match=re.escape(f"pip install 'castore[{extra}]'")) as caught:
            castore.from_url(f"objectstore+{url}")
        assert isinstance(caught.value.cause, MissingDriverError)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("objectstore:", "the scheme of the store is missing"),
            ("objectstore:/foo", "the scheme of the store is missing"),
            ("objectstore+memory://foo", "gives a memory store an address"),
            ("objectstore+memory:///foo", "gives a memory store an address"),
            ("objectstore+file:", "has no path"),
            ("objectstore+file://", "has no path"),
            ("objectstore+file://host/path", "names the host `host`"),
            ("objectstore+file://localhost", "has no path"),
            ("objectstore+file:a%00b", "NUL"),
            ("objectstore+file:a#b", "%23"),
            ("objectstore+flie:/foo", "unknown scheme `flie:`"),
            ("objectstore+sss3://bucket", "unknown scheme `sss3:`"),
            ("objectstore+sftp:me@nas.example.org:/srv/b", "write `sftp://me@nas.example.org/srv/b`"),
            ("objectstore+sftp:me@nas:b/c", "write `sftp://me@nas/` and the whole path of `b/c`"),
            ("objectstore+sftp:/srv/b", "write `sftp://host/srv/b`"),
            ("objectstore+sftp:me:mine@nas:/b", "write `sftp://me@nas/b`"),
            ("objectstore+ssh:nas/b", "write `ssh://nas/b`"),
            ("objectstore+hdfs:/user/me/b", "write `hdfs://host/user/me/b`"),
            ("objectstore+hdfs:", "write `hdfs://host/path`"),
            ("objectstore+local:./x", "write `file:./x`"),
            ("objectstore+local:", "write `file:./stores/blobs`"),
            ("objectstore+s3:bucket/x", "write `s3://bucket/x`"),
            ("objectstore+s3:/bucket/x", "write `s3://bucket/x`"),
            ("objectstore+s3:", "write `s3://bucket/prefix`"),
            ("objectstore+gs:bucket", "write `gs://bucket`"),
            ("objectstore+abfs:bucket", "write `abfs://bucket`"),
            ("objectstore+https:host/x", "write `https://host/x`"),
            ("objectstore+s3:https://minio:9000/b/x", "write `s3://b/x`"),
            ("objectstore+s3:https://minio:9000/b/x", 'endpoint_url = "https://minio:9000"'),
            ("objectstore+simplecache::s3:bucket", "write `s3://bucket`"),
            ("objectstore+simplecache:s3://bucket", "is not how castore names that place"),
        ],
    )
    def test_refused(self, url: str, why: str) -> None:
        """What cannot be opened is a problem of the config, before anything is built."""
        with pytest.raises(CompositionError, match=re.escape(why)):
            castore.from_url(url)

    def test_the_place_of_a_wrong_form(self, tmp_path: Path) -> None:
        """The form of restic and rclone is told by line and column, and makes no folder of that name."""
        path = tmp_path / "composition.toml"
        url = "sftp:backup:hunter2@nas.example.org:/srv/blobs"
        path.write_text(f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "{url}"\n')
        with pytest.raises(CompositionError, match=r"composition.toml:3:20: .*object_store_url") as caught:
            Composition.from_toml(path)
        assert "write `sftp://backup@nas.example.org/srv/blobs`" in caught.value.message
        assert [entry.name for entry in tmp_path.iterdir()] == ["composition.toml"]

    def test_the_file_system_is_that_of_the_scheme(self) -> None:
        """What fsspec opens by a scheme is looked at: another file system would take all that is written."""
        store = open_store("local:///x", {"protocol": "memory"}, base=Path(), instance="store")
        with pytest.raises(UnavailableError, match="another file system"):
            store.exists("a")

    def test_suggestion(self) -> None:
        """A misspelt scheme is corrected."""
        with pytest.raises(ValueError, match="did you mean `file`"):
            check_url("flie:/foo")

    def test_query_is_options(self) -> None:
        """The query of a service's URL has options and fields, decoded, and leaves the store's URL."""
        config = ObjectStoreConfig.from_url(
            "objectstore+s3://bucket/a/b?key=K&secret=a%2Fb%3D&anon=false&compression_level=7"
        )
        assert config.object_store_url == "s3://bucket/a/b"
        assert config.object_store_options == {"key": "K", "secret": "a/b=", "anon": "false"}
        assert (config.avg_chunk_size, config.compression_level) == (262144, 7)

    def test_options_of_the_url_reach_the_driver(self) -> None:
        """As the driver wants them."""
        blobs = castore.from_url("objectstore+local:///nowhere?auto_mkdir=false")
        assert blobs.has(HELLO.digest) is False

    def test_url_in_a_file_has_no_query(self) -> None:
        """In a config a `file:` URL with a query is an error that says how to write the path."""
        with pytest.raises(CompositionError, match=r"(?s)has a query or fragment.*%3F"):
            Composition.from_mapping(root(object_store_url="file:a?b=c"))


class TestOptions:
    @pytest.mark.parametrize(
        "table",
        [
            {"avg_chunk_size": 511},
            {"avg_chunk_size": 2097154},
            {"avg_chunk_size": "3 MiB"},
            {"avg_chunk_size": "256 KiBs"},
            {"chunker": "rabin"},
            {"compression_level": 23},
            {"compression_level": -8},
            {"object_store_url": 5},
            {"object_store_option": {}},
            {"object_store_options": "a=b"},
        ],
    )
    def test_refused(self, table: dict[str, Any]) -> None:
        """A value that is out of bounds, or a key that is none, is told with the key's name."""
        with pytest.raises(CompositionError, match=next(iter(table))):
            Composition.from_mapping(root(**{"object_store_url": "memory:", **table}))

    @pytest.mark.parametrize("size", [4096, "64 KiB", 2_097_153])
    def test_chunk_sizes(self, size: int | str) -> None:
        """Chunks are between half and twice the average."""
        average = 65536 if isinstance(size, str) else size
        with Composition.from_mapping(root(object_store_url="memory:", avg_chunk_size=size)) as stores:
            data = P3M.data * 3
            digest = stores.blobs().write(data)
            sizes = [chunk.size for chunk in stores.blobs().chunks(digest) or ()]
            assert len(sizes) > 1
            assert min(sizes[:-1]) >= average // 2
            assert max(sizes) <= 2 * average
            assert stores.blobs().read(digest) == data

    def test_the_older_chunker(self) -> None:
        """`fastcdc-2016` cuts elsewhere, by the same bounds; what it wrote reads back."""
        table = root(object_store_url="memory:", chunker="fastcdc-2016")
        with Composition.from_mapping(table) as stores:
            digest = stores.blobs().write(P3M.data)
            sizes = [chunk.size for chunk in stores.blobs().chunks(digest) or ()]
            assert sizes == list(FastCdc2016().cut(memoryview(P3M.data)))
            assert sizes != [486450, 524288, 241210, 314451, 417161, 524288, 524288, 113592]
            assert stores.blobs().read(digest) == P3M.data

    def test_levels(self, blobs_of: Any, store: Any) -> None:
        """A higher level makes smaller chunks; all levels read alike."""
        sizes = {}
        for level in (-7, 3, 19):
            store.objects.clear()
            blobs = blobs_of(store, compression_level=level)
            blobs.write(BLOB_B.data)
            sizes[level] = sum(map(len, store.objects.values()))
            assert blobs.read(BLOB_B.digest) == BLOB_B.data
        assert sizes[-7] > sizes[19]

    def test_names_of_the_reference(self) -> None:
        """The options of `s3:` may have the reference's names; others go to the driver as they are."""
        options = {
            "aws_access_key_id": "AK",
            "aws_secret_access_key": "SK",
            "aws_region": "eu-west-1",
            "aws_endpoint_url": "http://localhost:1",
            "aws_profile": "dev",
            "aws_allow_http": "1",
            "user_agent": "castore/1",
            "client_kwargs": {"verify": False},
        }
        driver = _driver_options(["s3"], options)
        assert driver.pop("client_kwargs") == {"region_name": "eu-west-1", "verify": False}
        botocore = driver.pop("config_kwargs")
        assert botocore.items() >= {"user_agent_extra": "castore/1", "retries": {"max_attempts": 1}}.items()
        assert driver == {
            "use_listings_cache": False,
            "skip_instance_cache": True,
            "max_concurrency": 1,
            "key": "AK",
            "secret": "SK",
            "endpoint_url": "http://localhost:1",
            "profile": "dev",
        }
        assert options["client_kwargs"] == {"verify": False}
        assert "use_listings_cache" not in _driver_options(["sftp"], {})
        chained = _driver_options(["simplecache", "s3"], {"s3": {"aws_region": "x"}})["s3"]
        assert chained["config_kwargs"]["retries"] == {"max_attempts": 1}
        assert chained["client_kwargs"] == {"region_name": "x"}
        assert chained["use_listings_cache"] is False
        assert _driver_options(["gs"], {"aws_region": "x"})["aws_region"] == "x"

    def test_the_example_in_the_documentation_loads(self, tmp_path: Path) -> None:
        """The TOML at the head of the module is a composition."""
        text = textwrap.dedent((castore_objectstore.config.__doc__ or "").partition("::\n")[2])
        (tmp_path / "composition.toml").write_text(text)
        with Composition.from_toml(tmp_path / "composition.toml") as stores:
            digest = stores.blobs().write(HELLO.data)
            assert (tmp_path / "stores/blobs/blobs/b3" / digest.hex()[:4]).is_dir()


class TestListing:
    def test_what_is_no_index_is_passed_over(self, blobs_of: Any, store: Any, key_of: Any) -> None:
        """Only objects whose name and folder are those of a digest are blobs."""
        blobs = blobs_of(store)
        blobs.write(HELLO.data)
        name = P3M.digest.hex()
        for key in (
            "blobs/b3/README",
            f"blobs/b3/0000/{name}",
            f"blobs/b3/{name[:4]}/{name.upper()}",
            f"blobs/b3/{name[:4]}/deeper/{name}",
            f"blobs/b3/{name[:4]}/{name}#1",
            f"blobs/b3/{name[:4]}/{name}.tmp",
            f"blobs/b3/{name[:4]}/{P3M.digest.sri}",
        ):
            store.objects[key] = b""
        assert list(blobs.list_blobs()) == [HELLO.digest]


class TestLocalFileSystemOfFsspec(BlobServiceContract):
    """A file system that fsspec has and that does not write atomically: castore writes beside and moves."""

    capabilities = (BlobLister, ChunkStore, FrameStore, Durable, Sweepable, Evictable)

    @pytest.fixture
    def service(self, tmp_path: Path) -> Iterator[BlobService]:
        with Composition.from_mapping(root(object_store_url=f"local://{tmp_path}/store")) as stores:
            yield stores.blobs()

    def test_no_temporary_file_is_left(self, service: BlobService, tmp_path: Path) -> None:
        """After writing there are objects only, in the layout of any other store."""
        service.write(P3M.data)
        names = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert len(names) == 9
        assert all(re.fullmatch("[0-9a-f]{64}", name) for name in names)

    def test_leftovers_are_no_blobs(self, service: BlobService, tmp_path: Path) -> None:
        """Temporary files of this store and of the local one are not listed."""
        service.write(HELLO.data)
        [index] = (tmp_path / "store/blobs").rglob(HELLO.digest.hex())
        for suffix in ("#1", "#0123456789abcdef"):
            index.with_name(index.name + suffix).touch()
        lister = service.capability(BlobLister)
        assert lister is not None
        assert list(lister.list_blobs()) == [HELLO.digest]


class Handler(http.server.SimpleHTTPRequestHandler):
    """A web server that keeps what it is given, unless it is told to be read-only or broken."""

    broken = False
    writable = True
    folder: Path

    def do_GET(self) -> None:
        self._answer(super().do_GET)

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def do_PUT(self) -> None:
        self._answer(self._put if self.writable else lambda: self.send_error(405))

    def _put(self) -> None:
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{threading.get_ident()}")
        beside.write_bytes(self._body())
        beside.replace(path)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, answer: Any) -> None:
        if self.broken:
            self.send_error(500)
        else:
            answer()

    def log_message(self, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    # With room for all threads that knock at once; else they would wait a second before they knock again.
    request_queue_size = 100


@pytest.mark.skipif(not installed("aiohttp"), reason="the driver for http is not installed")
class TestHttp(BlobServiceContract):
    """A folder behind a web server."""

    capabilities = (BlobLister, ChunkStore, FrameStore, Durable)

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Any]:
        handler = type("OwnHandler", (Handler,), {})
        (tmp_path / "www" / "store").mkdir(parents=True)
        make = functools.partial(handler, directory=str(tmp_path / "www"))
        with Server(("127.0.0.1", 0), make) as server:
            server.handler = handler  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    @pytest.fixture
    def service(self, server: Any) -> Iterator[BlobService]:
        url = f"http://127.0.0.1:{server.server_port}/store"
        with Composition.from_mapping(root(object_store_url=url)) as stores:
            yield stores.blobs()

    def test_a_folder_of_others(self, service: BlobService, server: Any, tmp_path: Path) -> None:
        """What is in the folder is read and checked; what is not is absent."""
        server.handler.writable = False
        castore.from_url(f"objectstore+file:{tmp_path}/www/store").write(P3M.data)
        assert service.has(P3M.digest) is True
        assert service.read(P3M.digest) == P3M.data
        assert len(service.chunks(P3M.digest) or ()) == 8
        assert service.has(HELLO.digest) is False
        assert service.open_read(HELLO.digest) is None
        assert service.chunks(HELLO.digest) is None

    def test_nothing_can_be_removed(self, service: BlobService, server: Any, tmp_path: Path) -> None:
        """So it is not claimed; who asks the objects themselves is told, before anything is copied."""
        service.write(HELLO.data)
        assert service.capability(Inventory) is service.capability(Sweepable) is None
        store = open_store(
            f"http://127.0.0.1:{server.server_port}/store", {}, base=Path(), instance="web", secrets=()
        )
        [entry] = store.list("chunks/")
        for remove in (lambda: store.set_aside(entry.key), lambda: next(store.sweep([entry], 1e12))):
            with pytest.raises(
                UnsupportedError, match=r"`web`: .* cannot do this: nothing can be removed there"
            ):
                remove()
        assert not (tmp_path / "www/store/quarantine").exists()
        assert verify(service).ok

    def test_objects_appear_under_their_names(self, service: BlobService, tmp_path: Path) -> None:
        """What is written lies in the folder as if it had been written there."""
        service.write(P3M.data)
        assert castore.from_url(f"objectstore+file:{tmp_path}/www/store").read(P3M.digest) == P3M.data

    def test_read_only(self, service: BlobService, server: Any) -> None:
        """A server that takes no objects can never do so: `UnsupportedError`, and not a failure for now."""
        server.handler.writable = False
        with pytest.raises(UnsupportedError, match=r"`root`: http://.*/store cannot do this.*405"):
            service.write(HELLO.data)

    def test_errors(self, service: BlobService, server: Any) -> None:
        """An error of the server is not absence."""
        server.handler.broken = True
        self.check_unavailable(service)

    def test_nobody_listens(self, service: BlobService, server: Any) -> None:
        """A server that is gone is not absence either."""
        server.shutdown()
        server.server_close()
        self.check_unavailable(service)

    def check_unavailable(self, service: BlobService) -> None:
        lister = service.capability(BlobLister)
        assert lister is not None
        calls: list[Callable[[], object]] = [
            lambda: service.has(HELLO.digest),
            lambda: service.open_read(HELLO.digest),
            lambda: service.chunks(HELLO.digest),
            lambda: list(lister.list_blobs()),
            lambda: service.write(HELLO.data),
        ]
        for call in calls:
            with pytest.raises(
                UnavailableError, match=r"`root` is unavailable: http://127.0.0.1:\d+/store: "
            ):
                call()


class TestMemoryFileSystem:
    def test_options_are_not_needed(self) -> None:
        """A memory store takes no notice of options, and has an object as soon as it is put."""
        store = open_store("memory:", {"any": 1}, base=Path(), instance="m")
        assert store.get("a/b") is None
        assert store.exists("a/b") is False
        store.put("a/b", b"data")
        assert store.get("a/b") == b"data"
        assert store.exists("a/b") is True
        assert store.exists("a") is False
        assert [entry.key for entry in store.list("a/")] == ["a/b"]
        assert list(store.list("b/")) == []

    def test_a_prefix_is_no_object(self) -> None:
        """The folder of an object is absent as an object, whichever way one asks."""
        store = open_store("memory:", {}, base=Path(), instance="m")
        store.put("a/b/c", b"data")
        assert store.get("a/b") is None
        assert store.exists("a/b") is False


def test_digits_are_completed_from_two_folders(tmp_path: Path) -> None:
    """However much there is in the others, nothing else is listed."""
    service = bare(castore.from_url(f"objectstore+file:{tmp_path}/store"))
    digests = [service.write(b"%d" % number) for number in range(100)]
    lister = service.capability(BlobLister)
    listed: list[str] = []
    walk = lister._store.list
    lister._store.list = lambda prefix: listed.append(prefix) or walk(prefix)

    for digest in digests[:10]:
        listed.clear()
        assert list(lister.complete(digest.hex()[:8])) == [digest]
        assert listed == [f"{kind}/b3/{digest.hex()[:4]}/" for kind in ("blobs", "chunks")]
