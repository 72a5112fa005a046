"""What each service of refs promises, over all types of them."""

from __future__ import annotations

import datetime
import errno
import fcntl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from castore import (
    B3Digest,
    CastoreError,
    Composition,
    CorruptRefError,
    InvalidRefError,
    NamedRoot,
    RefService,
    Registry,
    UnavailableError,
    UnsupportedError,
)
from castore.digest import EMPTY
from castore.format import refs as written
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.testing import REF_CLAUSES
from castore_fallback.refs import FallbackRefService
from castore_memory.refs import MemoryRefService
from castore_wrappers.retry.service import RetryRefService

TIME: Final = datetime.datetime(2026, 11, 30, 14, 5, tzinfo=datetime.UTC)
NODE: Final = DirectoryNode(EMPTY, 0)

NO_NAMES: Final = [
    "", "/", "/a", "a/", "a//b", "..", "a/../b", ".", ".hidden", "a/.b", "a b", "a:b", "a@b", "\0",
    "ä", "a\n", "a.json", "a.json/b", "deadbeef", "0" * 64, EMPTY.sri, "b3", "dir",
    "n" * 241, "/".join(["n" * 200] * 6),
]  # fmt: skip

STORE: Final = {"type": "objectstore", "object_store_url": "file:./store"}
QUICK: Final = {**STORE, "durability": "process"}


def of(number: int, comment: str = "") -> NamedRoot:
    return NamedRoot(FileNode(B3Digest.of(b"%d" % number), number), TIME, comment)


def composed(tables: dict[str, Any]) -> Callable[[Path], RefService]:
    def build(folder: Path) -> RefService:
        return Composition.from_mapping(tables, base=folder).refs()

    return build


def blobs(*layers: str, **store: Any) -> Callable[[Path], RefService]:
    """Return what keeps refs where blobs are, behind some layers."""
    names = ["root", *(f"layer-{number}" for number in range(1, len(layers) + 1))]
    tables: dict[str, Any] = {
        name: {"type": tag, "inner": f"&{below}"}
        for name, tag, below in zip(names, layers, names[1:], strict=False)
    }
    return composed({"blobservices": {**tables, names[-1]: store}})


def of_refs(tables: dict[str, Any]) -> Callable[[Path], RefService]:
    """Return what stands around a folder, `a`, and memory, `b`."""
    blobs = {"root": {"type": "memory"}}
    return composed({"blobservices": blobs, "refservices": {**tables, "a": QUICK, "b": {"type": "memory"}}})


SERVICES: Final[dict[str, Callable[[Path], RefService]]] = {
    "memory": composed({"blobservices": {"root": QUICK}, "refservices": {"root": {"type": "memory"}}}),
    "objectstore": composed({"blobservices": {"root": {"type": "memory"}}, "refservices": {"root": STORE}}),
    "objectstore of fsspec": composed(
        {
            "blobservices": {"root": {"type": "memory"}},
            "refservices": {"root": {"type": "objectstore", "object_store_url": "memory:"}},
        }
    ),
    "sqlite": composed(
        {
            "blobservices": {"root": {"type": "memory"}},
            "refservices": {"root": {"type": "sqlite", "path": "refs.sqlite"}},
        }
    ),
    "retry": of_refs({"root": {"type": "retry", "inner": "&a"}}),
    "fallback": of_refs({"root": {"type": "fallback", "services": ["&a", "&b"]}}),
    "fallback to another": of_refs({"root": {"type": "fallback", "services": ["&b", "&a"], "write_to": "a"}}),
    "none declared, blobs in memory": blobs(type="memory"),
    "none declared, blobs in a folder": blobs(**QUICK),
    "none declared, blobs in sqlite": blobs(type="sqlite", path="b.sqlite"),
    "none declared, blobs behind layers": blobs("retry", "verify", "breaker", **QUICK),
}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RefService]:
    with SERVICES[request.param](tmp_path) as service:
        yield service


