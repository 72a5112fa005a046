"""Certificates for tests, made by OpenSSL."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path


class Authority:
    """Signs certificates, which are files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-subj", "/CN=an authority", "-keyout", str(self._key), "-out", str(self.ca)),
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for a name, and of its key."""
        number = next(self._numbers)
        cert, key, request, extra = (self._folder / f"{number}.{end}" for end in ("pem", "key", "csr", "ext"))
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        extra.write_text(f"subjectAltName=DNS:{name.replace(' ', '-')},IP:127.0.0.1,IP:::1\n")
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(extra), "-out", str(cert)),
        )
        return cert, key

    @staticmethod
    def _openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, capture_output=True)
