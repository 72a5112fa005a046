"""Ranges and conditions, as RFC 9110 has them: each case through a socket."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from served_over_http import LARGE, TEXT, Web

from castore.serving.http.conditions import accepts, parse_ranges

HEX = blake3(TEXT).hexdigest()
TAG = f'"{HEX}"'
EMPTY = blake3(b"").hexdigest()
FULL = (200, TEXT)

RANGES: list[tuple[str, Any]] = [
    ("bytes=0-0", (206, b"0", "0-0")),
    ("bytes=0-4", (206, b"01234", "0-4")),
    ("bytes=5-", (206, b"56789", "5-9")),
    ("bytes=9-9", (206, b"9", "9-9")),
    ("bytes=5-100", (206, b"56789", "5-9")),
    (f"bytes=5-{'9' * 30}", (206, b"56789", "5-9")),
    ("bytes=-1", (206, b"9", "9-9")),
    ("bytes=-10", (206, TEXT, "0-9")),
    ("bytes=-100", (206, TEXT, "0-9")),
    (f"bytes=-{'9' * 5000}", (206, TEXT, "0-9")),
    ("bytes=0-9", (206, TEXT, "0-9")),
    ("BYTES=1-2", (206, b"12", "1-2")),
    ("bytes= 1-2 ", (206, b"12", "1-2")),
    ("bytes=1 - 2", (206, b"12", "1-2")),
    ("bytes=,1-2,", (206, b"12", "1-2")),
    ("bytes=00001-0002", (206, b"12", "1-2")),
    ("bytes=1-2,50-60", (206, b"12", "1-2")),
    ("bytes=0-1,1-3", (206, b"0123", "0-3")),
    ("bytes=0-3,2-5,4-4", (206, b"012345", "0-5")),
    ("bytes=0-7,2-5", 200),  # more bytes than there are
    ("items=0-1", 200),
    ("bytes", 200),
    ("bytes=", 200),
    ("bytes=,", 200),
    ("bytes=-", 200),
    ("bytes=a-b", 200),
    ("bytes=5-4", 200),
    ("bytes=1-2,5-4", 200),
    ("bytes=1-2,x", 200),
    ("bytes=1--2", 200),
    ("bytes=+1-2", 200),
    ("bytes=\u0661-\u0662".encode().decode("latin-1"), 200),
    ("bytes:0-1", 200),
    ("bytes=0-9,0-9", 200),
    ("bytes=" + ",".join("0-0" for _ in range(17)), 200),
    ("bytes=" + ",".join("0-0" for _ in range(1000)), 200),
    ("bytes=10-", 416),
    ("bytes=10-20", 416),
    ("bytes=-0", 416),
    ("bytes=99-,-0", 416),
    (f"bytes={'9' * 40}-", 416),
]


@pytest.mark.parametrize(("header", "expected"), RANGES)
def test_ranges(web: Web, header: str, expected: Any) -> None:
    answer = web.ask(f"/blob/{HEX}", {"Range": header})
    if expected == 200:
        assert (answer.status, answer.body) == FULL
        assert "content-range" not in answer.headers
    elif expected == 416:
        assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")
    else:
        status, body, content_range = expected
        assert (answer.status, answer.body) == (status, body)
        assert answer.headers["content-range"] == f"bytes {content_range}/10"
    if answer.status in {200, 206}:
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers["etag"] == TAG


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ("bytes=0-1,4-5", [("0-1", b"01"), ("4-5", b"45")]),
        ("bytes=4-5,0-1", [("4-5", b"45"), ("0-1", b"01")]),
        ("bytes=0-0,-1", [("0-0", b"0"), ("9-9", b"9")]),
        ("bytes=0-1,1-2,8-", [("0-2", b"012"), ("8-9", b"89")]),
        ("bytes=0-0,2-2,4-4,20-", [("0-0", b"0"), ("2-2", b"2"), ("4-4", b"4")]),
    ],
)
def test_several_ranges(web: Web, header: str, parts: list[tuple[str, bytes]]) -> None:
    answer = web.ask("/tree/www/ten.txt", {"Range": header})
    assert answer.status == 206
    media = answer.headers["content-type"]
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", media)
    assert match
    assert answer.headers["content-length"] == str(len(answer.body))
    pieces = answer.body.split(b"\r\n--" + match[1].encode())
    assert (pieces[0], pieces[-1]) == (b"", b"--\r\n")
    expected = [
        f"\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {part}/10\r\n\r\n".encode()
        + body
        for part, body in parts
    ]
    assert pieces[1:-1] == expected


CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If-None-Match": TAG}, 304),
    ({"If-None-Match": f"W/{TAG}"}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": f'"other", {TAG}'}, 304),
    ({"If-None-Match": f'"a,b",,{TAG}'}, 304),
    ({"If-None-Match": '"other"'}, 200),
    ({"If-None-Match": HEX}, 200),
    ({"If-None-Match": f'"other" {TAG} x'}, 200),
    ({"If-None-Match": TAG, "Range": "bytes=0-1"}, 304),
    ({"If-None-Match": '"other"', "Range": "bytes=0-1"}, 206),
    ({"If-Match": TAG}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": f'"other",{TAG}'}, 200),
    ({"If-Match": f"W/{TAG}"}, 412),
    ({"If-Match": '"other"'}, 412),
    ({"If-Match": '"other"', "If-None-Match": TAG}, 412),
    ({"If-Match": TAG, "If-None-Match": TAG}, 304),
    ({"If-Range": TAG, "Range": "bytes=0-1"}, 206),
    ({"If-Range": f"W/{TAG}", "Range": "bytes=0-1"}, 200),
    ({"If-Range": '"other"', "Range": "bytes=0-1"}, 200),
    ({"If-Range": "Mon, 30 Nov 2026 00:00:00 GMT", "Range": "bytes=0-1"}, 200),
    ({"If-Range": '"other"', "Range": "bytes=99-"}, 200),
    ({"If-Range": TAG}, 200),
    ({"If-Modified-Since": "Mon, 30 Nov 2026 00:00:00 GMT"}, 200),
    ({"If-Unmodified-Since": "Mon, 30 Nov 1970 00:00:00 GMT"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), CONDITIONS)
def test_conditions(web: Web, headers: dict[str, str], status: int) -> None:
    answer = web.ask(f"/blob/{HEX}", headers)
    assert answer.status == status
    assert answer.headers["etag"] == TAG
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.body == {200: TEXT, 206: TEXT[:2]}.get(status, b"")


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=99-"}])
def test_head_has_the_headers_of_get(web: Web, headers: dict[str, str]) -> None:
    """Ranges are for GET alone."""
    got = web.ask(f"/blob/{HEX}")
    answer = web.ask(f"/blob/{HEX}", headers, method="HEAD")
    drop = {"date"}
    assert (answer.status, answer.body) == (200, b"")
    assert {n: v for n, v in answer.headers.items() if n not in drop} == {
        n: v for n, v in got.headers.items() if n not in drop
    }


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=-1", "bytes=0-"])
def test_an_empty_blob_has_no_ranges(web: Web, header: str) -> None:
    assert web.ask(f"/blob/{EMPTY}", {"Range": header}).status == 416
    assert web.ask(f"/blob/{EMPTY}").headers["content-length"] == "0"


def test_large_ranges_are_right_across_chunks(web: Web) -> None:
    begin, end = 100_000, 1_900_000
    answer = web.ask("/tree/www/large.txt", {"Range": f"bytes={begin}-{end}"})
    assert answer.body == LARGE[begin : end + 1]
    assert web.ask("/tree/www/large.txt").body == LARGE


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_resumes(web: Web, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(LARGE[:1_000_001])
    url = f"http://127.0.0.1:{web.port}/tree/www/large.txt"
    subprocess.run(["curl", "-sS", "-f", "-C", "-", "-o", part, url], check=True, timeout=60)
    assert part.read_bytes() == LARGE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("zstd", True),
        ("gzip, ZSTD", True),
        ("zstd;q=0", False),
        ("zstd; q=0.0", False),
        ("zstd;q=0.5", True),
        ("*", False),
        ("zstd;q=x", False),
        ("xzstd", False),
    ],
)
def test_who_takes_zstd(header: str | None, expected: bool) -> None:
    assert accepts(header, "zstd") == expected


def test_no_header_stops_the_parser() -> None:
    """Whatever is sent, ranges lie within the blob."""
    for header in ("bytes=" + "-" * 9000, "bytes=" + "1" * 9000, "bytes=0-" + "," * 9000, "=", "bytes==0-1"):
        for begin, end in parse_ranges(header, 10):
            assert 0 <= begin < end <= 10
