"""Servers, with services of their own, for tests of both sides of the wire."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest

from castore import Composition
from castore.serving.grpc.server import GrpcServer
from castore.serving.listening import Address

Opened = Callable[..., contextlib.AbstractContextManager[Any]]


class Served:
    """A server on a unix socket, and the composition behind it."""

    def __init__(self, stores: Composition, server: GrpcServer, path: Path) -> None:
        self.stores = stores
        self.server = server
        self.path = path
        self.url = f"grpc+unix:{path}"

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"unix:{self.path}") as channel:
            yield channel


@pytest.fixture
def sockets() -> Iterator[Iterator[Path]]:
    """Paths for sockets, short enough for any machine."""
    with TemporaryDirectory(prefix="castore") as folder:
        yield (Path(folder) / f"{number}.sock" for number in itertools.count())


@pytest.fixture
def serving(sockets: Iterator[Path], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve the `root` of tables until the test ends; other arguments are those of the server."""
    with contextlib.ExitStack() as stack:

        def serve(
            tables: Mapping[str, Any] | None = None,
            directories: Mapping[str, Any] | None = None,
            **options: Any,
        ) -> Served:
            mapping: dict[str, Any] = {"blobservices": tables or {"root": {"type": "memory"}}}
            if directories is not None:
                mapping["directoryservices"] = directories
            stores = stack.enter_context(Composition.from_mapping(mapping, base=tmp_path))
            server = GrpcServer(stores.blobs, stores.directories, **options)
            path = next(sockets)
            server.listen(Address.parse(f"unix:{path}"))
            stack.enter_context(server)
            return Served(stores, server, path)

        yield serve


@pytest.fixture
def connected() -> Iterator[Callable[..., Composition]]:
    """Open a composition of the peer at a URL, for blobs and directories, until the test ends."""
    with contextlib.ExitStack() as stack:

        def connect(url: str, **fields: Any) -> Composition:
            table = {"root": {"type": "grpc", "url": url, **fields}}
            mapping = {"blobservices": table, "directoryservices": table}
            return stack.enter_context(Composition.from_mapping(mapping))

        yield connect
