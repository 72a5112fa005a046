"""URLs of services: `<tag>[+<scheme>]:<rest>[?<query>]`.

They are split by hand: `urllib` takes `memory:` and `memory://` for the same, and here they are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self
from urllib.parse import unquote_plus

import attrs

from castore.problems import InvalidValueError, escaped, toml_string
from castore.secrets import Secret, Untyped, fields_of, has_fields, keep_secret, scrub, secrets_in

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#@:\s]*):((?!\d+/)[^?#\s\"'`]*)(?=@)")
_USER: Final = re.compile(r"(https?)?://([^/?#@:\s\"'`]+)(?=@)", re.IGNORECASE)
_WORDS_OF_SECRETS: Final = "secret|password|passwd|passphrase|token|key|credential|signature|sas"
_SECRET_QUERY: Final = re.compile(
    rf"(?i)(?<=[?&])([^=&?#\s]*(?:{_WORDS_OF_SECRETS})[^=&?#\s]*)=([^&#\s\"'`]*)"
)
_SECRET_PAIR: Final = re.compile(
    rf"""(?i)([\w-]*(?:{_WORDS_OF_SECRETS})[\w-]*["']?\s*=\s*["'])([^"'$]+)(?=["'])"""
)
"""A pair of a table in TOML; what has a reference in it shows no secret."""
_SECRET_NAME: Final = re.compile(_WORDS_OF_SECRETS, re.IGNORECASE)
_TOKEN: Final = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{20,}")
"""What is rather a token than the name of a user, or of a container of Azure's."""


@attrs.frozen(repr=False)
class ServiceUrl:
    """The parts of a service's URL. Of a `Secret`, those with anything secret in them are secrets too."""

    text: str
    tag: str
    """The service type: the scheme up to its first `+`."""
    scheme: str
    """What follows the first `+` of the scheme, empty if nothing does."""
    authority: str | None
    """Between `//` and the next `/`; `None` where there is no `//`."""
    path: str
    """From the first `/` after the authority on, as written, up to the query."""
    query: tuple[tuple[str, str], ...]
    """Decoded pairs, in order; no key is there twice."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split *text*.

        Raises `InvalidValueError` if it has no scheme, has a fragment, or a query that is no row of
        `key=value` or has a key twice.
        """
        match = _SCHEME.match(text)
        if not match:
            raise InvalidValueError(f"{quoted(text)} is no URL: it does not begin with a type and `:`")
        if "#" in text:
            raise InvalidValueError("a service URL has no `#` part", "write `%23` for a plain `#`", part="#")
        tag, _, scheme = match[0].lower().partition("+")
        head, query = split_query(text)
        rest = head[match.end() + 1 :]
        authority: str | None = None
        if rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
            rest = slash + path
            authority = keep_secret(authority, text)
        return cls(text, tag, keep_secret(scheme, text), authority, keep_secret(rest, text), query)

    @property
    def inner(self) -> str:
        """The URL without the tag and the query: `s3://bucket/path` of `objectstore+s3://bucket/path?a=b`."""
        authority = "" if self.authority is None else f"//{self.authority}"
        return keep_secret(f"{self.scheme}:{authority}{self.path}", self.text)

    def __repr__(self) -> str:
        return f"ServiceUrl({masked(self.text)!r})"


def split_query(url: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return what stands before the `?` of a URL, and the pairs behind it, decoded.

    The values are `Untyped`, and secrets if the URL has anything secret in them. Raises `InvalidValueError`
    if a part has no `=`, or a key is there twice.
    """
    head, _, query = url.partition("?")
    pairs: dict[str, str] = {}
    for key, value in _pairs(query, url) if query else ():
        if key in pairs:
            raise InvalidValueError(f"`{escaped(key)}` is given twice", "leave one of the two", part=str(key))
        pairs[key] = value
    return keep_secret(head, url), tuple(pairs.items())


def _pairs(query: str, url: str) -> list[tuple[str, str]]:
    pairs = []
    for pair in query.split("&"):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidValueError(
                f"the query of {quoted(url)} has a part without `=`",
                "after the `?` there are pairs `key=value` with `&` between them",
            )
        pairs.append((keep_secret(unquote_plus(key), url), keep_secret(Untyped(unquote_plus(value)), url)))
    return pairs


def looks_like_url(text: str) -> bool:
    """Tell whether *text* begins with a scheme."""
    return _SCHEME.match(text) is not None


def masked(text: str) -> str:
    """Return *text* with what is secret in URLs replaced by `***`: passwords, tokens, values of queries."""
    return _masked(getattr(text, "shown", text), lambda _: "***")


def masked_in_place(text: str) -> str:
    """Do as `masked`, but with a `*` for each character, so that all else stays in its column."""
    shown = _masked(text, lambda hidden: "*" * len(hidden))
    return _SECRET_PAIR.sub(lambda match: f"{match[1]}{'*' * len(match[2])}", shown)


def _masked(text: str, mask: Callable[[str], str]) -> str:
    text = _PASSWORD.sub(lambda match: f"{match[1]}:{mask(match[2])}", text)
    text = _USER.sub(
        lambda match: f"{match[1] or ''}://{mask(match[2])}" if _is_token(match) else match[0], text
    )
    return _SECRET_QUERY.sub(lambda match: f"{match[1]}={mask(match[2])}", text)


def _is_token(match: re.Match[str]) -> bool:
    """Tell whether what stands alone before the `@` of a URL is secret: web servers have no users."""
    return bool(match[1]) or _TOKEN.fullmatch(match[2]) is not None


def hidden_in(value: object) -> list[str]:
    """Return what is secret anywhere in a config value: by reference, in a URL, or by the name of its key."""
    return [*secrets_in(value), *literally_hidden_in(value)]


def literally_hidden_in(value: object) -> list[str]:
    """Return those of them that stand there as they are, and not by reference."""
    found: list[str] = []
    for text, key in _texts_in(value, ""):
        if not isinstance(text, Secret):
            found += (match[2] for match in (*_PASSWORD.finditer(text), *_SECRET_QUERY.finditer(text)))
            found += (match[2] for match in _USER.finditer(text) if _is_token(match))
            if len(text) >= _LEAST and _SECRET_NAME.search(key) and _FILE_NAME.search(key) is None:
                found.append(str(text))
    return [hidden for hidden in dict.fromkeys(found) if hidden]


_FILE_NAME: Final = re.compile(r"(_file|filename|_path)$", re.IGNORECASE)
"""The name of a file with a key is none."""

_LEAST: Final = 8
"""What is shorter is rather a word, such as `anon` for a token."""


def shown_of(value: object) -> str:
    """Return the repr of a config value, or of a config, without what is secret in it."""
    return scrub(repr(value), literally_hidden_in(value))


def _texts_in(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Yield the texts in a value, each with the key of the table that it stands in."""
    match value:
        case str():
            yield value, key
        case Mapping():
            for name, item in value.items():
                yield from _texts_in(item, str(name))
        case list() | tuple() | set() | frozenset():
            for item in value:
                yield from _texts_in(item, key)
        case _ if has_fields(value):
            for item in fields_of(value).values():
                yield from _texts_in(item, "")


_LONGEST: Final = 200
"""Characters of a URL in a message, at most."""


def quoted(url: str) -> str:
    """Return a URL for a message: in quotes, masked, not too long, as it was written if it has secrets."""
    shown = masked(url)
    return toml_string(shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…")
