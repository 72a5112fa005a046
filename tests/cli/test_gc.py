"""`castore gc`: what goes, what it says, and when it refuses."""

from __future__ import annotations

import json
import os
import random
import time

import pytest

from castore import B3Digest
from castore.threads.pool import Pool
from castore.upkeep import collect
from castore_objectstore.local import LocalObjectStore

NO_ROOTS = "There are no roots, so all that is old would go. Name the blobs to keep"


def age(place, service="far"):
    for path in (place.folder.parent / "stores" / service).rglob("*"):
        if path.is_file():
            os.utime(path, (1_000_000, 1_000_000))


@pytest.fixture
def digests(place, castore):
    """Of two files in the store `far`, which is old."""
    found = [place.file("keep", b"to be kept"), place.file("lose", bytes(300_000))]
    assert castore("put", "keep", "lose").exit_code == 0
    age(place)
    return found


def listed(castore):
    return set(castore("list", "--service", "far").stdout.split())


def test_removes_what_no_root_reaches(castore, digests):
    """A table tells how much went, and how much is there."""
    run = castore("gc", "--service", "far", digests[0])

    assert (run.exit_code, run.stderr) == (0, "")
    lines = [line.split() for line in run.stdout.splitlines()]
    assert lines[0] == ["gone", "size", "kept", "size", "too", "new"]
    assert [line[0] for line in lines[1:]] == ["indexes", "chunks", "left-over"]
    assert lines[1][1] == "1"
    assert listed(castore) == {digests[0]}
    assert castore("get", "--service", "far", digests[0]).stdout_bytes == b"to be kept"


def test_an_interrupted_one_tells_in_json_what_is_gone(castore, digests, monkeypatch):
    """Ctrl-C comes right after something has gone."""

    def interrupted(*arguments, on_gone, **options):
        def told(item):
            on_gone(item)
            if item.digest is not None and str(item.digest) == digests[1]:
                raise KeyboardInterrupt

        return collect(*arguments, on_gone=told, **options)

    monkeypatch.setattr("castore.cli.gc.collect", interrupted)
    run = castore("gc", "--service", "far", "--json", digests[0])
    document = json.loads(run.stdout)

    assert (run.exit_code, document["interrupted"]) == (130, True)
    assert digests[1] in {item["digest"] for item in document["items"]}


def test_a_rehearsal_removes_nothing(castore, digests):
    run = castore("gc", "--service", "far", "--dry-run", digests[0])

    assert (run.exit_code, run.stdout.split()[:2]) == (0, ["would", "go"])
    assert listed(castore) == set(digests)


def test_json_lists_what_goes(castore, digests, place):
    """The same with and without --dry-run."""
    runs = [
        castore("gc", "--service", "far", "--json", *options, digests[0]) for options in (["--dry-run"], [])
    ]

    would, really = [json.loads(run.stdout) for run in runs]
    assert (would.pop("dry_run"), really.pop("dry_run")) == (True, False)
    assert abs(would.pop("cutoff") - really.pop("cutoff")) < 600
    assert would == really
    assert (really["service"], really["roots"], really["missing"]) == ("far", 1, [])
    assert really["leased_since"] is None
    assert really["blobs"] == {"gone": {"count": 1, "bytes": 0}, "kept": {"count": 1, "bytes": 0}}
    assert really["residue"]["kept"] == {"count": 0, "bytes": 0}
    assert really["chunks"]["kept"]["count"] == 1
    keys = {item["key"] for item in really["items"]}
    assert f"blobs/b3/{digests[1][:4]}/{digests[1]}" in keys
    assert {item["kind"] for item in really["items"]} == {"index", "chunk"}
    assert {item["modified"] for item in really["items"]} == {1_000_000}
    assert not [key for key in keys if (place.folder.parent / "stores/far" / key).exists()]


@pytest.mark.parametrize("grace", ["0 s", "0", "1 h", "1000 d"])
def test_the_grace_time(castore, digests, grace):
    """What is from 1970 is older than any."""
    assert castore("gc", "--service", "far", "--no-roots", "--grace", grace).exit_code == 0
    assert listed(castore) == set()


def test_by_default_a_week_is_left_alone(castore, place, digests):
    castore("put", place.file("young") and "young")

    castore("gc", "--service", "far", digests[0])

    assert len(listed(castore)) == 2


def test_what_is_too_new_is_told(castore, place, digests):
    """How much of it there is, and from when on the first of it can go; not what a root reaches."""
    castore("put", place.file("young") and "young")

    run = castore("gc", "--service", "far", digests[0], "--grace", "2 d")

    assert [line.split()[-1] for line in run.stdout.splitlines()] == ["new", "1", "1", "0"]
    first = time.strftime("%Y-%m-%d", time.localtime(time.time() + 2 * 86400 + 60))
    assert run.stderr.startswith(
        "castore: 2 of them are kept only because of the grace time; the oldest can go "
    )
    assert f" from {first} " in run.stderr or time.localtime().tm_hour in (0, 23)
    document = json.loads(castore("gc", "--service", "far", "--json", digests[0], "--grace", "2 d").stdout)
    assert {name: amount["count"] for name, amount in document["too_new"].items()} == {
        "blobs": 1, "chunks": 1, "residue": 0,
    }  # fmt: skip
    assert abs(document["goes_from"] - time.time() - 2 * 86400 - 60) < 600


