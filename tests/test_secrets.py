"""Secrets come by reference, work as strings, and show only how they were written."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from castore import Composition, CompositionError
from castore.composition import InvalidValueError, Secret, Untyped, keep_secret, scrub, secrets_in
from castore.drawing import FORMATS
from castore.secrets import expand, read_secret_file

VALUE = "hunter2/and+more"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    monkeypatch.setenv("OTHER_TOKEN", "swordfish")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${TOKEN}", VALUE),
        ("a${TOKEN}b", f"a{VALUE}b"),
        ("${TOKEN}${OTHER_TOKEN}", f"{VALUE}swordfish"),
        ("$${TOKEN}", "${TOKEN}"),
        ("$TOKEN $$ $", "$TOKEN $$ $"),
        ("plain", "plain"),
    ],
)
def test_a_variable_is_replaced(text: str, value: str) -> None:
    """A text with one is a secret, which shows how it was written; others are plain strings."""
    found = expand(text)
    assert found == value
    assert isinstance(found, Secret) == (VALUE in value)
    assert VALUE not in repr(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NONE:-default}", "default"),
        ("${EMPTY:-default}", "default"),
        ("${NONE:-}", ""),
        ("a${NONE:-b}c", "abc"),
        ("${NONE:-${ALSO_NONE:-deep}}", "deep"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-$${x}y}", "${x}y"),
        ("${NONE:-a}b}", "ab}"),
        ("${TOKEN:-default}", VALUE),
        ("${TOKEN:-${NONE}}", VALUE),
        ("${NONE:-${TOKEN}}", VALUE),
        ("${NONE:-" * 5000 + "x" + "}" * 5000, "x"),
    ],
)
def test_a_default_is_taken_where_there_is_no_value(
    text: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret is what comes from elsewhere; a default stands in the file."""
    monkeypatch.setenv("EMPTY", "")
    found = expand(text)
    assert found == value
    assert isinstance(found, Secret) == (VALUE in value)
    assert isinstance(found, Untyped)


def test_a_variable_counts_once() -> None:
    """However often a text names it."""
    found = expand("${TOKEN}" * 100_000)
    assert isinstance(found, Secret)
    assert found.pieces == ((VALUE, "${TOKEN}"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NONE:-default", "`${NONE:-default` has no `}`"),
        ("${NONE:-${TOKEN}", "has no `}`"),
        ("${NONE:default}", "is no name of a variable; write `${NAME}` or `${NAME:-default}`"),
        ("${NONE:-${TOKN}}", "`TOKN` is not set; did you mean `${TOKEN}`?"),
        ("${TOKEN:-${A-B}}", "`${A-B}` is no name of a variable"),
        ("${TOKN}", "the environment variable `TOKN` is not set; did you mean `${TOKEN}`?"),
        ("${}", "`${}` is no name of a variable"),
        ("${A-B}", "`${A-B}` is no name of a variable"),
        ("${TOKEN", "`${TOKEN` has no `}`"),
    ],
)
def test_what_is_no_variable_is_told(text: str, words: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        expand(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"key\n", "key"), (b"key\r\n", "key"), (b"key\n\n", "key\n"), (b" key ", " key "), (b"", "")],
)
def test_a_file_is_read_without_the_end_of_its_last_line(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "key").write_bytes(content)
    found = read_secret_file("key", tmp_path)
    assert found == value
    assert repr(found) == repr('{ file = "key" }')


def test_a_secret_does_not_leave_the_process() -> None:
    secret = expand("${TOKEN}")
    with pytest.raises(TypeError, match=r"the secret \$\{TOKEN\} does not leave the process"):
        pickle.dumps(secret)
    assert copy.copy(secret) is copy.deepcopy(secret) is secret


def test_a_part_of_a_secret_is_one_and_a_part_without_is_none() -> None:
    url = expand("s3://${TOKEN}@host/path")
    part = keep_secret(VALUE, url)
    assert isinstance(part, Secret)
    assert repr(part) == repr("${TOKEN}")
    assert not isinstance(keep_secret("host/path", url), Secret)
    assert not isinstance(keep_secret(VALUE, f"s3://{VALUE}"), Secret)


