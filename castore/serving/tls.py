"""Certificates of servers: files, which may be replaced while a server runs."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

import attrs

from castore.errors import CompositionError

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
        """Return what is in them; raises as `context` does."""
        found = (
            _pem(self.certificate, b"CERTIFICATE"),
            _pem(self.key, b"PRIVATE KEY"),
            None if self.client_ca is None else _pem(self.client_ca, b"CERTIFICATE"),
        )
        # What belongs together is known to the library alone.
        self._load()
        return found

    def context(self) -> ssl.SSLContext:
        """Return them as a context of Python's.

        Raises `CompositionError`, which names the file, for one that cannot be read, is too large, is no
        PEM, or needs a password, and for a key that is not that of the certificate.
        """
        self.read()
        return self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Else somebody would be asked for the password of a key.
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except _PasswordError:
            raise CompositionError(
                f"{self.key}: this key has a password; a server needs one without"
            ) from None
        except ssl.SSLError as error:
            raise CompositionError(
                f"{self.key}: this is not the key of {self.certificate}, or one of them is damaged"
                f" ({error.reason or error})"
            ) from error
        except OSError as error:
            raise CompositionError(f"{self.certificate}: {error.strerror or error}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as error:
                raise CompositionError(
                    f"{self.client_ca}: there is no certificate in it ({error})"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what changes when one of the files does."""
        return tuple(_state_of(path) for path in (self.certificate, self.key, self.client_ca) if path)


class _PasswordError(Exception):
    """A key has a password."""


def _no_password() -> str:
    raise _PasswordError


def _pem(path: Path, label: bytes) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CompositionError(f"{path}: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise CompositionError(f"{path}: it has more than {_MOST_BYTES >> 20} MiB, which no certificate has")
    if label + b"-----" not in data:
        raise CompositionError(f"{path}: there is no {label.decode().lower()} in it, in PEM")
    return data


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a handshake must not wait for more
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