@pytest.mark.parametrize("grace", ["30", "1.5", " 7 ", "1_000"])
def test_a_grace_time_needs_a_unit(castore, digests, grace):
    """Seconds are as likely to be meant as days."""
    run = castore("gc", "--service", "far", "--no-roots", "--grace", grace)

    assert run.exit_code == 2
    assert f'no unit; write "{grace.strip()} d" for days' in run.stderr
    assert listed(castore) == set(digests)


@pytest.mark.parametrize("grace", ["-1", "soon", "7 days", "nan"])
def test_a_grace_time_that_is_none(castore, digests, grace):
    run = castore("gc", "--service", "far", "--no-roots", "--grace", grace)

    assert run.exit_code == 2
    assert "--grace" in run.stderr
    assert listed(castore) == set(digests)


class TestRoots:
    @pytest.mark.parametrize(
        "line",
        [
            "{}\n",
            "{}",
            "{}  a name with spaces\n",
            "\\{}  a\\nname\n",
            "# comment\n\n  \n{}\r\n#end",
            "\t{} # why\n",
        ],
    )
    def test_from_files(self, castore, place, digests, line):
        """What `castore put`, `castore list` and b3sum print, with comments."""
        (place.folder / "roots").write_text(line.format(digests[0]))

        assert castore("gc", "--service", "far", "--roots", "roots").exit_code == 0
        assert listed(castore) == {digests[0]}

    def test_from_everywhere(self, castore, place, digests):
        """Arguments, several files, and stdin."""
        more = [place.file(str(number), bytes([number])) for number in range(3)]
        castore("put", "0", "1", "2")
        age(place)
        (place.folder / "one").write_text(more[0])
        (place.folder / "two").write_text(more[1])

        run = castore(
            *("gc", "--service", "far", digests[0], "--roots", "one", "--roots", "-", "--roots", "two"),
            stdin=f"{more[2]}  -\n".encode(),
        )

        assert run.exit_code == 0
        assert listed(castore) == {digests[0], *more}

    def test_in_any_form(self, castore, place, digests):
        text = B3Digest.parse(digests[0]).sri
        assert castore("gc", "--service", "far", "--roots", "-", stdin=text.encode()).exit_code == 0
        assert listed(castore) == {digests[0]}

    @pytest.mark.parametrize("text", ["{cut}", "{whole}\n{cut}\n", "b3:digest\n{whole}\n", "{whole},x"])
    def test_a_line_that_is_no_digest(self, castore, place, digests, text):
        """It may have been cut short: nothing is removed."""
        (place.folder / "roots").write_text(text.format(cut=digests[0][:40], whole=digests[0]))

        run = castore("gc", "--service", "far", "--roots", "roots")

        assert (run.exit_code, "castore: roots:" in run.stderr) == (2, True)
        assert listed(castore) == set(digests)

    def test_a_file_that_is_not_there(self, castore, digests):
        run = castore("gc", "--service", "far", "--roots", "nowhere")

        assert (run.exit_code, "nowhere" in run.stderr) == (1, True)
        assert listed(castore) == set(digests)

    @pytest.mark.parametrize("text", [None, "", "# nothing\n"])
    def test_none_at_all(self, castore, place, digests, text):
        """Also an empty file: the program that should have written it may have failed."""
        options = [] if text is None else ["--roots", "roots"]
        (place.folder / "roots").write_text(text or "")

        run = castore("gc", "--service", "far", *options)

        assert run.exit_code == 2
        assert run.stderr.startswith(f"castore: {NO_ROOTS}")
        assert "--no-roots" in run.stderr
        assert listed(castore) == set(digests)
        assert castore("gc", "--service", "far", *options, "--no-roots").exit_code == 0
        assert listed(castore) == set()

    def test_one_that_is_not_there(self, castore, digests):
        """Nothing goes, unless it is said that this does not matter."""
        stranger = "0" * 64

        run = castore("gc", "--service", "far", digests[0], stranger)
        assert run.exit_code == 1
        assert run.stderr == (
            f"castore: the root {stranger} is not there; nothing was removed;"
            " with --ignore-missing-roots the others are kept alone\n"
        )
        assert listed(castore) == set(digests)

        run = castore("gc", "--service", "far", digests[0], stranger, "--ignore-missing-roots")
        assert (run.exit_code, run.stderr) == (0, "castore: 1 of the roots is not in `far`\n")
        assert listed(castore) == {digests[0]}

    def test_where_none_is_there(self, castore, digests):
        """That is as if there were none: it has to be said that all may go."""
        strangers = ["0" * 64, "1" * 64]
        options = ("gc", "--service", "far", *strangers, "--ignore-missing-roots")

        run = castore(*options)
        assert run.exit_code == 1
        assert run.stderr == (
            f"castore: the root {strangers[0]} and 1 more are not there; nothing was removed:"
            " where no root is there, all that is old would go, as without any;"
            " see whether these are the roots of this service, or say --no-roots\n"
        )
        assert listed(castore) == set(digests)

        assert castore(*options, "--no-roots").exit_code == 0
        assert listed(castore) == set()

    def test_of_plugins(self, rooted):
        """What a plugin refers to is kept, without being named."""
        keep, lose = rooted.file("keep", b"to be kept"), rooted.file("lose")
        rooted.run("put", "keep", "lose")
        age(rooted)
        (rooted.folder / "refers-to").write_text(keep)

        run = rooted.run("gc", "--service", "far")

        assert (run.returncode, run.stderr) == (0, b"")
        assert rooted.run("list", "--service", "far").stdout.decode().split() == [keep]
        assert rooted.run("has", "--service", "far", lose).returncode == 1

    def test_of_a_plugin_that_fails(self, rooted):
        """Nothing is removed."""
        digest = rooted.file("keep", b"to be kept")
        rooted.run("put", "keep")
        age(rooted)

        run = rooted.run("gc", "--service", "far", "--no-roots")

        assert run.returncode == 2
        assert b"the hook `castore_roots` of plugin `rooted` of rooted 1.0 failed: No such file" in run.stderr
        assert rooted.run("has", "--service", "far", digest).returncode == 0


