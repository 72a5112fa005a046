"""Pictures that the tests of all formats draw."""

from __future__ import annotations

import pytest

from castore.drawing import Arrow, Node, Picture

BLOBS = "blob service"


def _cache() -> Picture:
    return Picture(
        title="composition.toml",
        nodes=(
            Node("blobservices.root", "root", BLOBS, "cache"),
            Node("blobservices.local", "local", BLOBS, "objectstore", "file:./stores/near"),
            Node("blobservices.root.far", "", BLOBS, "objectstore", "s3://bucket/prefix"),
        ),
        edges=(
            Arrow("blobservices.root", "blobservices.local", "near"),
            Arrow("blobservices.root", "blobservices.root.far", "far"),
        ),
        roots=("blobservices.root",),
        unreachable=frozenset(),
    )


def _shared() -> Picture:
    long_url = "s3://a-very-long-bucket-name.eu-central-1/some/deep/prefix/blobs?region=eu-central-1"
    return Picture(
        title="composition.toml",
        nodes=(
            Node("root", "root", BLOBS, "mirror"),
            Node("fast", "fast", BLOBS, "cache"),
            Node("slow", "slow", BLOBS, "cache"),
            Node("hot", "hot", BLOBS, "memory", "512 MiB"),
            Node("local", "local", BLOBS, "objectstore", "file:/var/lib/castore/near", "healthy"),
            Node("remote", "remote", BLOBS, "objectstore", long_url),
            Node("grpc", "", BLOBS, "grpc", "grpc+https://cache.example.org:8443/castore", "breaker open"),
        ),
        edges=(
            Arrow("root", "fast", "services[0]"),
            Arrow("root", "slow", "services[1]"),
            Arrow("root", "grpc", "services[2]"),
            Arrow("root", "local", "journal"),
            Arrow("fast", "hot", "near"),
            Arrow("fast", "local", "far"),
            Arrow("slow", "local", "near"),
            Arrow("slow", "remote", "far"),
        ),
        roots=("root",),
        unreachable=frozenset(),
    )


def _unreached() -> Picture:
    return Picture(
        title="",
        nodes=(
            Node("root", "root", BLOBS, "cache"),
            Node("old", "old", BLOBS, "cache"),
            Node("local", "local", BLOBS, "objectstore", "file:./stores/near"),
            Node("root.far", "", BLOBS, "objectstore", "s3://bucket/prefix"),
            Node("archive", "archive", BLOBS, "objectstore", "file:/mnt/archive"),
            Node("scratch", "scratch", BLOBS, "memory"),
        ),
        edges=(
            Arrow("root", "local", "near"),
            Arrow("root", "root.far", "far"),
            Arrow("old", "local", "near"),
            Arrow("old", "archive", "far"),
        ),
        roots=("root",),
        unreachable=frozenset({"old", "archive", "scratch"}),
    )


def _names() -> Picture:
    long_name = "a-really-quite-extraordinarily-long-name-for-an-instance"
    return Picture(
        title='<&"> #1; ]]> é.toml',
        nodes=(
            Node("a", long_name, BLOBS, "cache"),
            Node("b", "Speicher für 日本語のストア", BLOBS, "objectstore", 'file:./ストア/<near>&"it\'s"'),
            Node("c", '<b>&"evil"', BLOBS, "object<store>&", "s3://b/\x1b[31mred\u202elive\n"),
            Node("d", "root", "directory service", "memory", "C:\\new <!-- --> ]]>"),
        ),
        edges=(
            Arrow("a", "b", 'near<&">'),
            Arrow("a", "c", "日本"),
            Arrow("b", "d", "a_field_with_a_really_long_name[0]"),
            Arrow("c", "d", ""),
        ),
        roots=("a", "d"),
        unreachable=frozenset(),
    )


_PICTURES = {"cache": _cache, "shared": _shared, "unreached": _unreached, "names": _names}


@pytest.fixture(params=_PICTURES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a picture; a test that asks for it is run for each."""
    return str(request.param)


@pytest.fixture
def picture(name: str) -> Picture:
    """Each picture in turn."""
    return _PICTURES[name]()


@pytest.fixture
def cache() -> Picture:
    """A cache over a named and an anonymous objectstore."""
    return _cache()


@pytest.fixture
def shared() -> Picture:
    """Seven instances, of which one has three parents and two a state."""
    return _shared()


@pytest.fixture
def unreached() -> Picture:
    """A graph with instances that no root reaches, one of which uses a reached one."""
    return _unreached()


@pytest.fixture
def names() -> Picture:
    """Names that mean something to every format, and two kinds."""
    return _names()