def test_secrets_are_found_wherever_they_are() -> None:
    token, other = expand("${TOKEN}"), expand("${OTHER_TOKEN}")
    assert secrets_in({"a": [token, "plain", ("x", other)], "b": 3}) == [token, other]
    assert secrets_in("plain") == []


@pytest.mark.parametrize("form", [VALUE, "hunter2%2Fand%2Bmore", "hunter2/and%2Bmore"])
def test_a_secret_is_taken_out_of_a_text(form: str) -> None:
    """Also where it is written as URLs write it."""
    assert scrub(f"refused: {form}!", [expand("${TOKEN}")]) == "refused: ***!"


def test_a_short_secret_is_taken_out_only_as_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "ab")
    assert scrub("a cab, ab", [expand("${PIN}")]) == "a cab, ***"


PLACES = [
    ("/mnt/acme/blobs", "/mnt/acme is not there: /mnt/acme/blobs", "*** is not there: ***"),
    ("/mnt/acme/blobs", "in /mnt.", "in ***."),
    ("/mnt/acme/blobs", "/mnt/other, /mnt-2, x/mnt", "/mnt/other, /mnt-2, x/mnt"),
    ("acme/blobs", "no /base/acme: /base/acme/blobs/x", "no /base/***: /base/***/x"),
    ("acme/blobs", "acme has none", "acme has none"),
    ("../acme/blobs", "no ../acme", "no ***"),
    ("file:./acme/blobs", "no /base/acme, nor /base/acme/blobs/b3", "no /base/***, nor /base/***/b3"),
    ("file:/mnt/acme", "/mnt: /mnt/acme/x: file:/mnt/acme", "***: ***/x: ***"),
    ("file:///mnt/a%20b", "no `/mnt/a b`", "no `***`"),
    ("s3://acme/blobs", "no bucket `acme`, 2 blobs in /blobs", "no bucket `***`, 2 blobs in ***"),
    ("sftp://me:pw@nas.acme.org/srv", "nas.acme.org does not answer", "*** does not answer"),
    ("sqlite:acme.sqlite", "no /base/acme.sqlite", "no /base/***"),
    ("admin:backup", "no /var/backup", "no /var/backup"),
    ("-----BEGIN\n/abc/def\n", "no /abc", "no /abc"),
    ("tag:", "a tag: /", "a *** /"),
    ("/", "a / b", "a / b"),
    ("hunter2/x==", "a hunter2 b", "a hunter2 b"),
]


@pytest.mark.parametrize(("value", "text", "shown"), PLACES)
def test_what_a_secret_leads_to_and_the_places_above_it_are_hidden(value: str, text: str, shown: str) -> None:
    assert scrub(text, [value]) == shown


def stack(**options: Any) -> dict[str, Any]:
    root = {"type": "objectstore", "object_store_url": "s3://bucket", "object_store_options": options}
    return {"blobservices": {"root": root}}


def test_no_secret_is_in_what_shows_a_composition() -> None:
    """Its repr, those of its instances and configs, and every drawing; the driver gets the value."""
    stores = Composition.from_mapping(stack(token="${TOKEN}"))
    instance = stores.graph.instances["blobservices.root"]
    shown = [
        repr(stores),
        repr(instance),
        repr(instance.config),
        *(f(stores.picture()) for f in FORMATS.values()),
    ]
    assert not [text for text in shown if VALUE in text]
    assert instance.config.object_store_options["token"] == VALUE


def test_no_secret_is_in_an_error_about_it() -> None:
    tables = {"blobservices": {"root": {"type": "memory", "size": "${TOKEN}"}, "b": {"type": "${TOKEN}"}}}
    tables["blobservices"]["c"] = {"type": "cache", "near": "${TOKEN}", "far": "&${TOKEN}"}
    with pytest.raises(CompositionError) as caught:
        Composition.from_mapping(tables)
    assert len(caught.value.problems) == 4
    assert VALUE not in str(caught.value)
    assert VALUE not in json.dumps([repr(problem) for problem in caught.value.problems])


def test_what_is_no_text_is_masked_too() -> None:
    """A byte of a URL that no encoding has."""
    assert scrub("at v\ud800-token", ["v\ud800-token"]) == "at ***"
