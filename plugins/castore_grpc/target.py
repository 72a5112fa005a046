"""The URL of a peer, with the options of both versions of the reference in its query.

It is `grpc+http://host:port`, `grpc+https://host:port`, or `grpc+unix:/path`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Self, cast
from urllib.parse import unquote

import attrs

from castore.composition import InvalidValueError, ServiceUrl, keep_secret
from castore.format.sockets import LONGEST_SOCKET_PATH, split_host_port
from castore.problems import did_you_mean, escaped

OPTIONS: Final = {
    "wait-connect": "wait_connect",
    "tls-ca-cert-path": "tls_ca_cert_path",
    "tls-client-cert-path": "tls_client_cert_path",
    "tls-client-key-path": "tls_client_key_path",
}
"""What the reference has in the query, and the fields of the config that say the same."""

_PORTS: Final = {"http": 80, "https": 443}


@attrs.frozen
class Target:
    """Where a peer is.

    Attributes:
        scheme: `http`, `https` or `unix`.
        host: Of `http` and `https`.
        port: Of `http` and `https`.
        path: Of `unix`; a relative one starts at the composition's folder.
        options: What the query says, by the names of fields.
    """

    scheme: Literal["http", "https", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""
    options: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL; raise `ValueError` for one that is none of these."""
        parsed = ServiceUrl.parse(url)
        if parsed.tag != "grpc":
            raise InvalidValueError(
                "this is no URL of a peer", "write `grpc+http://host:port`", part=parsed.tag
            )
        if parsed.scheme not in ("http", "https", "unix"):
            raise InvalidValueError(
                f"a peer is not reached by `{escaped(parsed.scheme)}`",
                "write `grpc+http://host:port`, `grpc+https://host` or `grpc+unix:/path`",
            )
        options = _options_of(parsed)
        if parsed.scheme == "unix":
            return cls("unix", path=_socket_of(parsed), options=options)
        if parsed.path:
            raise InvalidValueError("a peer has a host and a port, and no path", part=str(parsed.path))
        if not parsed.authority:
            raise InvalidValueError("the host is missing", f"write `grpc+{parsed.scheme}://host:port`")
        if "@" in parsed.authority:
            raise InvalidValueError("the URL of a peer has no user", "give a bearer token as `token`")
        host, port = split_host_port(parsed.authority)
        if not host:
            raise InvalidValueError("the host is missing", f"write `grpc+{parsed.scheme}://host:port`")
        scheme = cast('Literal["http", "https"]', str(parsed.scheme))
        return cls(scheme, host, _PORTS[scheme] if port is None else port, options=options)

    @property
    def shown(self) -> str:
        """How it is called in an error."""
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _options_of(parsed: ServiceUrl) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, text in parsed.query:
        if key not in OPTIONS:
            hint = did_you_mean(key, OPTIONS) or f"there are {', '.join(OPTIONS)}"
            raise InvalidValueError(f"the URL of a peer has no option `{escaped(key)}`", hint, part=str(key))
        if key == "wait-connect" and text not in ("0", "1"):
            raise InvalidValueError("`wait-connect` is 0 or 1", part=str(key))
        if key != "wait-connect" and parsed.scheme != "https":
            raise InvalidValueError(
                f"`{key}` is for an encrypted connection", "write `grpc+https://`", part=str(key)
            )
        options[OPTIONS[key]] = text
    return options


def _socket_of(parsed: ServiceUrl) -> str:
    if parsed.authority:
        raise InvalidValueError(
            "a socket has no host", "write `grpc+unix:/path/to/socket`", part=str(parsed.authority)
        )
    path = unquote(parsed.path)
    if not path or path == "/":
        raise InvalidValueError("the path of the socket is missing", "write `grpc+unix:/path/to/socket`")
    if "\0" in path:
        raise InvalidValueError("the path has a NUL byte")
    if len(path.encode("utf-8", "surrogateescape")) > LONGEST_SOCKET_PATH:
        raise InvalidValueError(f"the path of a socket has {LONGEST_SOCKET_PATH} bytes at most")
    return keep_secret(path, parsed.text)
