"""The client: URLs of both versions, names of the package, connections that end, forks, TLS."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from peers import chunk_entry, field, peer

import castore
from castore import B3Digest, BlobService, Composition
from castore.composition import InvalidValueError
from castore.contract.directories import DirectoryService
from castore.errors import BuildError, CastoreError, CompositionError, UnavailableError
from castore.format.directories import Directory
from castore.serving.grpc.server import GrpcServer
from castore.serving.listening import Address
from castore.serving.tls import TlsFiles
from castore.testing import HELLO, P3M
from castore_grpc.config import GrpcConfig, GrpcDirectoriesConfig

CODE = grpc.StatusCode

URLS = {
    "grpc+unix:///path/to/somewhere": True,  # as tvix wrote it; snix refuses it
    "grpc+unix:/path/to/somewhere": True,
    "grpc+unix://host.example/path/to/somewhere": False,
    "grpc+unix:": False,
    "grpc+unix:/" + "x" * 120: False,
    "grpc+http://[::1]:12345": True,
    "grpc+http://localhost": True,
    "grpc+https://localhost": True,
    "grpc+http://localhost/some-path": False,
    "grpc+http://localhost/": False,
    "grpc+http://": False,
    "grpc+http://user@localhost": False,
    "grpc+http://localhost:70000": False,
    "grpc+http://::1:80": False,
    "grpc+ftp://localhost": False,
    "grpc://localhost": False,
    "http://foo.example/test": False,
    "grpc+http://localhost?wait-connect=0": True,
    "grpc+http://localhost?wait-connect=yes": False,
    "grpc+http://localhost?tls-ca-cert-path=/dev/null": False,
    "grpc+https://localhost?tls-ca-cert-path=/dev/null": True,
    "grpc+https://localhost?tls-client-cert-path=/dev/null&tls-client-key-path=/dev/null": True,
    "grpc+https://localhost?tls-client-cert-path=/dev/null": False,
    "grpc+http://localhost?timeout=5%20s&package=tvix": True,
    "grpc+http://localhost?timeout=soon": False,
    "grpc+http://localhost?tls-ca=x": False,
}


@pytest.mark.parametrize("config", [GrpcConfig, GrpcDirectoriesConfig])
@pytest.mark.parametrize("url", URLS)
def test_urls_of_both_versions_are_read(config: Any, url: str) -> None:
    """The tables of the reference, and what castore adds."""
    if URLS[url]:
        config.from_url(url)
    else:
        with pytest.raises((ValueError, InvalidValueError)):
            config.from_url(url)


@pytest.mark.parametrize("kind", [BlobService, DirectoryService])
def test_nothing_is_contacted_until_it_is_used(kind: Any) -> None:
    """Unless the URL says so: then what cannot be reached is not built."""
    table = "blobservices" if kind is BlobService else "directoryservices"

    def build(url: str) -> None:
        tables = {"blobservices": {"root": {"type": "memory"}}}
        tables[table] = {"root": {"type": "grpc", "url": url, "timeout": "200 ms"}}
        with Composition.from_mapping(tables) as stores:
            stores.build(kind)

    build("grpc+unix:/nowhere/at/all.sock")
    build("grpc+https://localhost:1?tls-ca-cert-path=/dev/null")
    with pytest.raises(BuildError, match="no connection to unix:/nowhere"):
        build("grpc+unix:/nowhere/at/all.sock?wait-connect=1")


def test_a_query_and_a_key_for_the_same_are_one_too_many() -> None:
    """So are certificates where nothing is encrypted."""
    for fields, words in (
        ({"url": "grpc+https://x?tls-ca-cert-path=a", "tls_ca_cert_path": "b"}, "key of its own"),
        ({"url": "grpc+http://x", "tls_ca_cert_path": "b"}, "encrypted"),
        ({"url": "grpc+https://x", "tls_client_cert_path": "b"}, "come together"),
    ):
        with pytest.raises(CompositionError, match=words):
            Composition.from_mapping({"blobservices": {"root": {"type": "grpc", **fields}}})


# -- a peer that answers as was recorded --

BIG = random.Random(9).randbytes(3_000_000)


def as_the_reference(package: str) -> Any:
    """Answers of the reference over an object store: small messages, its codes, its texts."""
    stores: dict[bytes, bytes] = {}
    lists: dict[bytes, list[tuple[bytes, int]]] = {}
    keeper = castore.from_url("memory:")

    def not_found(digest: bytes, context: grpc.ServicerContext) -> None:
        if len(digest) != 32:
            context.abort(CODE.INVALID_ARGUMENT, "invalid digest length")
        if digest not in stores:
            context.abort(CODE.NOT_FOUND, f"blob {B3Digest(digest).sri} not found")

    def stat(request: bytes, context: grpc.ServicerContext) -> bytes:
        digest = request[2:34]
        not_found(digest, context)
        return b"".join(chunk_entry(*each) for each in lists.get(digest, ()))

    def read(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        not_found(request[2:34], context)
        data = stores[request[2:34]]
        for at in range(0, len(data), 4096):
            yield field(1, data[at : at + 4096])

    def put(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        from castore.format.wire import chunk_data  # noqa: PLC0415 - for this peer alone

        data = b"".join(map(chunk_data, requests))
        digest = keeper.write(data)
        stores[bytes(digest)] = data
        chunks = keeper.chunks(digest) or ()
        lists[bytes(digest)] = [(bytes(meta.digest), meta.size) for meta in chunks]
        for meta in chunks:
            stores[bytes(meta.digest)] = keeper.read(meta.digest)
        return field(1, bytes(digest))

    answers = {"BlobService/Stat": stat, "BlobService/Read": read, "BlobService/Put": put}
    return keeper, answers, package


@pytest.mark.parametrize("package", ["snix", "tvix"])
@pytest.mark.parametrize("said", ["auto", "the same"])
def test_a_peer_like_the_reference_is_understood(sockets: Any, package: str, said: str) -> None:
    """Blobs of none, one and many chunks go there and come back; `auto` finds the name."""
    keeper, answers, _ = as_the_reference(package)
    with keeper, peer(next(sockets), answers, f"{package}.castore.v1") as url:
        name = "auto" if said == "auto" else package
        with castore.from_url(f"{url}?package={name}") as blobs:
            for data in (b"", b"small", bytes(200_000), BIG):
                digest = B3Digest.of(data)
                assert not blobs.has(digest)
                assert blobs.open_read(digest) is None
                assert blobs.write(data) == digest
                assert blobs.read(digest) == data
            assert len(blobs.chunks(B3Digest.of(BIG)) or ()) == 10


def test_a_wrong_name_is_told(sockets: Any) -> None:
    """A peer without such a service, by neither name, is not one for which to try again."""
    with (
        peer(next(sockets), {}) as url,
        castore.from_url(url) as blobs,
        pytest.raises(CastoreError, match="has no BlobService"),
    ):
        blobs.has(HELLO.digest)


def test_a_blob_without_chunks_is_read_as_a_whole(sockets: Any) -> None:
    """From a peer that does not cut: through a file, if it is large, and checked before it is opened."""

    def read(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for at in range(0, len(large), 1 << 20):
            yield field(1, large[at : at + (1 << 20)])

    def stat(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not request:
            context.abort(CODE.INVALID_ARGUMENT, "")
        return b""

    large = P3M.data * 3
    with (
        peer(next(sockets), {"BlobService/Stat": stat, "BlobService/Read": read}) as url,
        castore.from_url(url) as blobs,
        blobs.open(B3Digest.of(large)) as reader,
    ):
        assert reader.verified
        assert reader.size == len(large)
        reader.seek(len(large) - 5)
        assert reader.read() == large[-5:]


def test_a_server_that_comes_back_is_found_again(sockets: Any) -> None:
    """Without it, calls are unavailable, at once; then they work."""
    path = next(sockets)
    with castore.from_url("memory:") as kept, castore.from_url(f"grpc+unix:{path}") as blobs:

        @contextlib.contextmanager
        def up() -> Iterator[None]:
            server = GrpcServer(lambda: kept)
            server.listen(Address.parse(f"unix:{path}"))
            with server:
                yield

        with up():
            blobs.write(HELLO.data)
        with pytest.raises(UnavailableError):
            blobs.has(HELLO.digest)
        with up():
            for _ in range(100):
                with contextlib.suppress(UnavailableError):
                    assert blobs.has(HELLO.digest)
                    break
            else:
                pytest.fail("it was not found again")


def test_what_reads_is_repeated_and_what_writes_is_not(sockets: Any) -> None:
    """What a blob or a tree was sent from is gone by then: only who has it can send it again."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        def answer(_: Any, context: grpc.ServicerContext) -> Any:
            calls[name] += 1
            context.abort(CODE.UNAVAILABLE, "for now")

        return answer

    names = ("BlobService/Stat", "BlobService/Read", "BlobService/Put", "DirectoryService/Get")
    answers = {name: counted(name) for name in (*names, "DirectoryService/Put")}
    with peer(next(sockets), answers) as url:
        table = {"root": {"type": "grpc", "url": url, "package": "snix"}}
        mapping = {"blobservices": table, "directoryservices": table}
        with Composition.from_mapping(mapping) as stores:
            uses: list[Callable[[], object]] = [
                lambda: stores.blobs().has(HELLO.digest),
                lambda: stores.blobs().open_read(HELLO.digest),
                lambda: stores.directories().get(HELLO.digest),
                lambda: stores.blobs().write(HELLO.data),
                lambda: stores.blobs().write(P3M.data),
                lambda: stores.directories().put(Directory()),
            ]
            for use in uses:
                with pytest.raises(UnavailableError, match="for now"):
                    use()
    assert calls == {
        "BlobService/Stat": 4,
        "BlobService/Read": 4,
        "DirectoryService/Get": 4,
        "BlobService/Put": 2,
        "DirectoryService/Put": 1,
    }


