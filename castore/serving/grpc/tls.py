"""Certificates of a server, which are read anew when their files have changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import attrs
import grpc

from castore.errors import CompositionError
from castore.threads import forks

_log: Final = logging.getLogger("castore.serving")

_MOST_BYTES: Final = 4 << 20


@attrs.frozen
class TlsFiles:
    """The files, in PEM, that a server proves who it is with."""

    certificate: Path
    """The certificate, followed by those that it depends on."""
    key: Path
    client_ca: Path | None = None
    """Who signs the certificates of clients; with it each client needs one."""

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return what is in them; raise `CompositionError` for one that cannot be read, or is no PEM."""
        return (
            _pem(self.certificate, b"CERTIFICATE"),
            _pem(self.key, b"PRIVATE KEY"),
            None if self.client_ca is None else _pem(self.client_ca, b"CERTIFICATE"),
        )

    def state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what changes when one of the files does."""
        return tuple(_state_of(path) for path in (self.certificate, self.key, self.client_ca) if path)


def _pem(path: Path, label: bytes) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError as error:
        raise CompositionError(f"{path}: {error.strerror or error}") from error
    if label + b"-----" not in data:
        raise CompositionError(f"{path}: there is no {label.decode().lower()} in it, in PEM")
    return data


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a handshake must not wait for more
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Certificates:
    """Gives gRPC the certificates, at each handshake those that are in the files by then.

    Files that cannot be used, as when they are being replaced, leave those before them in use.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = forks.new_lock()
        self._state = files.state()
        self._configuration = self._configured()

    def _configured(self) -> grpc.ServerCertificateConfiguration:
        certificate, key, client_ca = self._files.read()
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is made with."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self.changed,
            require_client_authentication=self._files.client_ca is not None,
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the certificates if the files have changed, `None` if they have not."""
        with self._lock:
            state = self._files.state()
            if state == self._state:
                return None
            self._state = state
            try:
                self._configuration = self._configured()
            except CompositionError as error:
                _log.error("the certificates stay as they are: %s", error)
                return None
            _log.info("the certificates were read anew")
            return self._configuration
