"""Whatever stands where a digest should: a digest, or `InvalidDigestError`."""

from __future__ import annotations

import array
import re

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castore import B3Digest, InvalidDigestError
from castore.cli.short_digests import as_digest

FUZZ = settings.get_profile("fuzz")

DIGESTS = st.binary(min_size=32, max_size=32).map(B3Digest)
WRITTEN = st.one_of(
    DIGESTS.map(str), DIGESTS.map(lambda digest: digest.sri), DIGESTS.map(lambda d: "b3:" + d.sri[7:])
)
ALPHABET = st.sampled_from("0123456789abcdefABCDEFxyz+/=-:_ \n\0٣\u0660é\ud800")
NEARLY = st.one_of(
    st.builds(lambda digest, char: digest.sri[:49] + char, DIGESTS, ALPHABET),
    st.text(),
    st.text(ALPHABET, max_size=80),
    st.builds(lambda text, at, new: text[:at] + new + text[at + 1 :], WRITTEN, st.integers(0, 64), st.text()),
    st.builds(
        lambda prefix, rest: prefix + rest, st.sampled_from(["b3:", "blake3-", "sha256-"]), st.text(ALPHABET)
    ),
)


@FUZZ
@given(DIGESTS)
def test_each_form_reads_back(digest: B3Digest) -> None:
    for text in (
        str(digest),
        str(digest).upper(),
        digest.sri,
        digest.sri.rstrip("="),
        "b3:" + digest.sri[7:],
    ):
        assert B3Digest.parse(text) == digest


@FUZZ
@given(NEARLY)
def test_texts(text: str) -> None:
    """A text is a digest in exactly one way, or none, and the error is one line that can be shown."""
    try:
        digest = B3Digest.parse(text)
    except InvalidDigestError as error:
        assert len(str(error).splitlines()) == 1
        str(error).encode("utf-8")
        if re.fullmatch(r"[0-9a-fA-F]{8,63}", text):
            assert str(as_digest(text)) == text.lower()
        else:
            with pytest.raises(click.BadParameter):
                as_digest(text)
    else:
        forms = {
            str(digest),
            digest.sri,
            digest.sri.rstrip("="),
            "b3:" + digest.sri[7:],
            "b3:" + digest.sri[7:-1],
        }
        assert text in forms or text.lower() == str(digest)


@FUZZ
@given(
    st.binary(max_size=70),
    st.sampled_from([bytes, bytearray, memoryview, lambda data: array.array("B", data)]),
)
def test_buffers(data: bytes, kind: type) -> None:
    """32 bytes are a digest, others are not, in whatever they come."""
    if len(data) == 32:
        assert bytes(B3Digest(kind(data))) == data
    else:
        with pytest.raises(InvalidDigestError):
            B3Digest(kind(data))
