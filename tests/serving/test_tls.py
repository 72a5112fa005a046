"""Certificates of servers: what is wrong with them is said at the start, and new ones are taken."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from certs import Authority

import castore
from castore.errors import CompositionError
from castore.serving.access import Tokens
from castore.serving.grpc.server import GrpcServer
from castore.serving.http.app import HttpApp
from castore.serving.http.server import HttpServer
from castore.serving.listening import Address
from castore.serving.tls import TlsFiles


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def wrong_files(authority: Authority, folder: Path) -> dict[str, tuple[TlsFiles, str]]:
    """Return files that are no good, and what is said of each."""
    certificate, key = authority.issue("one")
    other = authority.issue("other")[1]
    locked, large, damaged = folder / "locked.key", folder / "large.pem", folder / "damaged.pem"
    command = ["openssl", "ec", "-in", str(key), "-aes128", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    large.write_bytes(certificate.read_bytes() + b"\n" * (5 << 20))
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return {
        "no file": (TlsFiles(folder / "nothing", key), "nothing: No such file"),
        "a folder": (TlsFiles(folder, key), "Is a directory"),
        "no PEM": (TlsFiles(key, key), "there is no certificate in it"),
        "no key": (TlsFiles(certificate, certificate), "there is no private key in it"),
        "another key": (TlsFiles(certificate, other), "is not the key of"),
        "a key with a password": (TlsFiles(certificate, locked), "has a password"),
        "a damaged certificate": (TlsFiles(damaged, key), "damaged.pem"),
        "more than is read": (TlsFiles(large, key), "more than 4 MiB"),
        "an authority that is none": (TlsFiles(certificate, key, key), "there is no certificate in it"),
        "a damaged authority": (TlsFiles(certificate, key, damaged), "damaged.pem"),
    }


def test_what_is_wrong_with_certificates_is_said(authority: Authority, tmp_path: Path) -> None:
    """With the file, by both servers, and nobody is asked for a password."""
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        for name, (files, words) in wrong_files(authority, tmp_path).items():
            for make in (
                lambda files=files: HttpServer(HttpApp(stores), tls=files),
                lambda files=files: GrpcServer(stores.blobs, tls=files),
            ):
                with pytest.raises(CompositionError) as caught:
                    make()  # type: ignore[no-untyped-call]
                assert words in str(caught.value), name


def test_a_file_of_tokens_that_is_not_read_to_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# a comment\n" * 100_000 + "somebody read the-token-that-counts\n")
    path.chmod(0o600)
    with pytest.raises(CompositionError, match="has 1 MiB at most"):
        Tokens.read(path)


@contextmanager
def https(files: TlsFiles) -> Iterator[int]:
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        server = HttpServer(HttpApp(stores), tls=files)
        server.listen(Address.parse("127.0.0.1:0"))
        started = threading.Event()
        thread = threading.Thread(target=server.run, args=(started.set,))
        thread.start()
        try:
            assert started.wait(20)
            yield int(server.urls[0].rpartition(":")[2].strip("/"))
        finally:
            server.stop()
            thread.join(20)


def test_new_certificates_are_taken_at_the_next_handshake(authority: Authority, tmp_path: Path) -> None:
    """Those that are no good are not, and a connection that is open goes on."""
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    context = ssl.create_default_context(cafile=str(authority.ca))

    def put(certificate: Path, key: Path) -> None:
        shutil.copy(certificate, files.certificate)
        shutil.copy(key, files.key)

    def number(name: str | None = "127.0.0.1") -> str:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            found = secure.getpeercert()
            assert found is not None
            return str(found["serialNumber"])

    def ask(connection: ssl.SSLSocket) -> bytes:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"</html>" not in answer:
            answer += connection.recv(1 << 20)
        return answer[:12]

    put(*authority.issue("first"))
    with https(files) as port:
        first = number()
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            assert ask(secure) == b"HTTP/1.1 200"
            put(*authority.issue("second"))
            second = number()
            files.key.write_text("nothing")
            assert number() == second
            assert ask(secure) == b"HTTP/1.1 200"
        assert first != second