class TestReadingAndWriting:
    def test_what_is_absent(self, service: RefService) -> None:
        assert service.get("www") is None
        assert service.get_many(["www", "other"]) == {}
        assert list(service.list()) == list(service.names("www")) == []
        assert not service.delete("www")
        assert not service.delete("www", expect=None)
        assert not service.delete("www", expect=of(1))

    @pytest.mark.parametrize(
        "node", [NODE, FileNode(EMPTY, 0, executable=True), SymlinkNode(SymlinkTarget(b"a\xff"))]
    )
    def test_a_root_of_each_kind(self, service: RefService, node: Node) -> None:
        ref = NamedRoot(node, TIME, "a comment\n\N{SNOWMAN} \udcff", B3Digest.of(b"m"), "/home/\udcff")
        assert service.set("www", ref)
        assert service.get("www") == ref
        assert list(service.list()) == [("www", ref)]

    def test_a_name_is_set_anew_and_deleted(self, service: RefService) -> None:
        assert service.set("www", of(1))
        assert service.set("www", of(2))
        assert service.get("www") == of(2)
        assert service.delete("www")
        assert not service.delete("www")
        assert service.get("www") is None

    def test_names_come_in_order(self, service: RefService) -> None:
        names = ["www/b", "www", "www-x", "www/a/c", "Z", "w", "www.d", "www0", "www/a", "x/y/z"]
        for number, name in enumerate(names):
            assert service.set(name, of(number))
        assert list(service.names()) == sorted(names)
        assert [name for name, _ in service.list()] == sorted(names)
        assert service.get_many(names) == {name: of(number) for number, name in enumerate(names)}
        assert list(service.names("www")) == ["www", "www/a", "www/a/c", "www/b"]
        assert list(service.names("www/")) == ["www/a", "www/a/c", "www/b"]
        assert list(service.names("ww")) == list(service.names("www/a/c/d")) == []
        assert list(service.names("x")) == ["x/y/z"]

    def test_the_longest_names(self, service: RefService) -> None:
        """Beside each other, and one below the other."""
        part = "n" * 240
        names = [part, f"{part}/{part}", "/".join([part, part, part, part, "b" * 60])]
        for name in names:
            assert service.set(name, of(1))
        assert list(service.names()) == sorted(names)
        for name in names:
            assert service.delete(name, expect=of(1))
        assert list(service.names()) == []

    def test_what_is_no_name(self, service: RefService) -> None:
        for name in NO_NAMES:
            calls: list[Callable[[], object]] = [
                partial(service.get, name),
                partial(service.set, name, of(1)),
                partial(service.delete, name),
                partial(service.delete, name, expect=None),
                partial(service.get_many, [name]),
            ]
            for call in calls:
                with pytest.raises(InvalidRefError, match="cannot be the name of a ref"):
                    call()
        assert list(service.names()) == []

    def test_what_is_too_long(self, service: RefService) -> None:
        rest = written.LONGEST - len(written.encode(of(1)))
        assert service.set("www", of(1, "x" * rest))
        assert service.get("www") == of(1, "x" * rest)
        with pytest.raises(InvalidRefError, match="65537 bytes is too long"):
            service.set("www", of(1, "x" * (rest + 1)))


class TestExpecting:
    def test_it_must_be_new(self, service: RefService) -> None:
        assert service.set("www", of(1), expect=None)
        assert not service.set("www", of(1), expect=None)
        assert not service.set("www", of(2), expect=None)
        assert service.get("www") == of(1)

    def test_it_must_still_be_that(self, service: RefService) -> None:
        assert not service.set("www", of(2), expect=of(1))
        assert service.get("www") is None
        service.set("www", of(1))
        assert not service.set("www", of(3), expect=of(2))
        assert service.set("www", of(2), expect=of(1))
        assert service.get("www") == of(2)

    def test_deleting(self, service: RefService) -> None:
        service.set("www", of(1))
        assert not service.delete("www", expect=None)
        assert not service.delete("www", expect=of(2))
        assert service.delete("www", expect=of(1))
        assert service.get("www") is None
        assert service.set("www", of(3), expect=None)

    def test_of_those_who_are_at_it_at_once_one_is_first(self, service: RefService) -> None:
        """Each adds one to what it has read, until it has done so ten times."""
        service.set("count", of(0))
        errors: list[BaseException] = []

        def count() -> None:
            try:
                for _ in range(10):
                    while True:
                        now = service.get("count")
                        assert now is not None
                        assert isinstance(now.node, FileNode)
                        if service.set("count", of(now.node.size + 1), expect=now):
                            break
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert service.get("count") == of(40)


def test_the_contract(service: RefService) -> None:
    """The clauses of the kit say the same."""
    failures = {}
    for clause in REF_CLAUSES:
        try:
            clause.check(service)
        except Exception as error:
            failures[clause.name] = error
    assert failures == {}


def test_each_type_stands_here() -> None:
    registry = Registry.default()
    assert set(registry.types(registry.kind(RefService))) == {
        "fallback", "memory", "objectstore", "read_only", "retry", "sqlite",
    }  # fmt: skip


