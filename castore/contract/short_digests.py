"""The first digits of a digest in the place of all: a person need not copy 64 of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

import attrs

from castore.digest import B3Digest
from castore.errors import InvalidDigestError

FEWEST: Final = 8
"""How many digits are enough."""

_MOST_SHOWN: Final = 10

_DIGITS: Final = re.compile(rf"[0-9a-fA-F]{{{FEWEST},63}}")


@attrs.frozen
class ShortDigest:
    """The first digits of a digest, in lower case."""

    digits: str

    def __str__(self) -> str:
        return self.digits


def parse_digest(text: str) -> B3Digest | ShortDigest:
    """Read a digest in any form, or the beginning of one; raise `InvalidDigestError` for what is neither."""
    if _DIGITS.fullmatch(text):
        return ShortDigest(text.lower())
    try:
        return B3Digest.parse(text)
    except InvalidDigestError as error:
        hint = f", or at least {FEWEST}" if re.fullmatch(r"[0-9a-fA-F]{1,7}", text) else ""
        raise InvalidDigestError(f"{error}{hint}") from None


def only_one(digest: ShortDigest, found: Iterable[B3Digest], where: str) -> B3Digest | None:
    """Return the digest that begins so, of those that do; `None` if there is none.

    Raises `InvalidDigestError` with the first few of them if there are several. *where* says of what.
    """
    some = list(islice(found, _MOST_SHOWN + 1))
    if len(some) <= 1:
        return next(iter(some), None)
    rows = "".join(f"\n  {each}" for each in sorted(some)[:_MOST_SHOWN])
    more = "\n  ..." if len(some) > _MOST_SHOWN else ""
    raise InvalidDigestError(f"{digest} is ambiguous in {where}; these begin with it:{rows}{more}")
