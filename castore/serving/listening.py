"""Where a server listens: a unix socket, or a host and a port."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import attrs

from castore.errors import CompositionError
from castore.format.sockets import LONGEST_SOCKET_PATH, split_host_port
from castore.places import rooted


@attrs.frozen
class Address:
    """A place to listen at."""

    target: str
    """As gRPC takes it: `unix:/path` or `host:port`."""
    path: Path | None = None
    """That of a unix socket."""
    host: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `unix:PATH` or `HOST:PORT`; raise `ValueError` for anything else."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = path.removeprefix("//")
            if not path or "\0" in path:
                raise ValueError("the path of the socket is missing; write `unix:/run/castore.sock`, say")
            whole = Path(rooted(path))
            if len(os.fsencode(whole)) > LONGEST_SOCKET_PATH:
                raise ValueError(
                    f"the path of a socket has {LONGEST_SOCKET_PATH} bytes at most, and {whole} has more"
                )
            return cls(f"unix:{whole}", whole)
        host, port = split_host_port(text)
        if port is None:
            raise ValueError(f"{text!r} is no place to listen at: write `HOST:PORT` or `unix:PATH`")
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{shown or '[::]'}:{port}", None, host)

    @classmethod
    def of_socket(cls, listening: socket.socket) -> Self:
        """Return where a socket listens that somebody else has made."""
        name = listening.getsockname()
        if listening.family == socket.AF_UNIX:
            # One without a name, or with a name in no folder, is of this machine as well.
            path = Path(os.fsdecode(name)) if name else Path("/")
            return cls(f"unix:{path}", path)
        host, port = name[:2]
        return cls(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", None, host)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can reach it."""
        if self.path is not None or self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_safe(self, *, encrypted: bool, insecure: bool) -> None:
        """Raise `CompositionError` if other machines could read along, and nobody has said that they may.

        Arguments:
            encrypted: Whether there is a certificate.
            insecure: Whether somebody has said so.
        """
        if not (self.is_local or encrypted or insecure):
            raise CompositionError(
                f"{self.target} can be reached from other machines, and nothing would be encrypted: give"
                " a certificate (`--tls-cert`, `--tls-key`), or say `--insecure`"
            )

    def with_port(self, port: int) -> str:
        """Return it as a client would write it, with the port that it was given."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"{self.target.rpartition(':')[0]}:{port}"


SOCKET_MODE: Final = 0o600


@attrs.frozen
class SocketFile:
    """The file of a unix socket that a server of this process has made."""

    path: Path
    _inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Take note of the one that was just made."""
        return cls(path, path.lstat().st_ino)

    def remove(self) -> None:
        """Remove it, unless another server has put its own there meanwhile."""
        with contextlib.suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


@contextlib.contextmanager
def socket_made(path: Path, mode: int = SOCKET_MODE) -> Iterator[None]:
    """Make room for a unix socket, which is made in the block, with a mode that nobody can be faster than.

    One that is left behind by a server that is gone is removed. Raises `CompositionError` if a server listens
    there, or something else has this name.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CompositionError(f"cannot listen at {path}: {error.strerror}") from error
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise CompositionError(f"cannot listen at {path}: something else has this name")
        if _is_answered(path):
            raise CompositionError(f"cannot listen at {path}: another server does")
        with contextlib.suppress(OSError):
            path.unlink()
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        try:
            client.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # It may be busy, or somebody else's.
    return True
