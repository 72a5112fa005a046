"""URLs of services: `<tag>[+<scheme>]:<rest>[?<query>]`.

They are split by hand: `urllib` takes `memory:` and `memory://` for the same, and here they are not.
"""

from __future__ import annotations

import re
from typing import Final, Self
from urllib.parse import parse_qsl

import attrs

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#@:]*):[^/?#@]*@")
_SECRET_QUERY: Final = re.compile(
    r"(?i)(?<=[?&])([^=&]*(?:secret|password|passwd|token|key|credential|signature|sas)[^=&]*)=[^&#]*"
)


@attrs.frozen(repr=False)
class ServiceUrl:
    """The parts of a service's URL."""

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
    """Decoded pairs, in order."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Split *text*; raises `ValueError` if it has no scheme or a fragment."""
        match = _SCHEME.match(text)
        if not match:
            raise ValueError(f"{masked(text)!r} is no URL: it has no `scheme:` at its start")
        if "#" in text:
            raise ValueError("a service URL has no fragment: write `%23` for `#`")
        tag, _, scheme = match[0].lower().partition("+")
        rest, _, query = text[match.end() + 1 :].partition("?")
        authority: str | None = None
        if rest.startswith("//"):
            authority, slash, path = rest[2:].partition("/")
            rest = slash + path
        pairs = tuple(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        return cls(text, tag, scheme, authority, rest, pairs)

    @property
    def inner(self) -> str:
        """The URL without the tag and the query: `s3://bucket/path` of `objectstore+s3://bucket/path?a=b`."""
        authority = "" if self.authority is None else f"//{self.authority}"
        return f"{self.scheme}:{authority}{self.path}"

    def __repr__(self) -> str:
        return f"ServiceUrl({masked(self.text)!r})"


def looks_like_url(text: str) -> bool:
    """Tell whether *text* begins with a scheme."""
    return _SCHEME.match(text) is not None


def masked(text: str) -> str:
    """Return *text* with passwords and secret query values of URLs in it replaced by `***`."""
    shown = getattr(text, "shown", text)
    return _SECRET_QUERY.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", shown))
