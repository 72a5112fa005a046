"""`castore gc` keeps what refs reach, beside imports and after kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from castore import B3Digest, Composition, MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.trees.importing import import_tree
from castore.trees.proving import keeping, prove
from castore.trees.reaching import reach
from castore.upkeep import collect
from castore.wrapping.wrapper import WrapperService
from castore_memory.directories import MemoryDirectoryService

STORE = """
[blobservices.root]
type = "objectstore"
object_store_url = "file:./store"
durability = "process"
"""


def age(folder):
    """Let everything be a month old."""
    old = time.time() - 30 * 86400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))


@pytest.fixture
def www(castore, place):
    (place.folder / "composition.toml").write_text(STORE)
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("first")
    (place.folder / "www/run").write_text("#!/bin/sh\n")
    first = castore("import", "www", "--snapshot", "www").stdout.split()[0]
    (place.folder / "www/docs/a.txt").write_text("second")
    second = castore("import", "www", "--ref", "www").stdout.split()[0]
    age(place.folder / "store")
    return first, second


def exported(castore, place, root, name):
    assert castore("export", root, name).exit_code == 0
    return (place.folder / name / "docs/a.txt").read_text()


def test_refs_are_roots(castore, place, www):
    """Their trees stay; what a ref that was deleted has reached alone goes."""
    castore("put", "www/run")
    document = json.loads(castore("gc", "--json").stdout)
    assert document["items"] == []
    name = castore("ref", "list", "www/").stdout.split()[0]
    assert castore("ref", "delete", name).exit_code == 0
    age(place.folder / "store")
    gone = json.loads(castore("gc", "--json").stdout)["items"]
    # The file, its directory and the root, each with its index.
    assert len(gone) == 6
    assert exported(castore, place, "www", "out") == "second"
    assert castore("ls", www[0]).exit_code == 1


def test_metadata_stays(castore, place, www):
    (place.folder / "meta").write_text("#mtree\n")
    meta = castore("put", "meta").stdout.split()[0]
    assert castore("ref", "set", "www", www[1], "--metadata", meta).exit_code == 0
    age(place.folder / "store")
    assert json.loads(castore("gc", "--json").stdout)["items"] == []
    assert castore("get", meta).stdout == "#mtree\n"


def test_no_refs_are_no_roots(castore, place, www):
    names = [line.split()[0] for line in castore("ref", "list").stdout.splitlines()]
    castore("ref", "delete", *names)
    refused = castore("gc")
    assert refused.exit_code == 2
    assert "or trees with `castore ref`" in refused.stderr
    assert exported(castore, place, www[1], "out") == "second"


@pytest.mark.parametrize("way", ["argument", "file", "tree"])
def test_a_tree_without_a_name(castore, place, www, way):
    """Only what is said to be a directory is one."""
    names = [line.split()[0] for line in castore("ref", "list").stdout.splitlines()]
    castore("ref", "delete", *names)
    age(place.folder / "store")
    (place.folder / "keep").write_text(f"# roots\ndir:{www[1]}\n")
    arguments = {"argument": [f"dir:{www[1]}"], "file": ["--roots", "keep"], "tree": ["--tree", www[1]]}[way]
    assert len(json.loads(castore("gc", *arguments, "--json").stdout)["items"]) == 6
    assert exported(castore, place, www[1], "out") == "second"


def test_lists_of_names(castore, place, www):
    """What `castore ref list` prints is a list of roots; and with `dir:` a part of a tree is one."""
    (place.folder / "names").write_text(castore("ref", "list").stdout)
    (place.folder / "part").write_text("dir:www@latest:docs  what is in it\n# nothing else\n")
    assert json.loads(castore("gc", "--roots", "names", "--json").stdout)["items"] == []
    for name in [line.split()[0] for line in castore("ref", "list").stdout.splitlines()][:1]:
        castore("ref", "delete", name)
    age(place.folder / "store")
    assert castore("gc", "--roots", "part").exit_code == 0
    assert castore("cat", f"{www[0]}:docs/a.txt").stdout == "first"
    for line, code, words in (
        ("nobody", 1, "no ref is named `nobody`"),
        ("dir:../x", 2, "bad:1: "),
        ("deadbeef", 2, "bad:1: "),
        (f"{www[0]}:docs", 2, "bad:1: "),
    ):
        (place.folder / "bad").write_text(line)
        refused = castore("gc", "--roots", "bad", "--no-roots")
        assert refused.exit_code == code, (line, refused.stderr)
        assert words in refused.stderr


@pytest.mark.parametrize("damage", ["missing", "corrupt", "ref"])
def test_what_is_damaged_ends_it_before_anything_goes(castore, place, www, damage):
    docs = json.loads(castore("ls", "www", "--json").stdout.splitlines()[0])["digest"]
    name = B3Digest.parse(docs).hex()
    (chunk,) = place.folder.glob(f"store/chunks/b3/*/{name}")
    if damage == "missing":
        chunk.unlink()
        (index,) = place.folder.glob(f"store/blobs/b3/*/{name}")
        index.unlink()
    elif damage == "corrupt":
        chunk.write_bytes(b"nonsense")
    else:
        (place.folder / "store/refs/www.json").write_text("{}")
    castore("put", "www/docs/a.txt")
    age(place.folder / "store")
    before = sorted(path for path in (place.folder / "store").rglob("*") if path.is_file())
    refused = castore("gc")
    assert refused.exit_code == 1
    words = {
        "missing": "'docs'",
        "corrupt": "is not whole, so nothing was removed: chunk",
        "ref": "the ref `www` cannot be read",
    }[damage]
    assert words in refused.stderr
    after = sorted(path for path in (place.folder / "store").rglob("*") if path.is_file())
    assert [path for path in before if path not in after] == []


def test_each_directory_is_read_once_over_all_roots():
    """However many roots have it; ten thousand files in a hundred folders, a hundred times."""

    class Counting(MemoryDirectoryService):
        asked = 0

        def get_many(self, digests, *, within=None):
            wanted = list(digests)
            self.asked += len(wanted)
            return super().get_many(wanted, within=within)

    service = Counting()
    folders = [
        Directory({b"%d" % n: FileNode(B3Digest.of(b"%d/%d" % (m, n)), n) for n in range(100)})
        for m in range(100)
    ]
    roots = [
        Directory(
            {
                **{b"%d" % n: each.node for n, each in enumerate(folders)},
                b"own": FileNode(B3Digest.of(b"%d" % k), k),
            }
        )
        for k in range(100)
    ]
    service.put_many([*folders, *roots])
    seen: set[bytes] = set()
    digests = [
        each
        for root in roots
        for each, is_directory in reach(root.node, service, seen=seen)
        if not is_directory
    ]
    assert service.asked == 200
    assert len(digests) == 10_000 + 100


def test_refs_are_listed_after_the_leases(place, www):
    """An import that ends as a collection begins: its ref is seen, or its lease."""
    with Composition.from_toml(place.folder / "composition.toml") as stores:
        asked: list[str] = []

        class Watched(WrapperService):
            def around(self, operation, call, /, *args, **kwargs):
                asked.append(operation)
                return call(*args, **kwargs)

        def reached():
            asked.append("refs")
            yield B3Digest.parse(www[1]), True

        collect(Watched(stores.blobs()), [], reached=reached(), dry_run=True)
        assert asked[:2] == ["leased_since", "refs"]


KEEPER = """
import sys
from castore.cli.app import app
number = 0
while True:
    with open("www/docs/a.txt", "w") as file:
        file.write(sys.argv[1] + str(number) + "x" * 2000)
    for arguments in (
        ["import", "www", "--ref", "www", "-q"],
        ["import", "www", "--snapshot", "www", "-q"],
        ["ref", "set", "copy", "www", "-q"],
        ["ref", "set", "part", "www:docs", "-q"],
        ["ref", "set", "copy", "www:docs", "--expect", "copy", "-q"],
    ):
        try:
            app(arguments)
        except SystemExit as end:
            assert end.code == 0, end.code
    number += 1
    print(number, flush=True)
