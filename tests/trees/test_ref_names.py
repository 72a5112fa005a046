"""Names of roots as people write them, and snapshots."""

from __future__ import annotations

import datetime

import pytest

from castore import B3Digest, InvalidRefError, NamedRoot, NodeNotFoundError, RefService, UnsupportedError
from castore.contract.refs import ANY, Expected
from castore.format.nodes import FileNode
from castore.trees.naming import TreePlace
from castore.trees.ref_names import RefName, Snapshot, add_snapshot, find_ref, snapshots_of, time_bound
from castore_memory.refs import MemoryRefService

UTC = datetime.UTC


def at(text: str, number: int = 0) -> NamedRoot:
    return NamedRoot(FileNode(B3Digest.of(b"%d" % number), number), datetime.datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("text", "name", "moment"),
    [
        ("www", "www", None),
        ("www/a", "www/a", None),
        ("www@latest", "www", "latest"),
        ("www@{2026-11-01}", "www", "2026-11-01"),
        ("www@{2026-11-01T12:30}", "www", "2026-11-01T12:30"),
        ("www@{7d}", "www", "7d"),
        ("latest", "latest", None),
    ],
)
def test_each_form(text: str, name: str, moment: str | None) -> None:
    assert RefName.parse(text) == RefName(name, moment)
    assert str(RefName.parse(text)) == text
    place = TreePlace.parse(f"{text}:docs/a:b")
    assert (place.root, str(place.path)) == (RefName(name, moment), "docs/a:b")


@pytest.mark.parametrize(
    "text",
    [
        "www@",
        "www@later",
        "www@{}",
        "www@{x}",
        "@latest",
        "www@{2026-13-01}",
        "www@@latest",
        "a b",
        "www@{1d",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRefError):
        RefName.parse(text)


def test_names_of_snapshots() -> None:
    time = datetime.datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
    assert str(Snapshot(time, 1, "a/b")) == "a/b/2026-11-30T14-05-00Z"
    assert Snapshot.parse("a/b/2026-11-30T14-05-00Z-2") == Snapshot(time, 2, "a/b")
    for other in (
        "2026-11-30T14-05-00Z",
        "a/2026-11-30T14-05-00",
        "a/2026-13-30T14-05-00Z",
        "a/2026-11-30T14-05-00Z-0",
    ):
        assert Snapshot.parse(other) is None


def test_the_latest_and_the_last_before() -> None:
    refs = MemoryRefService()
    for number, text in enumerate(
        ["2026-11-01T23:59:59+00:00", "2026-11-02T00:00:00+00:00", "2026-11-10T12:00:00+00:00"]
    ):
        add_snapshot(refs, "www", at(text, number))
    refs.set("www/2026-12-01T00-00-00Z/deeper", at("2026-12-01T00:00:00+00:00", 9))
    refs.set("www/draft", at("2026-12-01T00:00:00+00:00", 9))
    refs.set("www-x/2026-12-01T00-00-00Z", at("2026-12-01T00:00:00+00:00", 9))

    def number(text: str) -> int:
        node = find_ref(refs, RefName.parse(text))[1].node
        assert isinstance(node, FileNode)
        return node.size

    assert [number(f"www/{text}") for text in ("2026-11-01T23-59-59Z", "draft")] == [0, 9]
    assert number("www@latest") == 2
    assert number("www@{2026-11-10T11:59:59Z}") == 1
    assert number("www@{2026-11-10T12:00:00Z}") == number("www@{2026-11-10T12:00Z}") == 2
    assert number("www@{2026-11-01T23:59Z}") == number("www@{2026-11-01T23-59-59Z}") == 0
    assert number("www@{0 s}") == 2
    with pytest.raises(NodeNotFoundError, match=r"is that old: the first one is `www/2026-11-01T23-59-59Z`"):
        number("www@{2026-10-31T00:00Z}")
    with pytest.raises(NodeNotFoundError, match=r"no ref is named `www`; `www@latest` is its last snapshot"):
        number("www")
    with pytest.raises(
        NodeNotFoundError, match=r"`other` has no snapshots: `castore import --snapshot other"
    ):
        number("other@latest")


def test_a_date_means_all_of_the_day_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person means it where the machine is."""
    end = time_bound("2026-11-01")
    assert end.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f") == "2026-11-01 23:59:59.999999"
    yesterday = datetime.datetime.now().astimezone().date() - datetime.timedelta(days=1)
    assert time_bound("yesterday").astimezone().date() == yesterday
    assert time_bound("2026-11-01 12:30").astimezone().strftime("%H:%M:%S") == "12:30:59"


def test_those_of_one_second_are_numbered() -> None:
    refs = MemoryRefService()
    names = [add_snapshot(refs, "www", at("2026-11-01T12:00:00+00:00", number)) for number in range(11)]
    assert names[:3] == [f"www/2026-11-01T12-00-00Z{end}" for end in ("", "-2", "-3")]
    assert [str(each) for each in snapshots_of(refs, "www")] == names
    assert find_ref(refs, RefName("www", "latest"))[0] == names[-1]


class Unconditional(MemoryRefService):
    """Cannot compare."""

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        if expect is not ANY:
            raise UnsupportedError("it cannot compare")
        return super().set(name, ref)


def test_a_snapshot_where_nothing_can_be_compared() -> None:
    refs: RefService = Unconditional()
    assert [add_snapshot(refs, "www", at("2026-11-01T12:00:00+00:00", number)) for number in range(2)] == [
        "www/2026-11-01T12-00-00Z",
        "www/2026-11-01T12-00-00Z-2",
    ]