@pytest.fixture
def rooted(place, tmp_path):
    """The place, with a plugin installed that refers to the blobs in the file `refers-to`."""
    site = tmp_path / "site"
    metadata = site / "rooted-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "rooted.py").write_text(
        "import pathlib, castore\n\n"
        "@castore.hookimpl\ndef castore_register(registry): pass\n\n"
        "@castore.hookimpl\ndef castore_roots(composition):\n"
        "    for line in pathlib.Path('refers-to').read_text().split():\n"
        "        yield castore.B3Digest.parse(line)\n"
    )
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rooted\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[castore]\nrooted = rooted\n")
    place.add_path(site)
    return place


class TestRefusals:
    def test_a_service_of_others(self, castore, digests):
        """The parts that can be collected are named."""
        run = castore("gc", digests[0])

        assert run.exit_code == 2
        assert run.stderr == (
            "castore: `root`, a `cache`, cannot be collected;"
            " of its parts, use `--service NAME` with `far`, `near`\n"
        )

    @pytest.mark.parametrize(
        "table", ['type = "memory"', 'type = "packed"\nobject_store_url = "ftp://host/x"']
    )
    def test_a_service_that_cannot(self, castore, place, table):
        """Also packs where a listing may be old: the way out is named."""
        place.compose(f"[blobservices.root]\n{table}\n")
        run = castore("gc", "--no-roots")
        tag = table.split('"')[1]
        message = f"castore: `root`, a `{tag}`, cannot be collected; what is to stay can be brought to a new"
        assert (run.exit_code, run.stderr) == (2, f"{message} store by `castore copy`\n")

    def test_packs_in_a_folder(self, castore, place):
        """They are collected as anything else, and their space comes back."""
        place.compose('[blobservices.root]\ntype = "packed"\nobject_store_url = "file:./packs"\n')
        for name in ("kept", "lost"):
            (place.folder / name).write_bytes(random.Random(name).randbytes(100_000))
        kept, lost = (castore("put", str(place.folder / name)).stdout.split()[0] for name in ("kept", "lost"))
        packs = place.folder / "packs/packs"
        for path in packs.glob("*/*"):
            os.utime(path, (path.stat().st_mtime - 30 * 86400,) * 2)
        assert castore("gc", kept).exit_code == 0
        assert sum(path.stat().st_size for path in packs.glob("*/*")) < 101_000
        assert castore("has", kept).exit_code == 0
        assert castore("has", lost).exit_code == 1

    def test_a_damaged_index(self, castore, place, digests):
        """The way out is named, and nothing was removed."""
        index = place.folder.parent / f"stores/far/blobs/b3/{digests[0][:4]}/{digests[0]}"
        index.write_bytes(b"\xff")

        run = castore("gc", "--service", "far", digests[0])

        assert run.exit_code == 1
        assert "castore verify" in run.stderr
        assert listed(castore) == set(digests)


def test_a_writer_with_a_lease_is_mentioned(castore, place, digests):
    """What came after it stays, and the user learns why."""
    store = LocalObjectStore(place.folder.parent / "stores/far", instance="far")
    with store.lease():
        lease = next((place.folder.parent / "stores/far/leases").iterdir())
        os.utime(lease, (900_000, 900_000))

        run = castore("gc", "--service", "far", digests[0])

    assert run.exit_code == 0
    assert run.stderr.startswith("castore: a writer is busy since 1970-01-1")
    assert listed(castore) == set(digests)


def test_the_threads_of_the_composition_are_used(castore, digests, monkeypatch):
    """Reading an index in a bucket takes its time."""
    sizes = set()
    submit = Pool.submit

    def noting(self, call):
        sizes.add(self.size)
        return submit(self, call)

    monkeypatch.setattr(Pool, "submit", noting)

    castore("gc", "--service", "far", digests[0])

    assert sizes == {os.cpu_count()}
