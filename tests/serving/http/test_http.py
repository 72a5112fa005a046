"""Blobs, trees and pages over HTTP: what is there, what is refused, and what is stored."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import html.parser
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote_to_bytes

import pytest
import zstandard
from blake3 import blake3
from browser import Browser, needs_chromium
from films import film
from served_over_http import HOSTILE, LARGE, TEXT, Web, ask, serving

import castore
from castore import B3Digest
from castore.digest import EMPTY
from castore.errors import CompositionError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode
from castore.serving.access import Tokens
from castore.serving.http import blob_answers
from castore.serving.http.app import HttpApp
from castore.serving.http.bodies import frames
from castore.serving.http.options import HttpOptions
from castore.serving.http.server import HttpServer
from castore.serving.listening import Address
from castore.trees import import_tree

HEX = blake3(TEXT).hexdigest()


def unpacked(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        (f"/blob/{HEX}", 200),
        (f"/blob/{HEX.upper()}", 200),
        (f"/blob/{'0' * 64}", 404),
        ("/blob/short", 404),
        ("/tree/www/", 200),
        ("/tree/www", 308),
        ("/tree/www/sub", 308),
        ("/tree/www/sub/", 200),
        ("/tree/www/ten.txt", 200),
        ("/tree/www/ten.txt/", 404),
        ("/tree/www/ten.txt/x", 404),
        ("/tree/www/nothing", 404),
        ("/tree/team/site/ten.txt", 200),
        ("/tree/nobody/x", 404),
        (f"/tree/{'0' * 64}/", 404),
        (f"/tree/{HEX[:10]}/", 404),
        ("/tree/www//ten.txt", 400),
        ("/tree/www/./ten.txt", 400),
        ("/tree/www/%2e%2e/x", 400),
        ("/tree/www/../x", 400),
        ("/tree/www/sub%2fpage.html", 400),
        ("/tree/www/a%00b", 400),
        ("//tree/www/", 400),
        ("/tree/www/link", 200),
        ("/tree/www/passwd", 404),
        ("/tree/www/up/", 404),
        ("/tree/www/up/etc/passwd", 404),
        ("/tree/www/loop", 404),
        ("/api/tree/www/", 200),
        ("/api/tree/www/ten.txt", 200),
        ("/elsewhere", 404),
        ("/" + "x" * 9000, 414),
    ],
)
def test_what_is_there(web: Web, path: str, status: int) -> None:
    answer = web.ask(path)
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if status == 308:
        assert answer.headers["location"] == path + "/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_changed_without_leave(web: Web, method: str) -> None:
    for path in ("/", "/tree/www/ten.txt", f"/blob/{HEX}", "/blob"):
        assert web.ask(path, method=method, body=b"x").status == 403


def test_what_is_not_there_cannot_be_changed_either(web: Web) -> None:
    """A method that is never taken is told before what the path leads to is looked for."""
    with serving(web.stores, root="www") as (port, _):
        for path in ("/ten.txt", "/nothing"):
            assert ask(port, path, method="OPTIONS").status == 405


def test_entries_of_the_same_contents_have_tags_of_their_own(web: Web, tmp_path: Path) -> None:
    """One may be executed, the other not: who has the one is not told that it is the other."""
    for name in ("plain", "run"):
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "run").chmod(0o755)
    node = import_tree(tmp_path, web.stores.blobs(), web.stores.directories()).node
    assert isinstance(node, DirectoryNode)
    tags = {name: web.ask(f"/api/tree/{node.digest}/{name}").headers["etag"] for name in ("plain", "run")}
    asked = {"If-None-Match": tags["plain"]}
    statuses = [web.ask(f"/api/tree/{node.digest}/{name}", asked).status for name in tags]
    assert statuses == [304, 200]


def test_a_link_out_of_the_tree_names_its_target(web: Web) -> None:
    """And leads nowhere."""
    answer = web.ask("/tree/www/passwd")
    assert b"leads out of the tree, to '/etc/passwd'" in answer.body
    assert "location" not in answer.headers


def test_a_tree_by_its_digest_never_changes(web: Web) -> None:
    """A ref may, and a page is made anew by each version of this program."""
    for_ever = "public, max-age=31536000, immutable"
    assert web.ask(f"/tree/{web.root}/ten.txt").headers["cache-control"] == for_ever
    assert web.ask("/tree/www/ten.txt").headers["cache-control"] == "no-cache"
    page = web.ask(f"/tree/{web.root}/")
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["etag"].startswith('W/"')
    assert web.ask(f"/tree/{web.root}/", {"If-None-Match": page.headers["etag"]}).status == 304
    strong = page.headers["etag"].removeprefix("W/")
    assert web.ask(f"/tree/{web.root}/", {"If-Match": strong}).status == 412
    assert web.ask(f"/tree/{web.root}/?sort=size", {"If-None-Match": page.headers["etag"]}).status == 200


def test_contents_are_kept_apart_from_the_pages(web: Web) -> None:
    """A script in a blob is not run, however it is opened."""
    answer = web.ask("/tree/www/sub/page.html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    shown = web.ask("/tree/www/sub/page.html?view")
    assert b"&lt;script&gt;alert(1)" in shown.body
    assert "script-src" not in shown.headers["content-security-policy"]
    assert shown.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")


def test_downloads_have_names(web: Web) -> None:
    answer = web.ask(f"/tree/www/hostile/{quote(HOSTILE[1])}?download")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"____quot_\"; filename*=UTF-8''%22%27%3E%26quot%3B"
    )


# -- pages --


class Links(html.parser.HTMLParser):
    """Reads a page: its links, its tags, and what its text says."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_text_and_their_links_work(web: Web) -> None:
    page = Links(web.ask("/tree/www/hostile/").body)
    assert not page.tags & {"script", "img", "iframe", "object"}
    assert not {name for name in page.attributes if name.startswith("on")}
    links = [link.removesuffix("?view") for link in page.links if link.endswith("?view")]
    assert sorted(unquote_to_bytes(link) for link in links) == sorted(HOSTILE)
    for link in links:
        assert not set(link) & set(":/?#\"'<>")
        assert web.ask(f"/tree/www/hostile/{link}").body == b"in " + unquote_to_bytes(link)
        assert web.ask(f"/tree/www/hostile/{link}?view").status == 200
    assert "\\xff\\xfe" in page.text
    assert "new\\nline" in page.text


