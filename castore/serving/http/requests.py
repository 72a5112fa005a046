"""One request to an ASGI application, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote_to_bytes

from castore.serving.http import pages
from castore.serving.http.conditions import verdict
from castore.serving.http.options import HttpOptions

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Fields: TypeAlias = list[tuple[str, str]]

WATCHED: Final = "castore.watched"
"""What a request has in its state if its server gives a client up that takes nothing."""
_MOST_URL: Final = 8 << 10

_SAFE: Final[Fields] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class AnswerError(Exception):
    """A request that is answered with a status and words."""

    def __init__(self, status: int, words: str, fields: Fields | None = None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.fields = fields or []


class GoneError(Exception):
    """The client went away, or does not go on."""


class Request:
    """One request, and its answer."""

    def __init__(self, options: HttpOptions, scope: Scope, receive: Receive, send: Send) -> None:
        self._options = options
        self._receive = receive
        self._send = send
        self.begun = False
        self._gone: asyncio.Task[None] | None = None
        self._is_watched = bool(scope.get("state", {}).get(WATCHED))
        # A unix socket has no port, and no name leads there.
        self._is_local = (scope.get("server") or ("", 0))[1] is None
        self.method: str = scope["method"]
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            # What may be a list comes in several fields as well; of others the first one counts.
            lists = key in {"if-match", "if-none-match", "accept-encoding"}
            self.headers[key] = (
                f"{self.headers[key]},{text}"
                if lists and key in self.headers
                else self.headers.get(key, text)
            )
        mounted = scope.get("root_path", "")
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        raw = raw.partition(b"?")[0]
        prefix = mounted.encode()
        self._raw = raw.removeprefix(prefix) if raw.startswith(prefix) else raw
        self.base = _top_of(prefix)
        self.url = raw.decode("latin-1")
        self.slash = self._raw.endswith(b"/")
        self.parts: list[bytes] = []
        self.query: dict[str, str] = {}
        for field in scope.get("query_string", b"").decode("latin-1").split("&"):
            key, _, text = field.partition("=")
            self.query.setdefault(key, text)

    @property
    def shown(self) -> str:
        """Its path, for a log: on one line."""
        return self.url[:200].encode("unicode_escape").decode()

    def check(self) -> None:
        """Raise `AnswerError` for a URL, or a host, that nothing is served for; else `parts` are known."""
        if len(self.url) > _MOST_URL:
            raise AnswerError(414, f"a URL has {_MOST_URL} bytes at most here")
        if not (self._is_local or self._names_this_server()):
            raise AnswerError(421, "this server has another name")
        if self._raw in {b"", b"/"}:
            return
        parts = [unquote_to_bytes(part) for part in self._raw.strip(b"/").split(b"/")]
        if self._raw.startswith(b"//") or self._raw.endswith(b"//"):
            parts.append(b"")
        if any(not part or part in {b".", b".."} or b"/" in part or b"\0" in part for part in parts):
            raise AnswerError(400, "this path has an empty part, or one that is no name")
        self.parts = parts

    def _names_this_server(self) -> bool:
        hosts = self._options.hosts
        host = re.sub(r":\d+$", "", self.headers.get("host", "")).lower()
        if hosts is None or not host or host.rstrip(".") in hosts:
            return True
        # No name leads to an address that is written out, and browsers always say a name.
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
            return True
        return False

    async def is_settled(self, fields: Fields, tag: str) -> bool:
        """Answer if the conditions of the request say so: it has what *tag* is of, or wants another one."""
        status = verdict(self.method, self.headers, tag)
        if status != 200:
            await self.answer(status, fields)
        return status != 200

    def watch(self) -> None:
        """Look out, while an answer is sent, for the client to go away."""

        async def wait() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass

        self._gone = asyncio.ensure_future(wait())

    def watch_no_longer(self) -> None:
        """Look out no longer."""
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None

    def only(self, *methods: str) -> None:
        """Raise `AnswerError` for another method."""
        if self.method not in methods:
            raise AnswerError(405, "this cannot be done here", [("Allow", ", ".join(methods))])

    async def body(self) -> Any:
        """Yield what comes; raise `GoneError` if the client goes away, or sends nothing for too long."""
        while True:
            try:
                async with asyncio.timeout(self._options.idle):
                    message = await self._receive()
            except TimeoutError:
                raise AnswerError(408, "nothing came for too long", [("Connection", "close")]) from None
            if message["type"] == "http.disconnect":
                raise GoneError
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def begin(self, status: int, fields: Fields) -> None:
        """Send the head."""
        self.begun = True
        headers = [(name.lower().encode(), text.encode("latin-1")) for name, text in [*fields, *self._safe()]]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _safe(self) -> Fields:
        """Return the fields that every answer has."""
        cors, origin = self._options.cors, self.headers.get("origin")
        if not cors:
            return _SAFE
        found = [*_SAFE, ("Vary", "Origin")]
        if origin in cors and self.method in {"GET", "HEAD"}:
            found = [each for each in found if each[0] != "Cross-Origin-Resource-Policy"]
            found += [
                ("Access-Control-Allow-Origin", cast("str", origin)),
                ("Access-Control-Expose-Headers", "ETag, Content-Range, Accept-Ranges"),
            ]
        return found

    async def send_piece(self, piece: bytes) -> None:
        """Send a part of the body; raise `GoneError` if the client has gone, or does not take it."""
        try:
            async with asyncio.timeout(None if self._is_watched else self._options.idle):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except (TimeoutError, OSError):
            raise GoneError from None
        if self._gone is not None and self._gone.done():
            raise GoneError

    async def end(self, piece: bytes = b"") -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": piece})

    async def answer(self, status: int, fields: Fields, body: bytes | None = b"") -> None:
        """Send a whole answer; `None` stands for a body whose length is not known, or said in *fields*."""
        if body is not None and status != 304:
            fields = [*fields, ("Content-Length", str(len(body)))]
        await self.begin(status, fields)
        await self.end(b"" if body is None or self.method == "HEAD" else body)

    async def redirect(self, place: str) -> None:
        """Send the client to another path of this server."""
        await self.answer(308, [("Location", place), ("Cache-Control", "no-store")])

    async def refuse(self, answer: AnswerError) -> None:
        """Say why there is nothing else."""
        if self.begun:
            raise GoneError
        fields = [
            each for each in answer.fields if each[0] not in {"Content-Security-Policy", "Cache-Control"}
        ]
        fields += [("Cache-Control", "no-store"), ("Content-Security-Policy", pages.POLICY)]
        if "text/html" in self.headers.get("accept", ""):
            title = f"{answer.status} {HTTPStatus(answer.status).phrase}"
            body, media = pages.message(title, answer.words, self.base), "text/html; charset=utf-8"
        else:
            body, media = f"{answer.words}\n".encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8"
        await self.answer(answer.status, [*fields, ("Content-Type", media)], body)


def _top_of(mounted: bytes) -> str:
    """Return the URL of the top, with a slash at its end."""
    return mounted.decode("latin-1").rstrip("/") + "/"
