"""A service at the other end of a connection keeps the contract as one at hand does.

Each server keeps something else: a dictionary, objects, a cache, and another server. The last is two
connections in a row. TLS is a connection of its own kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from certs import Authority

import castore
from castore.contract.capabilities import ChunkSource
from castore.contract.operations import CAPABILITIES
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.serving.grpc.server import GrpcServer
from castore.serving.listening import Address
from castore.serving.tls import TlsFiles
from castore.testing import CLAUSES, DIRECTORY_CLAUSES, Clause
from castore.testing.clause import has_of

MEMORY = {"type": "memory"}
BUCKET = {"type": "objectstore", "object_store_url": "memory:"}
CACHE = {"root": {"type": "cache", "near": "&near", "far": "&far"}, "near": MEMORY, "far": BUCKET}


@pytest.fixture
def memory(serving: Any) -> dict[str, Any]:
    return {"url": serving({"root": MEMORY}, {"root": MEMORY}).url}


@pytest.fixture
def two_in_a_row(serving: Any) -> dict[str, Any]:
    between = {"root": {"type": "grpc", "url": serving({"root": BUCKET}, {"root": MEMORY}).url}}
    return {"url": serving(between, between).url}


@pytest.fixture
def objects(serving: Any) -> dict[str, Any]:
    return {"url": serving({"root": BUCKET}, {"root": BUCKET}).url}


@pytest.fixture
def cache(serving: Any) -> dict[str, Any]:
    return {"url": serving(CACHE, CACHE).url}


@pytest.fixture
def in_blobs(serving: Any) -> dict[str, Any]:
    return {"url": serving({"root": MEMORY}).url}


@pytest.fixture
def tls_over_tcp(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Both sides prove who they are."""
    authority = Authority(tmp_path)
    files = TlsFiles(*authority.issue("localhost"), authority.ca)
    certificate, key = authority.issue("client")
    tables = {"blobservices": {"root": BUCKET}, "directoryservices": {"root": MEMORY}}
    with castore.Composition.from_mapping(tables) as stores:
        server = GrpcServer(stores.blobs, stores.directories, tls=files)
        place = server.listen(Address.parse("localhost:0"))
        with server:
            yield {
                "url": f"grpc+https://{place}",
                "tls_ca_cert_path": str(authority.ca),
                "tls_client_cert_path": str(certificate),
                "tls_client_key_path": str(key),
            }


def failures(clauses: Sequence[Clause], service: Any) -> dict[str, BaseException]:
    """Check all clauses with one service, which so is not empty for most; return those that failed."""
    failing: dict[str, BaseException] = {}
    for clause in clauses:
        if clause.reason_against(has_of(service)) is None and clause.name != "close-twice":
            try:
                clause.check(service)
            except Exception as error:
                failing[clause.name] = error
    return failing


PEERS = ["cache", "two_in_a_row", "tls_over_tcp"]
MORE_PEERS = ["memory", "objects", "in_blobs"]
"""What is behind the others as well."""


@pytest.mark.parametrize(
    "peer", [*PEERS, *(pytest.param(each, marks=pytest.mark.long) for each in MORE_PEERS)]
)
def test_whatever_is_behind_the_server_all_clauses_hold(
    request: pytest.FixtureRequest, connected: Any, peer: str
) -> None:
    """Those of blobs, and those of directories, by one connection each."""
    stores = connected(**request.getfixturevalue(peer))
    blobs, directories = stores.blobs(), stores.directories()
    assert {kind for kind in CAPABILITIES if blobs.capability(kind) is not None} == {ChunkSource}
    assert failures(CLAUSES, blobs) == {}
    assert failures(DIRECTORY_CLAUSES, directories) == {}
    assert len([each for each in DIRECTORY_CLAUSES if not each.reason_against(has_of(directories))]) > 5


def tree() -> Iterator[Directory]:
    """The directories of a tree, the leaves first; one of them is there twice."""
    empty = Directory()
    keep = Directory({b".keep": FileNode(empty.digest, 0)})
    below = Directory({b"a": keep.node, b"b": empty.node})
    yield from (empty, keep, below, Directory({b"below": below.node, b"keep": keep.node}))


KEPT = {
    "memory": {"root": MEMORY},
    "objects": {"root": BUCKET},
    "blobs": None,
}


@pytest.mark.parametrize("kept", KEPT)
def test_trees_go_over_the_wire_and_back(serving: Any, connected: Any, kept: str) -> None:
    """Whatever keeps them; one that another has is grafted by being sent again."""
    service = connected(serving(None, KEPT[kept]).url).directories()
    directories = list(tree())
    root = directories[-1]
    assert service.closure(root.digest) is None
    assert service.put_closure(directories) == root.digest
    assert {each.digest for each in service.closure(root.digest)} == {each.digest for each in directories}
    assert service.get(root.digest) == root
    missing = Directory({b"x": FileNode(root.digest, 1)}).digest
    assert service.missing([root.digest, missing]) == {missing}
    inside = service.get_many([each.digest for each in directories], within=root.digest)
    assert inside == {each.digest: each for each in directories}
    above = Directory({b"again": root.node})
    assert service.put(above) == above.digest
    assert len(list(service.closure(above.digest))) == 5