def test_a_page_is_sorted(web: Web) -> None:
    def names(query: str) -> list[str]:
        links = Links(web.ask(f"/tree/www/{query}").body).links
        return [
            link for link in links if link.endswith(("?view", "/")) and not link.startswith(("/", "?", ".."))
        ]

    assert names("")[:3] == ["hostile/", "sub/", "empty?view"]
    assert names("?sort=size")[-1] == "large.txt?view"
    assert names("?sort=size&order=down")[:3] == ["sub/", "hostile/", "large.txt?view"]
    assert names("?sort=nonsense&page=x&order=y") == names("")


def test_previews(web: Web) -> None:
    assert b"0123456789" in web.ask("/tree/www/ten.txt?view").body
    assert b"00000000  00 01 02" in web.ask("/tree/www/sub/deep/data.bin?view").body
    large = web.ask("/tree/www/large.txt?view").body
    assert len(large) < 100_000
    assert b"the first 64.0 KiB" in large or b"the first 64" in large


def test_pages_say_where_they_are_and_what_is_not_there(web: Web, tmp_path: Path) -> None:
    """What is empty, what leads back, and that a name is read in its own direction."""
    (tmp_path / "nothing").mkdir()
    (tmp_path / "שלום").write_bytes(b"")
    node = import_tree(tmp_path, web.stores.blobs(), web.stores.directories()).node
    top = f"/tree/{node.digest}/"  # type: ignore[union-attr]
    listing = web.ask(top).body.decode()
    assert '<a href="/">castore</a>' in listing
    assert "<bdi>שלום</bdi>" in listing
    assert "This folder is empty." in web.ask(f"{top}nothing/").body.decode()
    assert "This file is empty." in web.ask(f"{top}{quote('שלום')}?view").body.decode()
    assert "<bdi>www</bdi>" in web.ask("/tree/www/").body.decode()
    refusal = web.ask("/tree/www/none", {"Accept": "text/html"}).body.decode()
    assert "<h1>404 Not Found</h1>" in refusal
    assert '<a href="/">castore</a>' in refusal


