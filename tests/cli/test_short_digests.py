"""The first digits of a digest in the place of all of them, and short digests on a terminal."""

from __future__ import annotations

import json
import random

import pytest
from blake3 import blake3

from castore import Composition

ABSENT = "00" * 32

SERVICES = {
    "objectstore": "",
    "sqlite": '[blobservices.sqlite]\ntype = "sqlite"\npath = "../blobs.sqlite"\n',
    "mirror": '[blobservices.mirror]\ntype = "mirror"\nservices = ["&near", "&far"]\n',
    "fallback": '[blobservices.fallback]\ntype = "fallback"\nservices = ["&near", "&far"]\n',
    "retry": '[blobservices.retry]\ntype = "retry"\ninner = "&near"\n',
}


def add(place, table: str) -> None:
    """Add a table to the composition."""
    place.compose((place.folder / "composition.toml").read_text() + table)


@pytest.fixture(params=SERVICES)
def service(request, place) -> str:
    """The name of a service of some type."""
    add(place, SERVICES[request.param])
    return "near" if request.param == "objectstore" else request.param


@pytest.fixture
def digest(castore, place) -> str:
    """A blob of several chunks in `root`, and so in all of its parts."""
    place.file("large", random.Random(1).randbytes(1 << 20))
    return castore("put", "large").stdout[:64]


def alike(count: int) -> list[bytes]:
    """Contents whose digests begin with the same 8 digits do not come by chance: 5 digits have to do."""
    first: dict[str, list[bytes]] = {}
    for number in range(1 << 20):
        data = b"%d" % number
        group = first.setdefault(blake3(data).hexdigest()[:5], [])
        group.append(data)
        if len(group) == count:
            return group
    raise AssertionError


@pytest.mark.parametrize("length", [8, 16, 63])
def test_every_service_that_lists_completes_digests_of_blobs_and_chunks(castore, place, service, length):
    """In upper case, too."""
    place.file("large", random.Random(2).randbytes(1 << 20))
    digest = castore("--service", service, "put", "large").stdout[:64]
    chunk = json.loads(castore("--service", service, "stat", digest, "--json").stdout)["chunks"][1]["digest"]

    for whole in (digest, chunk):
        for short in (whole[:length], whole[:length].upper()):
            found = castore("--service", service, "has", short)
            assert (found.exit_code, found.stdout) == (0, f"{whole}  present\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "DIGEST", "--length", "0"),
        ("stat", "DIGEST"),
        ("has", "DIGEST"),
        ("locate", "DIGEST"),
        ("locate", "DIGEST", "--service", "near"),
        ("explain", "DIGEST", "--op", "has"),
        ("copy", "--from", "near", "--to", "far", "DIGEST"),
        ("gc", "DIGEST", "--service", "near", "--dry-run"),
    ],
    ids=" ".join,
)
def test_every_command_takes_the_first_digits(castore, digest, arguments):
    """And does with them what it does with all."""
    whole = castore(*(digest if word == "DIGEST" else word for word in arguments))
    short = castore(*(digest[:8] if word == "DIGEST" else word for word in arguments))

    assert whole.exit_code == 0
    assert (short.exit_code, short.stdout, short.stderr) == (0, whole.stdout, whole.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "00000000"),
        ("stat", "00000000"),
        ("copy", "--from", "root", "--to", "far", "00000000"),
        ("gc", "00000000", "--service", "near", "--no-roots", "--grace", "0 s"),
    ],
    ids=" ".join,
)
def test_digits_that_begin_nothing_are_an_error_that_names_them(castore, digest, arguments):
    """And nothing is done."""
    result = castore(*arguments)

    name = "near" if "gc" in arguments else "root"
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"castore: no blob in `{name}` begins with 00000000\n"
    assert castore("has", digest, "--service", "near").exit_code == 0


def test_of_digits_that_begin_nothing_has_says_absent(castore, digest):
    """As of whole digests, with the others."""
    result = castore("has", "00000000", digest[:9])

    assert (result.exit_code, result.stdout) == (1, f"00000000  absent\n{digest}  present\n")


@pytest.mark.parametrize("service", ["near", "root", "sqlite"])
def test_ambiguous_digits_are_an_error_with_the_candidates(castore, place, monkeypatch, service):
    """Whole, so that one can be chosen."""
    monkeypatch.setattr("castore.contract.short_digests._DIGITS", __import__("re").compile("[0-9a-f]{5,63}"))
    add(place, SERVICES["sqlite"])
    for number, data in enumerate(alike(3)):
        place.file(f"files/{number}", data)
    digests = sorted(line[:64] for line in castore("--service", service, "put", "files").stdout.splitlines())

    result = castore("--service", service, "get", digests[0][:5])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "".join(
        [
            f"castore: {digests[0][:5]} is ambiguous in `{service}`; these begin with it:\n",
            *(f"  {digest}\n" for digest in digests),
        ]
    )


def test_fewer_than_8_digits_are_no_digest(castore, digest):
    """The message says how many are enough."""
    result = castore("get", digest[:7])

    assert result.exit_code == 2
    assert "it has 7 hex digits instead of 64, or at least 8" in result.stderr


def test_a_service_that_does_not_list_needs_all_digits(odd):
    """The message says so."""
    result = odd("fine").run("get", "00000000")

    assert result.returncode == 2
    assert result.stderr == (
        b"castore: 00000000 is the beginning of a digest, and `root`, a `odd`, cannot list its blobs;"
        b" all 64 digits will do\n"
    )


@pytest.mark.parametrize("command", ["locate", "explain"])
def test_what_asks_all_services_passes_over_those_that_fail(castore, place, digest, command):
    """What another one has is completed; what none has names those that could not be asked."""
    place.file("../file")
    add(place, '[blobservices.third]\ntype = "fallback"\nservices = ["&far", "&lost"]\n')
    add(place, '[blobservices.lost]\ntype = "objectstore"\nobject_store_url = "file:../file"\n')
    options = ("--service", "third")

    found = castore(command, digest[:8], *options, "--json")
    absent = castore(command, "00000000", *options)

    assert json.loads(found.stdout)["digest"] == digest
    assert (absent.exit_code, absent.stdout) == (1, "")
    assert "begins with 00000000; `lost` could not be asked: give all 64 digits" in absent.stderr


def test_a_short_digest_in_a_list_is_a_mistake(castore, place, digest):
    """A program has written the list, and something has cut it."""
    place.file("roots.txt", digest[:16].encode())

    result = castore("gc", "--roots", "roots.txt", "--service", "near")

    assert result.exit_code == 2
    assert "roots.txt:1: '" in result.stderr


def test_a_shell_completes_digests(place):
    """Of the service that the line names; not what is no digit, nor all that there is."""
    from tests.cli.test_app import completions  # noqa: PLC0415 - a shell as there

    composition = place.folder / "composition.toml"
    composition.write_text('[blobservices.root]\ntype = "objectstore"\nobject_store_url = "file:s"\n')
    with Composition.from_toml(composition) as stores:
        digests = [str(stores.blobs().write(b"%d" % number)) for number in range(150)]
    for command in ("get", "has", "stat", "locate", "explain"):
        assert completions(place, f"castore {command}", digests[0][:9]) == [digests[0]]
    assert set(completions(place, "castore has", digests[0][0])) == {
        each for each in digests if each[0] == digests[0][0]
    }
    for word in ("", "x", digests[0], "--nothing"):
        assert completions(place, "castore has", word) == []
    assert completions(place, "castore --composition nowhere.toml has", digests[0][:9]) == []