"""
COLLECTOR = """
import time, types
from castore.cli import gc
from castore.cli.app import app
# A folder spares what is younger than a minute: it is a minute later here.
gc.time = types.SimpleNamespace(time=lambda: time.time() + 61)
while True:
    try:
        app(["gc", "--grace", "0", "-q"])
    except SystemExit as end:
        assert end.code == 0, end.code
"""


@pytest.mark.parametrize(
    "killed", [*range(5), *(pytest.param(number, marks=pytest.mark.long) for number in range(5, 50))]
)
def test_no_ref_dangles_beside_imports_and_collections_that_are_killed(castore, place, www, killed):
    """Without any grace time. It takes as long as Python takes to begin three times."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(killed)],
            cwd=place.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for code in (KEEPER, COLLECTOR)
    ]
    try:
        assert programs[0].stdout is not None
        programs[0].stdout.readline()
        time.sleep(0.13 * (killed % 10) + 0.013 * (killed // 10))
        for program in programs:
            assert program.poll() is None, program.communicate()
            program.send_signal(signal.SIGKILL)
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    names = [line.split()[0] for line in castore("ref", "list").stdout.splitlines()]
    assert len(names) > 1
    for name in names:
        checked = castore("ref", "set", "checked", name)
        assert checked.exit_code == 0, (name, checked.stderr)
    assert castore("gc", "--grace", "0").exit_code == 0
    assert castore("export", "www", "out").exit_code == 0


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_imported_stays_until_it_has_its_name(place, www, kept):
    """A collection without grace in between takes it only from who does not keep it."""
    (place.folder / "www/docs/a.txt").write_text("third")
    with Composition.from_toml(place.folder / "composition.toml") as stores:
        blobs, directories = stores.blobs(), stores.directories()
        with keeping(blobs, directories) if kept else contextlib.nullcontext():
            node = import_tree(place.folder / "www", blobs, directories).node
            assert node is not None
            # A folder spares what is younger than a minute.
            later = time.time() + 61
            collect(blobs, [B3Digest.parse(www[1])], grace_seconds=0, clock=lambda: later)
            if kept:
                prove(node, blobs, directories)
            else:
                with pytest.raises(MissingDirectoryError):
                    prove(node, blobs, directories)


def test_a_tree_that_gets_a_name_is_claimed(place, www):
    """All of it is as if it had just been stored: one who has begun to collect does not take it."""
    with Composition.from_toml(place.folder / "composition.toml") as stores:
        blobs, directories = stores.blobs(), stores.directories()
        keep = B3Digest.of(b"second")
        root = directories.get(B3Digest.parse(www[1]))
        assert root is not None

        def reached():
            # The collection has looked at the leases and the refs; now somebody sets one.
            with keeping(blobs, directories):
                prove(root.node, blobs, directories)
            yield keep, True

        collect(blobs, [], reached=reached(), grace_seconds=0)
        prove(root.node, blobs, directories)


STACKS = {
    "wrapper": """
[directoryservices.root]
type = "retry"
inner = "&in_root"
""",
    "mirror": """
[directoryservices.root]
type = "mirror"
services = ["&in_root", "&rows"]

[directoryservices.rows]
type = "memory"
""",
    "cache": """
[directoryservices.root]
type = "cache"
near = "&rows"
far = "&in_root"

[directoryservices.rows]
type = "memory"
""",
}
IN_ROOT = """
[directoryservices.in_root]
type = "blobs"
blobs = "&root"
"""


@pytest.mark.parametrize("stack", STACKS)
def test_directories_stay_whatever_stands_around_them(castore, place, stack):
    """A service of directories is asked where they are blobs, and not guessed at."""
    (place.folder / "composition.toml").write_text(STORE + IN_ROOT + STACKS[stack])
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("second")
    assert castore("import", "www", "--ref", "www").exit_code == 0
    age(place.folder / "store")
    collected = castore("gc", "--grace", "1 s", "--json")
    assert json.loads(collected.stdout)["items"] == []
    assert exported(castore, place, "www", "out") == "second"


def test_refs_of_all_services_are_roots(castore, place):
    """Whatever they are called, and whoever else keeps some."""
    (place.folder / "composition.toml").write_text(
        STORE
        + '[refservices.root]\ntype = "sqlite"\npath = "./refs"\n'
        + '[refservices.team]\ntype = "sqlite"\npath = "./team-refs"\n'
        + '[blobservices.team]\ntype = "retry"\ninner = "&root"\n'
    )
    for name in ("root", "team"):
        (place.folder / name).mkdir()
        (place.folder / name / "a.txt").write_text(name)
        assert castore("--service", name, "import", name, "--ref", name).exit_code == 0
    age(place.folder / "store")
    assert json.loads(castore("gc", "--grace", "1 s", "--json").stdout)["items"] == []
    assert castore("--service", "team", "cat", "team:a.txt").stdout == "team"


def test_refs_beside_blobs_of_what_stands_around_a_store_are_roots(castore, place):
    """Where no service of refs is declared: also when only a part is collected."""
    (place.folder / "composition.toml").write_text(
        STORE.replace("root", "disk").replace("./store", "./disk")
        + STORE
        + '[blobservices.team]\ntype = "retry"\ninner = "&disk"\n'
    )
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("second")
    assert castore("--service", "team", "import", "www", "--ref", "www").exit_code == 0
    age(place.folder / "disk")
    collected = castore("--service", "disk", "gc", "--grace", "1 s", "--json")
    assert json.loads(collected.stdout)["items"] == []
    # Nothing of it is in `root`, whose refs alone count there.
    assert castore("put", "www/docs/a.txt").exit_code == 0
    refused = castore("gc")
    assert refused.exit_code == 2
    assert "There are no roots" in refused.stderr


def test_what_is_kept_elsewhere_need_not_be_there(castore, place):
    """Directories in a store of their own: neither lacks what the other one has."""
    (place.folder / "composition.toml").write_text(
        STORE
        + STORE.replace("root", "dirs").replace("./store", "./dirs")
        + '[directoryservices.root]\ntype = "blobs"\nblobs = "&dirs"\n'
    )
    (place.folder / "www/docs").mkdir(parents=True)
    (place.folder / "www/docs/a.txt").write_text("second")
    assert castore("import", "www", "--ref", "www").exit_code == 0
    for name, service in (("store", "root"), ("dirs", "dirs")):
        (place.folder / "waste").write_text(f"of {name}")
        assert castore("--service", service, "put", "waste").exit_code == 0
        age(place.folder / name)
        collected = castore("--service", service, "gc", "--grace", "1 s", "--json")
        assert collected.exit_code == 0, collected.stderr
        assert len(json.loads(collected.stdout)["items"]) == 2, name
    assert exported(castore, place, "www", "out") == "second"


def test_what_does_not_answer_is_not_called_damaged(castore, place, www):
    """The error is that of the service, with a few words before it."""
    (place.folder / "composition.toml").write_text(
        "allow_faults = true\n"
        + STORE
        + IN_ROOT
        + '[directoryservices.root]\ntype = "faulty"\ninner = "&in_root"\nfail = 1.0\n'
    )
    refused = castore("gc", "--json")
    assert refused.exit_code == 1, refused.stderr
    error = json.loads(refused.stderr)["error"]
    assert error["code"] == "unavailable"
    assert error["message"].startswith("the ref `www` cannot be read, so nothing was removed: ")


def test_a_tree_that_has_nothing_in_the_store_is_no_root(castore, place):
    """Only folders, whose directories are elsewhere: all that is old would go, and that is to be said."""
    (place.folder / "composition.toml").write_text(
        STORE + '[directoryservices.root]\ntype = "sqlite"\npath = "./rows"\n'
    )
    (place.folder / "www/empty").mkdir(parents=True)
    assert castore("import", "www", "--ref", "www").exit_code == 0
    (place.folder / "waste").write_text("waste")
    castore("put", "waste")
    age(place.folder / "store")
    refused = castore("gc")
    assert refused.exit_code == 2
    assert "There are no roots" in refused.stderr
    assert len(json.loads(castore("gc", "--no-roots", "--json").stdout)["items"]) == 2
