"""The name of a blob or chunk: the BLAKE3 digest of its bytes."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final, Self

from blake3 import blake3

from castore.buffers import byte_view
from castore.errors import InvalidDigestError

if TYPE_CHECKING:
    from typing_extensions import Buffer

DIGEST_SIZE: Final = 32
"""Bytes in a digest."""

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"(?:b3:|blake3-)([A-Za-z0-9+/]{43}=?)")


class B3Digest(bytes):
    """A BLAKE3 digest: an immutable value of 32 bytes.

    It hashes, compares and orders as its bytes do; `bytes(digest)` gives them. `str(digest)` is 64
    lower-case hex digits, `digest.sri` is `blake3-` and the base64 form.
    """

    __slots__ = ()

    def __new__(cls, raw: Buffer) -> Self:
        """Take the 32 bytes of a digest; raise `InvalidDigestError` for any other number of them."""
        # `bytes` takes a number for a length.
        self = bytes.__new__(cls, raw if type(raw) is bytes else memoryview(raw))
        if len(self) != DIGEST_SIZE:
            raise InvalidDigestError(f"a digest has 32 bytes, these are {len(self)}")
        return self

    @classmethod
    def of(cls, data: Buffer) -> Self:
        """Return the digest of *data*, which is hashed by the thread that asks.

        The threads that `blake3` can start for large data are not used: they do not survive a fork, after
        which it waits for them for ever, and it ends the process where none can be had.
        """
        view = data if type(data) is bytes else byte_view(data)
        return bytes.__new__(cls, blake3(view).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex digits, `blake3-<base64>`, or the older `b3:<base64>`.

        Raises `InvalidDigestError` for anything else; surrounding white space is not part of a digest.
        """
        if _HEX.fullmatch(text):
            return cls(bytes.fromhex(text))
        match = _BASE64.fullmatch(text)
        if match:
            digest = cls(base64.b64decode(match[1].ljust(44, "=")))
            # 43 characters hold two bits more than a digest: unless they are zero it is another text.
            if digest.sri.partition("-")[2].startswith(match[1]):
                return digest
        raise InvalidDigestError(f"{_shorten(text)} is not a digest: {_what_is_wrong(text)}")

    @property
    def sri(self) -> str:
        """The digest as `blake3-` and padded standard base64."""
        return "blake3-" + base64.b64encode(self).decode("ascii")

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"B3Digest.parse({self.hex()!r})"


EMPTY: Final = B3Digest.of(b"")
"""The name of the blob of no bytes, which has no chunks."""


def no_digest(value: object) -> TypeError:
    """Return the error for what was given where a digest is needed.

    Who looks something up by it asks `isinstance(value, bytes)` when nothing was found: there it costs least.
    """
    what = (
        f"the text {_shorten(value)}"
        if isinstance(value, str)
        else f"an object of type {type(value).__name__}"
    )
    return TypeError(f"a B3Digest is needed, not {what}; B3Digest.parse(text) makes one of its text")


def _shorten(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:70] + "...'"


def _what_is_wrong(text: str) -> str:
    for prefix in ("b3:", "blake3-"):
        if text.startswith(prefix):
            return f"after `{prefix}` there must be 44 characters of base64"
    if re.fullmatch(r"[0-9a-fA-F]+", text):
        return f"it has {len(text)} hex digits instead of 64"
    algorithm = re.match(r"(sha\d+|md5)[-:]", text)
    if algorithm:
        return f"castore names blobs by BLAKE3, not {algorithm[1]}"
    return "expected 64 hex digits, or `blake3-` and 44 characters of base64"
