"""Certificates of a server of gRPC, which are read anew when their files have changed."""

from __future__ import annotations

import logging
from typing import Final

import grpc

from castore.errors import CompositionError
from castore.serving.tls import TlsFiles
from castore.threads import forks

_log: Final = logging.getLogger("castore.serving")


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