def test_as_json(web: Web) -> None:
    found = json.loads(web.ask("/api/tree/www/").body)
    assert found["digest"] == B3Digest.parse(web.root).sri
    by_name = {entry["name"]: entry for entry in found["entries"]}
    assert by_name["ten.txt"]["size"] == 10
    assert by_name["passwd"]["target"] == "/etc/passwd"


def test_the_first_page_has_the_refs(web: Web) -> None:
    links = Links(web.ask("/").body).links
    assert links == ["/tree/team/site/", "/tree/www/"]
    assert all(web.ask(link).status == 200 for link in links)


def test_a_page_of_many_entries(tmp_path: Path) -> None:
    """A thousand of them at a time."""
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        directory = Directory({b"%05d" % number: FileNode(EMPTY, 0) for number in range(2500)})
        root = stores.directories().put(directory)
        with serving(stores, root=str(root)) as (port, reports):
            many = Web(stores, port, str(root), tmp_path, reports)
            first, last = many.ask("/"), many.ask("/?page=3")
            assert first.body.count(b"?view") == 1000
            assert b"page 1 of 3" in first.body
            assert last.body.count(b"?view") == 500
            assert many.ask("/?page=99999999999999").body == first.body
            as_json = many.ask(f"/api/tree/{root}/")
            assert [each["name"] for each in json.loads(as_json.body)["entries"]] == [
                f"{number:05d}" for number in range(2500)
            ]
            # It was sent as it was made.
            assert as_json.headers["transfer-encoding"] == "chunked"
            assert many.ask(f"/api/tree/{root}/", method="HEAD").body == b""


