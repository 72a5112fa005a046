"""URLs of services: `<tag>[+<scheme>]:<rest>[?<query>]`.

They are split by hand: `urllib` takes `memory:` and `memory://` for the same, and here they are not.
"""

from __future__ import annotations

import re
from typing import Final, Self
from urllib.parse import unquote_plus

import attrs

from castore.problems import InvalidValueError, escaped, toml_string
from castore.secrets import Untyped, keep_secret

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#@:\s]*):([^/?#\s]*)(?=@)")
_SECRET_QUERY: Final = re.compile(
    r"(?i)(?<=[?&])([^=&?#\s]*(?:secret|password|passwd|token|key|credential|signature|sas)[^=&?#\s]*)=([^&#\s\"']*)"
)


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
    """Return *text* with passwords and secret query values of URLs in it replaced by `***`."""
    shown = getattr(text, "shown", text)
    return _SECRET_QUERY.sub(r"\1=***", _PASSWORD.sub(r"\1:***", shown))


def masked_in_place(text: str) -> str:
    """Do as `masked`, but with a `*` for each character, so that all else stays in its column."""
    stars = _PASSWORD.sub(lambda match: f"{match[1]}:{'*' * len(match[2])}", text)
    return _SECRET_QUERY.sub(lambda match: f"{match[1]}={'*' * len(match[2])}", stars)


def quoted(url: str) -> str:
    """Return a URL for a message: in quotes, masked, as it was written if it has secrets."""
    return toml_string(masked(url))
