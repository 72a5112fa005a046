"""`castore ... --stats`: what each instance was asked, on stderr, so that stdout stays what it is."""

from __future__ import annotations

import json
import re

import pytest

from castore.cli.stats import stats_text
from castore.metrics.model import InstanceMetrics, Metrics, OperationMetrics

ABSENT = "0" * 64


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [line.strip() for line in text.splitlines() if not line.startswith("  ")]
    heads, *rows = [re.split("  +", line) for line in lines]
    heads = [head for head in heads if head != "mean"]  # Which is left out if there is no room.
    assert heads == ["instance", "calls", "items", "hits", "misses", "errors", "in", "out", "time"]
    return {row[0]: row[1:] for row in rows}


def test_a_table_of_all_that_were_asked(place, order):
    """In the order of the file; the option may stand before and after the command word."""
    digest = place.file("a", b"x" * 2048)
    arguments = ["put", "a"]
    run = place.run(*(["--stats", *arguments] if order == "before" else [*arguments, "--stats"]))

    assert (run.returncode, run.stdout.decode()) == (0, f"{digest}  a\n")
    rows = rows_of(run.stderr.decode())
    assert list(rows) == ["root", "near", "far"]
    assert {name: row[5] for name, row in rows.items()} == {
        "root": "2.0 KiB",
        "near": "2.0 KiB",
        "far": "2.0 KiB",
    }


def test_many_files_are_few_calls_about_many_items(castore, place):
    """So that it can be seen whether batches reach a store."""
    for number in range(40):
        place.file(f"files/{number}", b"%d" % number)
    rows = rows_of(castore("put", "files", "--stats").stderr)

    for calls, items, *_ in rows.values():
        assert int(calls) < 20
        assert int(items) >= 40


def test_a_read_from_near_asks_far_for_nothing(castore, place):
    """It can be seen who has answered."""
    digest = place.file("a")
    castore("put", "a")
    rows = rows_of(castore("get", digest, "-o", "b", "--stats").stderr)

    assert list(rows) == ["root", "near"]
    assert rows["near"][3:5] == ["0", "0"]


def test_after_what_went_wrong_as_well(castore, place):
    """Below the message; the exit code is the same."""
    place.file("a")
    result = castore("get", ABSENT, "--stats")

    message, *table = result.stderr.splitlines()
    assert (result.exit_code, "no blob" in message) == (1, True)
    rows = rows_of("\n".join(table))
    assert [rows[name][3] for name in ("root", "near", "far")] == ["1", "1", "1"]


def test_json_is_one_object_on_stdout_and_one_on_stderr(castore, place):
    """Errors have another key, and a line of their own."""
    digest = place.file("a")
    stored = castore("put", "a", "--stats", "--json")
    absent = castore("get", ABSENT, "--stats", "--json")

    assert json.loads(stored.stdout)["files"][0]["digest"] == digest
    [stats] = map(json.loads, stored.stderr.splitlines())
    assert [entry["name"] for entry in stats["stats"]["instances"]] == ["root", "near", "far"]
    assert [list(json.loads(line)) for line in absent.stderr.splitlines()] == [["error"], ["stats"]]


def test_errors_by_kind_and_what_services_tell_of_themselves(castore, odd):
    """In lines of their own, below the row."""
    odd("down")
    result = castore("has", ABSENT, "--stats")

    assert rows_of("\n".join(result.stderr.splitlines()[1:]))["root"][4] == "1"
    assert result.stderr.splitlines()[-2:] == ["  errors: unavailable 1", "  now: to_send 3"]


@pytest.mark.parametrize("command", [["plugins"], ["schema"]])
def test_without_a_composition_there_is_nothing_to_show(castore, command):
    result = castore(*command, "--stats")
    assert (result.exit_code, result.stderr) == (0, "")


def test_nothing_was_asked(castore):
    assert castore("check", "--stats").stderr == "no instance was asked anything\n"


def test_a_wrong_composition(castore, place):
    """Has no stats, and its problems as ever."""
    place.compose('[blobservices.root]\ntype = "memry"')
    result = castore("list", "--stats")
    assert (result.exit_code, "memry" in result.stderr, "calls" in result.stderr) == (2, True, False)


def test_it_fits_into_80_columns():
    """Whatever the numbers and names are."""
    large = OperationMetrics(
        calls=999_999,
        items=999_999_999,
        hits=999_999,
        misses=99_999,
        errors={"corrupt": 10**4, "unavailable": 10**3},
        bytes_in=999 << 40,
        bytes_out=(1 << 40) - 1,
        seconds=86_400.0,
        under_way=3,
    )
    gauges = {f"a_rather_long_name_{number}": number * 1.5 for number in range(9)}
    entry = InstanceMetrics("root.services[10].far.near", "objectstore", "blob", {"has": large}, gauges)
    lines = stats_text(Metrics((entry, entry))).splitlines()
    assert max(map(len, lines)) <= 80
    assert " 999.0 TiB  1024.0 GiB " in lines[1]
    assert "3 calls have not ended" in " ".join(lines).replace("    ", "")
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "instance",
        *["root.…far.near"] * 2,
    ]
