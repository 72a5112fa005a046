"""Configuration of `grpc`.

Defaults: either version of the reference, or castore, as the peer turns out to be; nobody waits for more than
half a minute for anything.

Example::

    [blobservices.root]
    type = "grpc"
    url = "grpc+http://localhost:8000"   # or grpc+unix:/run/castore.sock, grpc+https://castore.example
    package = "auto"                     # or "snix", "tvix"
    timeout = "30 s"
    keepalive = "30 s"
    max_whole_size = "1 GiB"

    [directoryservices.root]
    type = "grpc"
    url = "grpc+http://localhost:8000"
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import quote, quote_plus

import attrs

from castore import BlobService
from castore.composition import (
    Between,
    BuildContext,
    ByteSize,
    Duration,
    InvalidValueError,
    ServiceUrl,
    Traits,
    View,
    keep_secret,
    read_query,
    secrets_in,
)
from castore.contract.directories import DirectoryService
from castore.errors import MissingDriverError
from castore.urls import shown_of
from castore_grpc.target import OPTIONS, Target

if TYPE_CHECKING:
    from castore_grpc.peer import Peer

_DEFAULT_SECONDS: Final = Duration(30.0)
_DEFAULT_WHOLE: Final = ByteSize(1 << 30)
_SECONDS: Final = Between(0.05, 86400)


@attrs.frozen
class PeerFields:
    """Where a peer is, and how it is spoken to: what both types have."""

    url: str = attrs.field(repr=shown_of)
    """Where it is: `grpc+http://host:port`, `grpc+https://host:port`, or `grpc+unix:/path`."""
    package: Literal["auto", "snix", "tvix"] = "auto"
    """The name that it has for its services; `auto` asks it."""
    token: str | None = attrs.field(default=None, repr=False)
    """A bearer token, which is sent with each call: a secret, `"${NAME}"` or `{ file = "..." }`."""
    timeout: Annotated[Duration, _SECONDS] = _DEFAULT_SECONDS
    """How long an answer may take, or a stream may stand still."""
    keepalive: Annotated[Duration, Between(0, 86400)] = _DEFAULT_SECONDS
    """After so long without a word, while a call runs, the peer is asked whether it is there; 0 is never."""
    wait_connect: bool = False
    """Whether building the service connects, and fails if that cannot be."""
    tls_ca_cert_path: Path | None = None
    """For `https`: who signs the peer's certificate, in PEM; without it those whom the system trusts."""
    tls_client_cert_path: Path | None = None
    """For `https`: the certificate that shows the peer who calls, in PEM."""
    tls_client_key_path: Path | None = None
    """The key of that certificate."""
    tls_server_name: str | None = None
    """For `https`: the name that the peer's certificate has, if not the host in the URL."""

    @url.validator
    def _check_url(self, attribute: attrs.Attribute[str], value: str) -> None:
        try:
            target = Target.parse(value)
        except InvalidValueError:
            raise
        except ValueError as error:
            # The attribute tells castore which key is meant.
            raise ValueError(str(error), attribute) from None
        for name, field in OPTIONS.items():
            if field in target.options and getattr(self, field) not in (None, False):
                raise InvalidValueError(
                    f"`{name}` is a key of its own as well", "leave one of the two", part=name
                )

    def __attrs_post_init__(self) -> None:
        try:
            target = Target.parse(self.url)
        except ValueError:
            return  # That is told of the URL.
        files = self._files(target)
        if target.scheme != "https":
            named = [name for name, value in files.items() if value is not None]
            named += ["tls_server_name"] if self.tls_server_name is not None else []
            if named:
                field = attrs.fields_dict(type(self))[named[0]]
                raise ValueError("this is for an encrypted connection; write `grpc+https://`", field)
        if (files["tls_client_cert_path"] is None) != (files["tls_client_key_path"] is None):
            given = "cert" if files["tls_client_key_path"] is None else "key"
            field = attrs.fields_dict(type(self))[f"tls_client_{given}_path"]
            raise ValueError("a certificate and its key come together", field)

    def _files(self, target: Target) -> dict[str, Path | None]:
        names = ("tls_ca_cert_path", "tls_client_cert_path", "tls_client_key_path")
        given: Mapping[str, Any] = target.options
        return {name: Path(given[name]) if name in given else getattr(self, name) for name in names}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept the URL of a peer, whose query may have the other fields as well."""
        parsed = ServiceUrl.parse(url)
        theirs = [(key, text) for key, text in parsed.query if key not in attrs.fields_dict(cls)]
        ours = tuple((key, text) for key, text in parsed.query if key in attrs.fields_dict(cls))
        Target.parse(url if not ours else _without(parsed, theirs))
        return read_query(cls, attrs.evolve(parsed, query=ours), {"url": _without(parsed, theirs)})

    def traits(self, view: View) -> Traits:  # noqa: ARG002 - all traits have it
        """Say that it may be written, for all that is known, and that nobody waits for it without end."""
        return Traits(answers=True, waits=False)

    def peer(self, name: str, context: BuildContext) -> Peer:
        """Return the peer; raise `MissingDriverError` if the library of gRPC is not installed."""
        try:
            from castore_grpc.peer import Peer, Tls  # noqa: PLC0415 - once it is named
        except ImportError as error:
            if error.name is None or error.name.partition(".")[0] != "grpc":
                raise
            raise MissingDriverError(
                "the type `grpc` needs a package that is not installed: pip install 'castore[grpc]'"
            ) from error

        target = Target.parse(self.url)
        if target.scheme == "unix":
            target = attrs.evolve(target, path=str(context.base.absolute() / target.path))
        tls = None
        if target.scheme == "https":
            ca, certificate, key = (
                None if path is None else context.base / path for path in self._files(target).values()
            )
            tls = Tls(ca, certificate, key, self.tls_server_name)
        peer = Peer(
            target,
            instance=name,
            package=self.package,
            token=self.token,
            timeout=float(self.timeout),
            keepalive=float(self.keepalive),
            tls=tls,
            secrets=[*secrets_in(self.url), *secrets_in(self.token), *([self.token] if self.token else [])],
        )
        if self.wait_connect or target.options.get("wait_connect") == "1":
            try:
                peer.connect()
            except BaseException:
                peer.close()
                raise
        return peer


def _without(parsed: ServiceUrl, query: list[tuple[str, str]]) -> str:
    """Return a URL with another query."""
    head = str(parsed.text).partition("?")[0]
    pairs = [f"{quote_plus(key)}={quote(text, safe='/:')}" for key, text in query]
    return keep_secret(f"{head}?{'&'.join(pairs)}" if pairs else head, parsed.text)


@attrs.frozen
class GrpcConfig(PeerFields):
    """Blobs of a peer. URL form: `grpc+<url of the peer>?<fields>`."""

    max_whole_size: Annotated[ByteSize, Between(1 << 20, 1 << 50)] = _DEFAULT_WHOLE
    """How large a blob may be that the peer does not keep in chunks, and so is read as a whole."""

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service."""
        from castore.contract.capabilities import ChunkSource  # noqa: PLC0415 - once somebody asks

        return issubclass(ChunkSource, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service. It connects when it is first used, unless `wait_connect` says otherwise."""
        peer = self.peer(name, context)
        from castore_grpc.blobs import GrpcBlobService  # noqa: PLC0415 - once it is named

        return GrpcBlobService(peer, max_whole_size=self.max_whole_size, pool=context.pool)


@attrs.frozen
class GrpcDirectoriesConfig(PeerFields):
    """Directories of a peer. URL form: `grpc+<url of the peer>?<fields>`."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service. It connects when it is first used, unless `wait_connect` says otherwise."""
        peer = self.peer(name, context)
        from castore_grpc.directories import GrpcDirectoryService  # noqa: PLC0415 - once it is named

        return GrpcDirectoryService(peer, pool=context.pool)