class Failing(MemoryRefService):
    """Is unavailable so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def get_many(self, names: Any) -> Any:
        self._fail()
        return super().get_many(names)

    def names(self, prefix: str = "") -> Any:
        self._fail()
        return super().names(prefix)

    def set(self, name: str, ref: NamedRoot, **rest: Any) -> bool:
        self._fail()
        return super().set(name, ref, **rest)

    def _fail(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise UnavailableError("far", "it is down")


class TestStacks:
    def test_a_question_is_asked_again_and_a_change_is_not(self) -> None:
        inner = Failing(0)
        service = RetryRefService(inner, sleep=lambda _: None)
        assert service.set("www", of(1))
        inner.left = 2
        assert service.get("www") == of(1)
        inner.left = 2
        assert [name for name, _ in service.list()] == ["www"]
        inner.left = 1
        with pytest.raises(UnavailableError):
            service.set("www", of(2), expect=of(1))
        assert service.get("www") == of(1)

    def test_the_first_that_has_a_name(self) -> None:
        near, far = MemoryRefService(), MemoryRefService()
        far.set("www", of(1))
        far.set("old", of(2))
        near.set("www", of(3))
        service = FallbackRefService([("near", near), ("far", far)])
        assert list(service.list()) == [("old", of(2)), ("www", of(3))]
        assert not service.set("old", of(4), expect=None)
        assert not service.set("old", of(4), expect=of(3))
        assert service.set("old", of(4), expect=of(2))
        assert (near.get("old"), far.get("old")) == (of(4), of(2))
        with pytest.raises(UnsupportedError, match="`far` has it, which is only read"):
            service.delete("old")
        assert service.set("new", of(5))
        assert service.delete("new", expect=of(5))

    def test_what_would_stay_hidden(self) -> None:
        near, far = MemoryRefService(), MemoryRefService()
        near.set("www", of(1))
        service = FallbackRefService([("near", near), ("far", far)], write_to="far")
        for change in (lambda: service.set("www", of(2)), lambda: service.delete("www")):
            with pytest.raises(UnsupportedError, match="`near` has it and is asked first"):
                change()
        assert far.get("www") is None

    def test_one_that_fails_is_no_absence(self) -> None:
        near, far = Failing(0), MemoryRefService()
        far.set("www", of(1))
        service = FallbackRefService([("near", near), ("far", far)])
        near.left = 1000
        assert service.get("www") == of(1)
        with pytest.raises(UnavailableError):
            service.get("nope")
        with pytest.raises(UnavailableError):
            list(service.list())

    def test_nothing_is_set_in_what_is_only_read(self, tmp_path: Path) -> None:
        with of_refs({"root": {"type": "read_only", "inner": "&a"}})(tmp_path) as service:
            assert list(service.list()) == []
            with pytest.raises(UnsupportedError, match="`root` is read-only"):
                service.set("www", of(1))


def test_refs_are_kept(tmp_path: Path) -> None:
    for name in [
        "objectstore",
        "sqlite",
        "none declared, blobs in a folder",
        "none declared, blobs in sqlite",
    ]:
        folder = tmp_path / name
        folder.mkdir()
        with SERVICES[name](folder) as service:
            service.set("www/a", of(1))
        with SERVICES[name](folder) as service:
            assert list(service.list()) == [("www/a", of(1))]


class TestNoTable:
    @pytest.mark.parametrize(
        ("root", "tag"),
        [
            ({"type": "fallback", "services": ["memory:", "memory:"]}, "fallback"),
            ({"type": "mirror", "services": ["memory:", "memory:"]}, "mirror"),
        ],
    )
    def test_a_blob_service_that_keeps_none(self, tmp_path: Path, root: dict[str, Any], tag: str) -> None:
        tables = {"root": root, "store": QUICK}
        stores = Composition.from_mapping({"blobservices": tables}, base=tmp_path)
        with stores, pytest.raises(CastoreError, match=rf"no place.*a `{tag}`.*\n +\[refservices.root\]"):
            stores.refs()

    def test_what_is_read_only_can_be_looked_at(self, tmp_path: Path) -> None:
        tables = {"root": {"type": "read_only", "inner": "&store"}, "store": QUICK}
        with Composition.from_mapping({"blobservices": tables}, base=tmp_path) as stores:
            stores.refs_of_blobs("store").set("www", of(1))
            assert list(stores.refs().list()) == [("www", of(1))]
            with pytest.raises(UnsupportedError, match="`root` is read-only: set the ref `www`"):
                stores.refs().set("www", of(2))
            with pytest.raises(UnsupportedError, match="`root` is read-only"):
                stores.refs().delete("www", expect=of(1))
            assert stores.refs().get("www") == of(1)

    def test_a_name_that_is_not_declared(self, tmp_path: Path) -> None:
        stores = Composition.from_mapping({"blobservices": {"root": QUICK}}, base=tmp_path)
        with stores, pytest.raises(CastoreError, match="no ref service is named `other`"):
            stores.refs("other")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RefService]:
    with SERVICES["objectstore"](tmp_path) as service:
        service.set("good", of(1))
        service.set("bad", of(2))
        yield service


class TestDamage:
    """Of what is stored in a folder."""

    def test_what_is_corrupt_hides_no_other(self, folder: RefService, tmp_path: Path) -> None:
        (tmp_path / "store/refs/bad.json").write_text("{}")
        listed = folder.list()
        assert next(listed) == ("good", of(1))
        with pytest.raises(
            CorruptRefError, match=r"the ref `bad` cannot be read.*refs/bad.json.*set it anew"
        ):
            next(listed)
        found = folder.get_many(["good", "bad"])
        assert found["good"] == of(1)
        assert isinstance(found["bad"], CorruptRefError)
        with pytest.raises(CorruptRefError):
            folder.set("bad", of(3), expect=of(2))
        with pytest.raises(CorruptRefError):
            folder.delete("bad", expect=of(2))
        assert not folder.set("bad", of(3), expect=None)
        assert folder.delete("bad")
        assert [name for name, _ in folder.list()] == ["good"]

    def test_it_can_be_set_anew(self, folder: RefService, tmp_path: Path) -> None:
        (tmp_path / "store/refs/bad.json").write_bytes(b"\0" * (1 << 17))
        with pytest.raises(CorruptRefError, match="more than 65536 bytes"):
            folder.get("bad")
        assert folder.set("bad", of(3))
        assert folder.get("bad") == of(3)

    def test_other_files_are_no_refs(self, folder: RefService, tmp_path: Path) -> None:
        refs = tmp_path / "store/refs"
        (refs / "good.json#1").write_text("of one who was killed")
        (refs / ".hidden.json").write_text("{}")
        (refs / "note.txt").write_text("{}")
        (refs / "a b.json").write_text("{}")
        (refs / "folder.json").mkdir()
        (refs / "folder.json/x.json").write_text("{}")
        (refs / "link.json").symlink_to(refs / "good.json")
        (refs / "elsewhere").symlink_to(tmp_path)
        assert list(folder.names()) == ["bad", "good"]
        assert folder.set("good", of(4), expect=of(1))

    def test_no_link_leads_out_of_the_folder(self, folder: RefService, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "store/refs/out").symlink_to(tmp_path / "outside")
        with pytest.raises(UnavailableError, match="This is a link"):
            folder.set("out/www", of(1))
        assert list((tmp_path / "outside").iterdir()) == []

    def test_a_folder_in_the_place_of_a_ref(self, folder: RefService, tmp_path: Path) -> None:
        (tmp_path / "store/refs/odd.json").mkdir()
        with pytest.raises(CorruptRefError, match="a folder"):
            folder.get("odd")
        with pytest.raises(CorruptRefError, match="a folder"):
            folder.set("odd", of(1), expect=None)
        with pytest.raises(UnavailableError):
            folder.set("odd", of(1))


def test_where_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ref can be set; what is to be compared is refused."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with SERVICES["objectstore"](tmp_path) as service:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        assert service.set("www", of(1))
        with pytest.raises(UnsupportedError, match="files cannot be locked"):
            service.set("www", of(2), expect=of(1))
        assert service.get("www") == of(1)
        assert service.delete("www")


def test_a_driver_without_conditions(tmp_path: Path) -> None:
    """It refuses to compare, and says where refs could be."""
    with Composition.from_mapping(
        {
            "blobservices": {"root": {"type": "memory"}},
            "refservices": {"root": {"type": "objectstore", "object_store_url": f"local://{tmp_path}/refs"}},
        }
    ) as stores:
        refs = stores.refs()
        assert refs.set("www/a", of(1))
        assert refs.get("www/a") == of(1)
        assert list(refs.names()) == ["www/a"]
        with pytest.raises(UnsupportedError, match=r"cannot compare and replace.*\[refservices.root\]"):
            refs.set("www/a", of(2), expect=of(1))
        assert refs.delete("www/a")
        assert not refs.delete("www/a")