@pytest.mark.long  # It makes, reads and shows each of them: some seconds of the processor.
def test_a_folder_of_a_hundred_thousand_entries_takes_little_memory(tmp_path: Path) -> None:
    """Its page, sorted, and its JSON: some 97 MB for all of the server, of which 45 are its programs."""
    table = {"blobservices": {"root": {"type": "objectstore", "object_store_url": "file:./store"}}}
    (tmp_path / "castore.toml").write_text(
        '[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:./store"\n'
    )
    with castore.Composition.from_mapping(table, base=tmp_path) as stores:
        root = stores.directories().put(
            Directory({b"file-%06d.txt" % number: FileNode(EMPTY, 0) for number in range(100_000)})
        )
    command = [sys.executable, "-m", "castore", "--composition", str(tmp_path / "castore.toml")]
    command += ["http", str(root), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            port = int(said.rpartition(":")[2].split("/")[0])
            assert ask(port, "/?sort=size&order=down").body.count(b"?view") == 1000
            assert ask(port, "/?page=100").body.count(b"?view") == 1000
            assert ask(port, f"/api/tree/{root}/").body.count(b'"name"') == 100_000
            status = Path(f"/proc/{server.pid}/status").read_text()
        finally:
            server.terminate()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak << 10 < 110_000_000


# -- zstd --


@pytest.mark.parametrize("check", [True, False])
def test_frames_are_passed_through(web: Web, check: bool) -> None:
    """They are another representation, with a tag of its own, and no ranges."""
    with serving(web.stores, check_frames=check) as (port, reports):
        other = Web(web.stores, port, web.root, web.folder, reports)
        answer = other.ask("/tree/www/large.txt", {"Accept-Encoding": "gzip, zstd"})
        assert answer.headers["content-encoding"] == "zstd"
        assert answer.headers["etag"] == f'"{blake3(LARGE).hexdigest()}-zstd"'
        assert "accept-ranges" not in answer.headers
        assert len(answer.body) < len(LARGE) / 2
        assert unpacked(answer.body) == LARGE
        ranged = other.ask("/tree/www/large.txt", {"Accept-Encoding": "zstd", "Range": "bytes=0-1"})
        assert (ranged.status, ranged.body) == (206, LARGE[:2])
        again = other.ask(
            "/tree/www/large.txt", {"Accept-Encoding": "zstd", "If-None-Match": answer.headers["etag"]}
        )
        assert again.status == 304
        empty = other.ask("/tree/www/empty", {"Accept-Encoding": "zstd"})
        assert "content-encoding" not in empty.headers


# -- archives --


def test_archives_are_the_folder(web: Web) -> None:
    tar = web.ask("/tree/www/sub/?archive=tar")
    assert tar.headers["content-type"] == "application/x-tar"
    assert tar.headers["content-disposition"].startswith('attachment; filename="sub.tar"')
    with tarfile.open(fileobj=io.BytesIO(tar.body)) as archive:
        member = archive.extractfile("sub/deep/data.bin")
        assert member is not None
        assert member.read() == bytes(range(256))
    assert web.ask("/tree/www/sub/?archive=tar").body == tar.body
    assert unpacked(web.ask("/tree/www/sub/?archive=tar.zst").body) == tar.body
    with zipfile.ZipFile(io.BytesIO(web.ask("/tree/www/sub/?archive=zip").body)) as packed:
        assert packed.read("sub/page.html") == b"<script>alert(1)</script>"
    assert web.ask("/tree/www/sub/?archive=tar", {"If-None-Match": tar.headers["etag"]}).status == 304
    assert web.ask("/tree/www/sub/?archive=rar").status == 404


# -- one tree at the top --


def test_a_tree_at_the_top(web: Web) -> None:
    with serving(web.stores, root="www") as (port, reports):
        top = Web(web.stores, port, web.root, web.folder, reports)
        assert top.ask("/ten.txt").body == TEXT
        assert top.ask("/sub").headers["location"] == "/sub/"
        assert top.ask("/").status == 200
        assert top.ask(f"/blob/{HEX}").body == TEXT
    with serving(web.stores, root="www", auto_index=False, index_names=["page.html"]) as (port, reports):
        top = Web(web.stores, port, web.root, web.folder, reports)
        assert top.ask("/").status == 403
        assert top.ask("/sub/").body == b"<script>alert(1)</script>"


def test_first_digits_and_a_path_at_the_top(web: Web) -> None:
    """They are completed once, when the server begins."""
    with serving(web.stores, root=f"{web.root[:12]}:sub") as (port, reports):
        top = Web(web.stores, port, web.root, web.folder, reports)
        assert top.ask("/page.html").status == 200
        assert top.ask("/deep").headers["location"] == "/deep/"
        assert top.ask("/ten.txt").status == 404


def test_a_site_is_trusted_and_nothing_else_is_served(web: Web) -> None:
    with serving(web.stores, root="www", site=True, index_names=["page.html"]) as (port, reports):
        site = Web(web.stores, port, web.root, web.folder, reports)
        assert "content-security-policy" not in site.ask("/sub/").headers
        assert site.ask(f"/blob/{HEX}").status == 404
        assert site.ask("/tree/www/").status == 404


def test_names_of_the_tree_come_before_those_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "f/blob").mkdir(parents=True)
    (tmp_path / "f/blob" / HEX).write_text("the file")
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        node = import_tree(tmp_path / "f", stores.blobs(), stores.directories()).node
        with serving(stores, root=str(node.digest)) as (port, reports):  # type: ignore[union-attr]
            top = Web(stores, port, "", tmp_path, reports)
            assert top.ask(f"/blob/{HEX}").body == b"the file"


# -- writing --


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text("writer write,read token-of-the-writer\nreader read token-of-the-reader\n")
    path.chmod(0o600)
    return Tokens.read(path)


@pytest.fixture
def writable(tokens: Tokens, tmp_path: Path) -> Iterator[Web]:
    with (
        castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores,
        serving(stores, tokens, writable=True, most_body=1 << 20) as (port, reports),
    ):
        yield Web(stores, port, "", tmp_path, reports)


WRITER = {"Authorization": "Bearer token-of-the-writer"}


