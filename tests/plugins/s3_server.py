"""A small server of S3's protocol, in this process, that can do wrong: what a proxy or a lesser server does.

It has one bucket, checks no signatures, and knows what castore's drivers ask for.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.server
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self
from xml.sax.saxutils import escape, unescape

import attrs

CODES = {
    403: "AccessDenied",
    412: "PreconditionFailed",
    429: "SlowDown",
    500: "InternalError",
    503: "SlowDown",
}

LATER = "2026-11-30T12:00:00.000Z"


def tag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@attrs.define
class S3Server:
    """The server, and what it is to do wrong: `fault` is asked for each request, by method and key.

    Faults: a status (with `Retry-After` for 503), `hang`, `close` (without an answer), `cut` (a body that
    ends in the middle), `short` (a whole answer with half of the object), `flip` (a bit of the body),
    `no-ranges`, `no-conditions`, `garbage` (of a listing).
    """

    objects: dict[str, bytes] = attrs.field(factory=dict)
    fault: Callable[[str, str], object] = lambda method, key: None
    requests: list[str] = attrs.field(factory=list)
    delay: float = 0.0
    """Seconds that each answer takes more."""
    refusal: Any = None
    """What it answers to all, if that is set: with `status`, `code`, `message`, `more` and `region`."""
    tls: ssl.SSLContext | None = None
    port: int = 0
    ended: threading.Event = attrs.field(factory=threading.Event)
    _server: Any = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, at the same port as before."""
        self.ended.clear()
        handler = type("Handler", (_Handler,), {"s3": self})

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                pass  # Clients hang up.

        self._server = Server(("127.0.0.1", self.port), handler)
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and end what is under way."""
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: a client waits for the end of each answer.

    def _take(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        _, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.s3.ended.is_set():
            self.close_connection = True
            return
        self.s3.requests.append(f"{self.command} {key}")
        if self.s3.delay:
            time.sleep(self.s3.delay)
        refusal = self.s3.refusal
        if refusal:
            said = f"<Code>{refusal.code}</Code><Message>{refusal.message}</Message>{refusal.more}"
            region = {"x-amz-bucket-region": refusal.region} if refusal.region else {}
            self.answer(refusal.status, f"<Error>{said}</Error>".encode(), **region)
            return
        fault = self.s3.fault(self.command, key)
        if fault == "hang":
            self.s3.ended.wait(30)
        if fault in ("close", "hang"):
            self.close_connection = True
            return
        if isinstance(fault, int):
            self.refuse(
                fault, {403: "AccessDenied", 429: "SlowDown", 503: "SlowDown"}.get(fault, "InternalError")
            )
            return
        self.answer_right(key, query, body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _take

    def answer_right(self, key: str, query: dict[str, str], body: bytes, fault: object) -> None:
        objects = self.s3.objects
        there = objects.get(key)
        if self.command in ("PUT", "DELETE") and fault != "no-conditions" and not self.allows(there):
            self.refuse(412, "PreconditionFailed")
        elif "delete" in query:
            keys = re.findall(r"<Key>([^<]*)</Key>", body.decode())
            for found in keys:
                objects.pop(unescape(found), None)
            rows = "".join(f"<Deleted><Key>{found}</Key></Deleted>" for found in keys)
            self.answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())
        elif self.command == "PUT":
            source = self.headers.get("x-amz-copy-source")
            if source:
                body = objects[urllib.parse.unquote(source).lstrip("/").partition("/")[2]]
            objects[key] = body
            answer = f"<CopyObjectResult><ETag>{tag_of(body)}</ETag></CopyObjectResult>" if source else ""
            self.answer(200, answer.encode(), ETag=tag_of(body))
        elif self.command == "DELETE":
            objects.pop(key, None)
            self.answer(204)
        elif not key and self.command == "HEAD":
            self.answer(200)
        elif not key:
            page = b"<what>" if fault == "garbage" else self.list_objects(query)
            self.answer(200, page, cut=fault == "cut")
        elif there is None:
            self.refuse(404, "NoSuchKey")
        else:
            self.give(there, fault)

    def allows(self, there: bytes | None) -> bool:
        if self.headers.get("If-None-Match") == "*":
            return there is None
        wanted = self.headers.get("If-Match")
        return wanted is None or (there is not None and tag_of(there) == wanted)

    def give(self, data: bytes, fault: object) -> None:
        tag, status, headers = tag_of(data), 200, {}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted and fault != "no-ranges":
            size = len(data)
            begin = int(wanted[1]) if wanted[1] else max(size - int(wanted[2]), 0)
            end = min(int(wanted[2]) + 1, size) if wanted[1] and wanted[2] else size
            if begin >= size:
                self.refuse(416, "InvalidRange")
                return
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            data, status = data[begin:end], 206
        if fault == "flip" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if fault == "short":
            data = data[: len(data) // 2]
        # As it was put: a client may look at the tag of what it is given.
        self.answer(status, data, cut=fault == "cut", ETag=tag, **headers)

    def list_objects(self, query: dict[str, str]) -> bytes:
        prefix = query.get("prefix", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        most = int(query.get("max-keys", 1000))
        found = [key for key in sorted(self.s3.objects) if key.startswith(prefix) and key > after]
        encode = urllib.parse.quote if query.get("encoding-type") == "url" else escape
        rows = "".join(
            f"<Contents><Key>{encode(key)}</Key><LastModified>{LATER}</LastModified>"
            f"<ETag>{escape(tag_of(self.s3.objects[key]))}</ETag><Size>{len(self.s3.objects[key])}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in found[:most]
        )
        more = len(found) > most
        token = f"<NextContinuationToken>{escape(found[most - 1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<ListBucketResult><Name>bucket</Name><Prefix>{encode(prefix)}</Prefix>"
            f"<KeyCount>{len(found[:most])}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>"
        ).encode()

    def refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>This is {code}</Message></Error>".encode()
        self.answer(status, body, **({"Retry-After": "1"} if status == 503 else {}))

    def answer(self, status: int, body: bytes = b"", *, cut: bool = False, **headers: str) -> None:
        with suppress(OSError):
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", email.utils.formatdate(1796040000, usegmt=True))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass
