"""`B3Digest`: a value of 32 bytes, read from three texts and computed from any buffer."""

from __future__ import annotations

import array
import base64
import copy
import ctypes
import pickle
import string
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from castore.digest import DIGEST_SIZE, B3Digest
from castore.errors import CastoreError, InvalidDigestError

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
HELLO = "41f8394111eb713a22165c46c90ab8f0fd9399c92028fd6d288944b23ff5bf76"
HELLO_BASE64 = "Qfg5QRHrcToiFlxGyQq48P2TmckgKP1tKIlEsj/1v3Y="

RAW = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)


def _blob_b() -> bytes:
    return bytes(range(255)) * 4096


# Digests that the reference's own tests name, or computed with its hasher.
VECTORS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", EMPTY),
    "hello-world": (lambda: b"Hello World", HELLO),
    "hello-world!": (
        lambda: b"Hello World!",
        "5ca7815adcb484e9a136c11efe69c1d530176d549b5d18d038eb5280b4b3470c",
    ),
    "blob-a": (lambda: bytes([0, 1]), "7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63"),
    "chunk-2": (
        lambda: bytes([2, 3, 4, 5]),
        "024a7fdb2a86c4eae9600a1cfbfd4487ddc15c0a8fa59abfebd6f92bd0031fe5",
    ),
    "chunk-3": (lambda: bytes([6]), "1c310b6bdadd69991cd4e5dbef96c2638536c32b534e3ed64785846bfcebd206"),
    "chunk-4": (lambda: bytes([7, 8]), "d241b5ab32d2206564b51c8ec05944f6af6d7622c2f607f34c0622223a2b3cd7"),
    "chunk-5": (
        lambda: bytes(range(9, 16)),
        "465ded54852258aadefafc109bac1cb1c1275ad9ac15af4fe9996dff9473f50e",
    ),
    "blob-b": (_blob_b, "a82c5154a7a0c262c6fdb929a317585646f8fbcf80326d0a7b8747edaf2d99d2"),
}


@pytest.mark.parametrize("vector", VECTORS)
def test_of_gives_the_digests_of_the_reference(vector: str) -> None:
    make, digest = VECTORS[vector]

    assert str(B3Digest.of(make())) == digest


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_011])
def test_of_gives_the_same_digest_on_all_cores(size: int) -> None:
    """From 1 MiB on the work is split between threads."""
    data = b"castore" * (size // 7 + 1)

    assert B3Digest.of(data[:size]) == blake3(data[:size]).digest()


@pytest.mark.parametrize(
    "data",
    [
        bytearray(b"Hello World"),
        memoryview(b"Hello World"),
        memoryview(bytearray(b"xHello Worldx"))[1:-1],
        array.array("B", b"Hello World"),
    ],
    ids=lambda data: type(data).__name__,
)
def test_of_takes_any_buffer_of_bytes(data: Any) -> None:
    assert str(B3Digest.of(data)) == HELLO


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(memoryview(b"H.e.l.l.o. .W.o.r.l.d.")[::2], id="strided"),
        pytest.param(memoryview(b"dlroW olleH")[::-1], id="reversed"),
        pytest.param(array.array("H", [0x4548, 0x4C4C]), id="two-byte-items"),
        pytest.param(array.array("d", [1.5] * 200_000), id="large-eight-byte-items"),
        pytest.param((ctypes.c_int32 * 2)(1, 2), id="ctypes-numbers"),
        pytest.param(ctypes.create_string_buffer(b"Hello"), id="ctypes-characters"),
        pytest.param(memoryview(bytes(6)).cast("B", (2, 3)), id="two-dimensions"),
    ],
)
def test_of_takes_a_buffer_of_any_layout(data: Any) -> None:
    """What a writer takes, `of` takes as well: a caller who hashes first has the same buffer in hand."""
    assert B3Digest.of(data) == blake3(memoryview(data).tobytes()).digest()


def test_of_refuses_text() -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        B3Digest.of("Hello World")  # type: ignore[arg-type]


@given(st.binary(max_size=5000))
def test_of_is_blake3(data: bytes) -> None:
    assert B3Digest.of(data) == blake3(data).digest()


@pytest.mark.parametrize(
    "text",
    [
        HELLO,
        HELLO.upper(),
        HELLO[:32].upper() + HELLO[32:],
        "blake3-" + HELLO_BASE64,
        "b3:" + HELLO_BASE64,
        "blake3-" + HELLO_BASE64.rstrip("="),
        "b3:" + HELLO_BASE64.rstrip("="),
    ],
)
def test_parse_reads_hex_and_both_base64_forms_padded_or_not(text: str) -> None:
    assert B3Digest.parse(text) == bytes.fromhex(HELLO)


@given(RAW)
def test_every_text_of_a_digest_reads_back_as_it(raw: bytes) -> None:
    digest = B3Digest(raw)

    assert B3Digest.parse(str(digest)) == digest
    assert B3Digest.parse(str(digest).upper()) == digest
    assert B3Digest.parse(digest.sri) == digest
    assert B3Digest.parse(digest.sri.replace("blake3-", "b3:")) == digest
    assert B3Digest.parse(digest.sri.rstrip("=")) == digest
    assert eval(repr(digest)) == digest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected 64 hex digits"),
        (HELLO[:63], "63 hex digits instead of 64"),
        (HELLO + "0", "65 hex digits instead of 64"),
        ("ab", "2 hex digits instead of 64"),
        (HELLO[:63] + "g", "expected 64 hex digits"),
        (" " + HELLO, "expected 64 hex digits"),
        (HELLO + "\n", "expected 64 hex digits"),
        (HELLO[:32] + " " + HELLO[32:], "expected 64 hex digits"),
        ("0x" + HELLO[2:], "expected 64 hex digits"),
        ("\uff10" * 64, "expected 64 hex digits"),  # full-width zeros are digits to `int`
        ("sha256-" + HELLO_BASE64, "by BLAKE3, not sha256"),
        ("sha256:" + HELLO, "by BLAKE3, not sha256"),
        ("sha512-" + HELLO_BASE64, "by BLAKE3, not sha512"),
        ("md5:" + HELLO[:32], "by BLAKE3, not md5"),
        ("blake3-", "44 characters of base64"),
        ("b3:", "44 characters of base64"),
        ("blake3-" + HELLO, "44 characters of base64"),
        ("blake3:" + HELLO_BASE64, "expected 64 hex digits"),
        ("b3-" + HELLO_BASE64, "expected 64 hex digits"),
        ("BLAKE3-" + HELLO_BASE64, "expected 64 hex digits"),
        (HELLO_BASE64, "expected 64 hex digits"),
        ("blake3-" + HELLO_BASE64 + "=", "44 characters of base64"),
        ("blake3-" + HELLO_BASE64 + "\n", "44 characters of base64"),
        ("blake3- " + HELLO_BASE64, "44 characters of base64"),
        ("blake3-" + HELLO_BASE64.replace("/", "_"), "44 characters of base64"),  # the URL alphabet
        ("blake3-" + HELLO_BASE64[:-2], "44 characters of base64"),
        ("blake3-" + HELLO_BASE64[:-4] + "====", "44 characters of base64"),
    ],
)
def test_parse_says_what_is_wrong_with_a_text(text: str, reason: str) -> None:
    with pytest.raises(InvalidDigestError) as caught:
        B3Digest.parse(text)

    assert str(caught.value).startswith(repr(text)[:70])
    assert reason in str(caught.value)


def test_an_error_does_not_repeat_a_long_text() -> None:
    with pytest.raises(InvalidDigestError) as caught:
        B3Digest.parse("a" * 1_000_000)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("prefix", ["blake3-", "b3:"])
@pytest.mark.parametrize("padding", ["=", ""])
def test_parse_refuses_base64_with_bits_left_over(prefix: str, padding: str) -> None:
    """43 characters hold 258 bits; unless the last two are zero, this is no text that anyone wrote.

    Four texts would otherwise name one blob, and a mistyped last character would pass. The reference
    refuses them too.
    """
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    body, last = HELLO_BASE64[:-2], HELLO_BASE64[-2]
    read = []
    for character in alphabet:
        try:
            digest = B3Digest.parse(prefix + body + character + padding)
        except InvalidDigestError:
            continue
        read.append((character, digest))

    same = [character for character, digest in read if str(digest) == HELLO]
    assert same == [last]
    assert len(read) == 16


@given(st.text(max_size=80) | st.from_regex(r"(b3:|blake3-)[A-Za-z0-9+/=]{40,46}", fullmatch=True))
def test_parse_gives_a_digest_or_an_invalid_digest_error(text: str) -> None:
    try:
        digest = B3Digest.parse(text)
    except InvalidDigestError:
        return
    assert len(digest) == DIGEST_SIZE


def test_an_invalid_digest_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="not a digest") as caught:
        B3Digest.parse("nonsense")

    assert isinstance(caught.value, CastoreError)


@pytest.mark.parametrize("size", [0, 1, 20, 31, 33, 64])
def test_a_digest_has_32_bytes(size: int) -> None:
    with pytest.raises(InvalidDigestError, match=f"these are {size}"):
        B3Digest(bytes(size))


@pytest.mark.parametrize("raw", [bytearray(32), memoryview(bytes(64))[::2]], ids=["bytearray", "memoryview"])
def test_a_digest_is_made_of_any_32_bytes(raw: Any) -> None:
    assert B3Digest(raw) == bytes(32)


def test_a_number_is_no_digest() -> None:
    with pytest.raises(TypeError):
        B3Digest(32)  # type: ignore[arg-type]


def test_text_is_no_raw_digest() -> None:
    with pytest.raises(TypeError):
        B3Digest(HELLO)  # type: ignore[arg-type]


@given(RAW)
def test_the_texts_of_a_digest(raw: bytes) -> None:
    digest = B3Digest(raw)

    assert str(digest) == f"{digest}" == digest.hex() == raw.hex()
    assert digest.sri == "blake3-" + base64.b64encode(raw).decode()
    assert repr(digest) == f"B3Digest.parse('{raw.hex()}')"


def test_bytes_of_a_digest_are_plain_bytes() -> None:
    raw = bytes(B3Digest.of(b""))

    assert type(raw) is bytes
    assert raw.hex() == EMPTY


@given(RAW, RAW)
def test_digests_compare_order_and_hash_as_their_bytes(left: bytes, right: bytes) -> None:
    one, other = B3Digest(left), B3Digest(right)

    assert (one == other) == (left == right)
    assert (one < other) == (left < right)
    assert hash(one) == hash(B3Digest(bytes(left)))
    assert sorted([one, other]) == sorted([left, right])
    assert {one: 1}[B3Digest(left)] == 1


def test_a_digest_takes_no_attributes() -> None:
    with pytest.raises(AttributeError):
        B3Digest.of(b"").name = "empty"  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_digest_pickles_as_a_digest(protocol: int) -> None:
    digest = B3Digest.of(b"Hello World")

    again = pickle.loads(pickle.dumps(digest, protocol))

    assert (type(again), again) == (B3Digest, digest)


def test_a_digest_copies_as_a_digest() -> None:
    digest = B3Digest.of(b"Hello World")

    assert type(copy.copy(digest)) is type(copy.deepcopy(digest)) is B3Digest
    assert copy.deepcopy(digest) == digest


@settings(max_examples=20)
@given(RAW)
def test_a_subclass_stays_one(raw: bytes) -> None:
    class Named(B3Digest):
        __slots__ = ()

    assert type(Named.parse(raw.hex())) is type(Named.of(raw)) is Named