def test_blobs_are_stored_by_who_may(writable: Web) -> None:
    path = f"/blob/{HEX}"
    assert writable.ask(path, method="PUT", body=TEXT).status == 401
    assert (
        writable.ask(path, {"Authorization": "Bearer token-of-nobody-here"}, method="PUT", body=TEXT).status
        == 401
    )
    assert (
        writable.ask(path, {"Authorization": "Bearer token-of-the-reader"}, method="PUT", body=TEXT).status
        == 403
    )
    assert not writable.stores.blobs().has(B3Digest.parse(HEX))
    assert writable.ask(path, WRITER, method="PUT", body=TEXT).status == 201
    assert writable.ask(path, WRITER, method="PUT", body=TEXT).status == 200
    assert writable.ask(path).body == TEXT
    posted = writable.ask("/blob", WRITER, method="POST", body=b"more")
    assert (posted.status, posted.headers["location"]) == (201, f"/blob/{blake3(b'more').hexdigest()}")
    assert writable.ask(posted.headers["location"]).body == b"more"


def test_what_is_not_as_it_says_is_refused(writable: Web) -> None:
    wrong = writable.ask(f"/blob/{'1' * 64}", WRITER, method="PUT", body=b"other")
    assert wrong.status == 422
    assert blake3(b"other").hexdigest() in wrong.body.decode()
    assert not writable.stores.blobs().has(B3Digest.of(b"other"))
    longer = bytes(900_000)
    assert writable.ask(f"/blob/{'1' * 64}", WRITER, method="PUT", body=longer).status == 422
    assert not writable.stores.blobs().has(B3Digest.of(longer))
    assert (
        writable.ask(f"/blob/{B3Digest.of(longer)}", WRITER, method="PUT", body=longer).status,
        writable.stores.blobs().read(B3Digest.of(longer)),
    ) == (201, longer)
    large = {**WRITER, "Content-Length": str(1 << 30)}
    assert writable.ask("/blob", large, method="POST").status == 413
    assert writable.ask("/blob", WRITER, method="POST", body=bytes((1 << 20) + 1)).status == 413
    assert writable.ask("/blob", {**WRITER, "Content-Length": "x"}, method="POST").status == 400


def test_a_known_blob_is_answered_without_its_body(writable: Web) -> None:
    """Nobody who asks first (`Expect: 100-continue`) sends it in vain; others are not told to go on."""
    digest = writable.stores.blobs().write(TEXT)
    for token, first in (("token-of-the-writer", b"HTTP/1.1 200"), ("token-of-the-reader", b"HTTP/1.1 403")):
        with socket.create_connection(("127.0.0.1", writable.port), 20) as connection:
            connection.sendall(
                f"PUT /blob/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
                f"Authorization: Bearer {token}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(12) == first


def test_private_is_private(tokens: Tokens, web: Web) -> None:
    with serving(web.stores, tokens, private=True) as (port, reports):
        private = Web(web.stores, port, web.root, web.folder, reports)
        assert private.ask("/tree/www/ten.txt").status == 401
        reader = {"Authorization": "Bearer token-of-the-reader"}
        assert private.ask("/tree/www/ten.txt", reader).body == TEXT
        paths = (f"/blob/{HEX}", f"/tree/{web.root}/ten.txt", "/tree/www/ten.txt", "/tree/www/", "/")
        for path in (*paths, "/tree/www/?archive=tar", "/api/tree/www/", "/tree/www/ten.txt?view"):
            open_to_all = web.ask(path).headers["cache-control"]
            assert private.ask(path, reader).headers["cache-control"].startswith("private, ")
            assert not open_to_all.startswith("private")
        assert "public" in web.ask(paths[0]).headers["cache-control"]


# -- hosts, floods, faults --


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:1", 200),
        ("localhost.", 200),
        ("mine.example:80", 200),
        ("127.0.0.1", 200),
        ("127.0.0.2:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.1.5", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[evil]", 421),
    ],
)
def test_another_name_for_this_machine_is_refused(web: Web, host: str, status: int) -> None:
    """A page of elsewhere may have a name that leads here; none leads to an address that is written out."""
    with serving(web.stores, hosts={"localhost", "mine.example"}) as (port, reports):
        local = Web(web.stores, port, web.root, web.folder, reports)
        assert local.ask("/", {"Host": host}).status == status