def test_a_closed_service_says_so(serving: Any) -> None:
    blobs = castore.from_url(serving().url)
    blobs.write(HELLO.data)
    blobs.close()
    blobs.close()
    with pytest.raises(CastoreError):
        blobs.has(HELLO.digest)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The type is known all the same."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in {"grpc", "grpc_health"} or name.startswith(
            ("castore_grpc.", "castore.serving.grpc")
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(BuildError, match=re.escape("pip install 'castore[grpc]'")):
        castore.from_url("grpc+unix:/nowhere.sock")


def test_the_program_is_set_to_what_it_was(tmp_path: Path) -> None:
    """What it starts gets no variable of castore's; and the library says nothing on the command line."""
    program = (
        "import os; before = dict(os.environ); import castore, castore.serving.grpc.server\n"
        f"castore.from_url('grpc+unix:{tmp_path}/nobody').close()\n"
        "assert dict(os.environ) == before"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    subprocess.run([sys.executable, "-c", program], env=clean, check=True, timeout=60)
    command_line = (
        "import os, sys; import castore.cli; sys.argv = ['castore', '--version']\n"
        "try: castore.cli.main()\n"
        "except SystemExit: sys.exit(os.environ.get('GRPC_VERBOSITY') != 'NONE')"
    )
    subprocess.run([sys.executable, "-c", command_line], env=clean, check=True, timeout=60)


# -- forks --


def read_there(url: str, answers: Any) -> None:
    with castore.from_url(url) as blobs:
        answers.put(blobs.read(HELLO.digest))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_fork_has_a_connection_of_its_own(tmp_path: Path, sockets: Any) -> None:
    """The parent goes on with a new one, but a writer is done for: refused in the child, and cut off here.

    The server is another process, so that no fork is one of it.
    """
    path = next(sockets)
    server = multiprocessing.get_context("spawn").Process(target=serve_memory, args=(str(path),), daemon=True)
    server.start()
    try:
        with castore.from_url(f"grpc+unix:{path}") as blobs:
            for _ in range(600):
                with contextlib.suppress(UnavailableError):
                    blobs.write(HELLO.data)
                    break
            blobs.write(P3M.data[1:])
            reader = blobs.open(B3Digest.of(P3M.data[1:]))
            assert reader.read(10) == P3M.data[1:11]
            writer = blobs.open_write()
            writer.write(P3M.data)
            for _ in range(2):
                child = os.fork()
                if not child:
                    signal.alarm(30)
                    code = 1
                    try:
                        refused = False
                        try:
                            writer.write(b"the parent's")
                        except CastoreError:
                            refused = True
                        right = blobs.read(HELLO.digest) == HELLO.data and reader.read() == P3M.data[11:]
                        code = 0 if right and refused else 2
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert blobs.read(HELLO.digest) == HELLO.data
            with reader:
                assert reader.read() == P3M.data[11:]
            with pytest.raises(UnavailableError, match="forked in the midst of this call"):
                writer.close()
            assert not blobs.has(P3M.digest)
            assert blobs.write(P3M.data) == P3M.digest
            context = multiprocessing.get_context("spawn")
            answers = context.Queue()
            spawned = context.Process(target=read_there, args=(f"grpc+unix:{path}", answers))
            spawned.start()
            assert answers.get(timeout=60) == HELLO.data
            spawned.join(60)
    finally:
        server.kill()
        server.join()


def serve_memory(path: str) -> None:
    with castore.from_url("memory:") as blobs:
        server = GrpcServer(lambda: blobs)
        server.listen(Address.parse(f"unix:{path}"))
        with server:
            signal.pause()


# -- TLS --


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes a certificate for a name, signed by one of its own making."""
    from certs import Authority  # noqa: PLC0415 - only here

    return Authority(tmp_path_factory.mktemp("certificates"))


def test_tls_with_certificates_of_both_sides(certificates: Any) -> None:
    """Who does not know the server's authority does not get in, nor who has no certificate of his own."""
    cert, key = certificates.issue("localhost")
    mine, my_key = certificates.issue("a client")
    with castore.from_url("memory:") as kept:
        files = TlsFiles(cert, key, client_ca=certificates.ca)
        server = GrpcServer(lambda: kept, tls=files)
        place = server.listen(Address.parse("localhost:0"))
        url = f"grpc+https://{place}?tls-ca-cert-path={certificates.ca}"
        with server:
            with castore.from_url(f"{url}&tls-client-cert-path={mine}&tls-client-key-path={my_key}") as blobs:
                assert blobs.write(P3M.data) == P3M.digest
                assert blobs.read(P3M.digest) == P3M.data
            for wrong in (url, f"grpc+https://{place}", f"grpc+http://{place}"):
                with (
                    castore.from_url(f"{wrong}{'&' if '?' in wrong else '?'}timeout=2") as blobs,
                    pytest.raises(UnavailableError),
                ):
                    blobs.has(P3M.digest)


def test_a_certificate_is_renewed_without_a_restart(certificates: Any, tmp_path: Path) -> None:
    """The next handshake has the new one; files that are half written leave the old one in use."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(name: str) -> bytes:
        new_cert, new_key = certificates.issue(name)
        cert.write_bytes(new_cert.read_bytes())
        key.write_bytes(new_key.read_bytes())
        return new_cert.read_bytes()

    def shown(port: str) -> bytes:
        return ssl.get_server_certificate(("localhost", int(port))).encode()

    first = install("localhost")
    with castore.from_url("memory:") as kept:
        server = GrpcServer(lambda: kept, tls=TlsFiles(cert, key))
        port = server.listen(Address.parse("localhost:0")).rpartition(":")[2]
        with server:
            assert shown(port).split() == first.split()
            key.write_bytes(b"")
            assert shown(port).split() == first.split()
            second = install("localhost")
            assert shown(port).split() == second.split() != first.split()
