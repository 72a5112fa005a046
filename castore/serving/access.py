"""Who may do what: bearer tokens, each with its rights.

A file of tokens has one in each line: its name, its rights, and the token itself::

    # name     rights        token
    builder    read,write    kX3cO9v1fWm2q8Zr7bT5
    browser    read          p0Lw4Ye6Hs1Dn9Jt3Ua8
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast, get_args

import attrs
from blake3 import blake3

from castore.errors import CompositionError

Right: TypeAlias = Literal["read", "write"]

RIGHTS: Final[frozenset[Right]] = frozenset(get_args(Right))
SHORTEST: Final = 16
"""How many characters a token has at least: a short one could be guessed."""
_MOST_BYTES: Final = 1 << 20


@attrs.frozen
class Client:
    """Who makes a call, and what he may do."""

    name: str
    rights: frozenset[Right]


ANYBODY: Final = Client("", RIGHTS)
"""Whoever has reached the server, where no tokens are asked for."""


@attrs.frozen
class Token:
    """A token, of which only a digest is kept."""

    client: Client
    digest: bytes = attrs.field(repr=False)


class Tokens:
    """The tokens that a server takes; none means that none is asked for."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read a file of tokens; raise `CompositionError`, which names the line, for what is none."""
        try:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
                mode = os.fstat(file.fileno()).st_mode
            if len(data) > _MOST_BYTES:
                raise CompositionError(f"{path}: a file of tokens has {_MOST_BYTES >> 20} MiB at most")
            text = data.decode()
        except OSError as error:
            raise CompositionError(f"{path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise CompositionError(f"{path}: this is no file of tokens: it is no UTF-8") from error
        if mode & 0o007:
            raise CompositionError(f"{path}: others may read these tokens; do `chmod o= {path}`")
        found = [
            _token_of(line, f"{path}:{number}")
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not found:
            raise CompositionError(f"{path}: there is no token in it, so nobody could do anything")
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def client_of(self, metadata: Mapping[str, str | bytes]) -> Client | None:
        """Return who a call is from, by its metadata; `None` if that says no token that is known.

        All tokens are compared, each in a time that does not depend on where it differs.
        """
        if not self._tokens:
            return ANYBODY
        value = metadata.get("authorization", "")
        scheme, _, token = (value if isinstance(value, str) else "").partition(" ")
        given = _digest_of(token.strip())
        found = None
        for known in self._tokens:
            if hmac.compare_digest(known.digest, given):
                found = known.client
        return found if scheme.lower() == "bearer" else None


def _token_of(line: str, place: str) -> Token:
    words = line.split()
    if len(words) != 3:
        raise CompositionError(f"{place}: a line has a name, rights and a token, with spaces between them")
    name, listed, token = words
    rights = listed.split(",")
    unknown = [right for right in rights if right not in RIGHTS]
    if unknown:
        raise CompositionError(f"{place}: `{unknown[0]}` is no right; they are `read` and `write`")
    if len(token) < SHORTEST:
        raise CompositionError(f"{place}: a token has {SHORTEST} characters at least")
    return Token(Client(name, frozenset(cast("list[Right]", rights))), _digest_of(token))


def _digest_of(token: str) -> bytes:
    return blake3(token.encode("utf-8", "surrogateescape")).digest()