def test_no_name_leads_to_a_unix_socket(web: Web, tmp_path: Path) -> None:
    with unix_server(HttpApp(web.stores, options=HttpOptions(hosts={"localhost"}))) as path:
        assert status_at(path, b"GET /tree/www/ HTTP/1.1\r\nHost: anything\r\n\r\n") == 200


def test_a_unix_socket_is_one_servers(web: Web) -> None:
    """Another server is told so; what is left behind is removed, and so is one's own in the end."""
    request = b"GET /tree/www/ HTTP/1.1\r\nHost: x\r\n\r\n"
    with unix_server(HttpApp(web.stores)) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(CompositionError, match="another server does"):
            HttpServer(HttpApp(web.stores)).listen(Address.parse(f"unix:{path}"))
        assert status_at(path, request) == 200
        with (path.parent / "file").open("wb"), pytest.raises(CompositionError, match="something else"):
            HttpServer(HttpApp(web.stores)).listen(Address.parse(f"unix:{path.parent / 'file'}"))
    with TemporaryDirectory(prefix="castore") as folder:
        stale = Path(folder) / "socket"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(stale))
        with unix_server(HttpApp(web.stores), stale):
            assert status_at(stale, request) == 200
        assert not stale.exists()


@contextmanager
def unix_server(app: HttpApp, path: Path | None = None) -> Iterator[Path]:
    """Serve at a unix socket."""
    with TemporaryDirectory(prefix="castore") as folder:
        path = path or Path(folder) / "socket"
        server = HttpServer(app)
        server.listen(Address.parse(f"unix:{path}"))
        started = threading.Event()
        thread = threading.Thread(target=server.run, args=(started.set,))
        thread.start()
        try:
            assert started.wait(20)
            yield path
        finally:
            server.stop()
            thread.join(20)


def status_at(path: Path, request: bytes) -> int:
    """Return the status of the answer to a request."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(request)
        return int(connection.recv(12).partition(b" ")[2])


def test_pages_of_other_sites_read_by_leave(web: Web) -> None:
    with serving(web.stores, cors={"https://a.example"}) as (port, reports):
        open_to_one = Web(web.stores, port, web.root, web.folder, reports)
        allowed = open_to_one.ask("/tree/www/ten.txt", {"Origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "cross-origin-resource-policy" not in allowed.headers
        other = open_to_one.ask("/tree/www/ten.txt", {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers
        assert other.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in web.ask("/", {"Origin": "https://a.example"}).headers


def test_a_head_that_does_not_end_is_cut_off(web: Web) -> None:
    """Not even a byte now and then prolongs it."""
    with serving(web.stores, idle=1.0) as (port, _):  # noqa: SIM117
        with socket.create_connection(("127.0.0.1", port), 20) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\n")
            closed = False
            begin = time.monotonic()
            while not closed and time.monotonic() < begin + 20:
                try:
                    slow.sendall(b"X: y\r\n")
                    slow.settimeout(0.2)
                    closed = slow.recv(100) == b""
                except TimeoutError:
                    continue
                except OSError:
                    closed = True
            assert closed


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (1 << 20),
        b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"POST /blob HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /blob HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /blob HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_requests_that_are_none(web: Web, head: bytes) -> None:
    """A head has 16 KiB at most; what could be read in two ways is not read."""
    with socket.create_connection(("127.0.0.1", web.port), 20) as connection:
        answer = b""
        try:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
        assert answer[9:10] in {b"", b"4", b"5"}
    assert web.ask("/tree/www/ten.txt").body == TEXT


def test_a_head_of_16_mib_is_not_taken(web: Web) -> None:
    """The server closes the connection long before its end."""
    with socket.create_connection(("127.0.0.1", web.port), 20) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        taken = 0
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
            while taken < 16 << 20:
                taken += connection.send(b"y" * (64 << 10))
        assert taken < 16 << 20
    assert web.ask("/tree/www/ten.txt").body == TEXT


def test_many_who_send_their_heads_slowly_keep_nobody_out_for_long(web: Web) -> None:
    """They have all the connections that there may be; when their time is over there is room again."""
    with serving(web.stores, idle=1.0, connections=16) as (port, _), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(16)]
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\nX: y\r\n")
        ends = time.monotonic() + 60
        while (status := ask(port, "/").status) != 200 and time.monotonic() < ends:
            time.sleep(0.1)
        assert status == 200
        # Each was closed by the server.
        assert [each.recv(1) for each in slow] == [b""] * 16


def test_too_many_connections(web: Web) -> None:
    with serving(web.stores, connections=8) as (port, _):
        held = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
        # Those that came first are taken first.
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 503"
        for each in held:
            each.close()


def test_a_body_that_fails_does_not_end_as_if_it_were_whole(tmp_path: Path) -> None:
    """What was sent is right, and the client sees that it is not all."""
    store = {"type": "objectstore", "object_store_url": "file:./s", "avg_chunk_size": "64 KiB"}
    with castore.Composition.from_mapping({"blobservices": {"root": store}}, base=tmp_path) as stores:
        data = os.urandom(4 << 20)
        digest = stores.blobs().write(data)
        chunks = stores.blobs().chunks(digest)
        assert chunks
        (path,) = (tmp_path / "s").rglob(f"{chunks[-1].digest.hex()}*")
        path.write_bytes(b"damaged")
        with serving(stores) as (port, reports):
            for encoding in ("identity", "zstd"):
                with socket.create_connection(("127.0.0.1", port), 20) as connection:
                    head = f"GET /blob/{digest} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n"
                    connection.sendall(head.encode())
                    answer = b""
                    while part := connection.recv(65536):
                        answer += part
                _head, _, body = answer.partition(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200")
                assert not body.endswith(b"0\r\n\r\n")
                if encoding == "identity":
                    assert len(body) < len(data)
                    assert data.startswith(body)
            assert len(reports) == 2
            assert str(chunks[-1].digest) in reports[0]


def test_an_entry_that_says_another_size_is_not_served(web: Web) -> None:
    """Neither a small nor a large one: what would come is not what the page says."""
    digest = B3Digest.of(TEXT)
    sizes = {b"less": 3, b"more": 11, b"large": 1 << 30}
    directory = Directory({name: FileNode(digest, size) for name, size in sizes.items()})
    root = web.stores.directories().put(directory)
    for name in sizes:
        assert web.ask(f"/tree/{root}/{name.decode()}").status == 500


def test_many_at_once(web: Web) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: web.ask("/tree/www/large.txt").body == LARGE, range(32)))
    assert all(answers)


# -- a browser --


@needs_chromium
@pytest.mark.parametrize(("path", "seen"), [("", "a.svg"), ("a.html", "shown"), ("a.svg", "svg")])
def test_a_browser_runs_nothing_of_what_is_stored(
    web: Web, browser: Browser, tmp_path: Path, path: str, seen: str
) -> None:
    """Names, HTML and SVG that would change the page."""
    script = "document.documentElement.setAttribute('hurt', location.href)"
    (tmp_path / "a.html").write_text(f"<title>x</title><script>{script}</script><p>shown</p>")
    (tmp_path / "a.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg"><script>{script}</script></svg>'
    )
    (tmp_path / f"<img src=x onerror={script.split('.', maxsplit=1)[0]}.title=1>").write_text("name")
    node = import_tree(tmp_path, web.stores.blobs(), web.stores.directories()).node
    browser.open(f"http://127.0.0.1:{web.port}/tree/{node.digest}/{path}")  # type: ignore[union-attr]
    assert seen in browser.do("document.documentElement.outerHTML")
    assert browser.do("document.querySelector('[hurt]') === null && document.title !== '1'")


@needs_chromium
def test_a_browser_unpacks_many_frames(web: Web, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for zstd, gets the chunks as they are stored, and has the last line."""
    sent: list[int] = []

    def counted(*arguments: object, **options: object) -> Iterator[bytes]:
        for frame in frames(*arguments, **options):  # type: ignore[arg-type]
            sent.append(len(frame))
            yield frame

    monkeypatch.setattr(blob_answers, "frames", counted)
    browser.open(f"http://127.0.0.1:{web.port}/api/tree/www/")  # It may ask for more of the same host.
    found = browser.do("fetch('/tree/www/large.txt').then((a) => a.text()).then((t) => t.slice(-40))")
    assert found.rstrip().endswith("line 199999 of a text")
    assert len(sent) > 10


@needs_chromium
def test_a_browser_plays_and_seeks_a_film(web: Web, browser: Browser, tmp_path: Path) -> None:
    """In its preview. It asks for the ranges that it needs."""
    browser.open(f"http://127.0.0.1:{web.port}/api/tree/www/")
    (tmp_path / "film.webm").write_bytes(film(browser, between=8 << 20))
    node = import_tree(tmp_path, web.stores.blobs(), web.stores.directories()).node
    browser.look_like()
    browser.open(f"http://127.0.0.1:{web.port}/tree/{node.digest}/film.webm?view")  # type: ignore[union-attr]
    browser.do("video = document.querySelector('video'); video.muted = true; video.play()")
    browser.until("video.currentTime > 0.2")
    colour = """(() => {
        const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext('2d');
        context.drawImage(video, 0, 0, 1, 1);
        const [red, , blue] = context.getImageData(0, 0, 1, 1).data;
        return red > 150 && blue < 50 ? 'red' : blue > 150 && red < 50 ? 'blue' : 'other';
    })()"""
    assert browser.do(colour) == "red"
    browser.do("video.pause(); video.currentTime = 17")
    browser.until(f"!video.seeking && {colour} === 'blue'")
    assert browser.do("[video.duration, video.currentTime, video.error].join()") == "20,17,"
    assert browser.complaints() == []
    responses = [
        each["params"]["response"] for each in browser.events if each["method"] == "Network.responseReceived"
    ]
    assert 206 in {each["status"] for each in responses if each["url"].endswith("film.webm")}


# -- mounted --


def test_it_mounts_in_another_application(web: Web) -> None:
    """Links and redirects keep the path that it is mounted at."""
    applications = pytest.importorskip("starlette.applications")
    routing = pytest.importorskip("starlette.routing")
    outer = applications.Starlette(
        routes=[routing.Mount("/data", app=HttpApp(web.stores, options=HttpOptions(live="anybody")))]
    )

    async def ask(path: str) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request"}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [], "root_path": "", "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        await outer(scope, receive, send)
        body = b"".join(part.get("body", b"") for part in sent[1:])  # type: ignore[misc]
        return sent[0]["status"], dict(sent[0]["headers"]), body  # type: ignore[return-value,call-overload]

    status, headers, _ = asyncio.run(ask("/data/tree/www/sub"))
    assert (status, headers[b"location"]) == (308, b"/data/tree/www/sub/")
    for path in ("/data/", "/data"):
        status, _, body = asyncio.run(ask(path))
        assert b'<a href="/data/tree/www/">' in body or (path == "/data" and status in {307, 404})
    status, _, body = asyncio.run(ask("/data/ui/composition"))
    assert status == 200
    assert b'<a href="/data/">castore</a>' in body
    status, _, body = asyncio.run(ask("/data/tree/www/sub/"))
    assert status == 200
    assert b'<a href="/data/tree/www/">' in body


def test_a_small_answer_does_not_wait_for_a_timer() -> None:
    """Its head and its body are two pieces: without this option the second one waits for 40 ms."""
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        server = HttpServer(HttpApp(stores))
        server.listen(Address.parse("127.0.0.1:0"))
        (listening,) = server._sockets
        with listening, socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nobody_is_told_of_a_server_that_does_not_begin() -> None:
    told: list[int] = []
    with castore.Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
        server = HttpServer(HttpApp(stores))
        server.listen(Address.parse("127.0.0.1:0"))
        server._sockets[0].close()
        with pytest.raises((OSError, ValueError)):
            server.run(lambda: told.append(1))
    assert not told
