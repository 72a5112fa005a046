"""How a ref is written, to the byte, and what is refused."""

from __future__ import annotations

import datetime
import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore import B3Digest, CorruptRefError, InvalidRefError, NamedRoot
from castore.contract.refs import check_name, is_below
from castore.digest import EMPTY
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, SymlinkTarget
from castore.format.refs import LONGEST, decode, encode, key_of, name_in

TIME: Final = datetime.datetime(2026, 11, 30, 15, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
WRITTEN: Final = (
    b'{"comment":"","metadata":null,"node":{"digest":"blake3-rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI=",'
    b'"size":0,"type":"directory"},"source":"","time":"2026-11-30T14:05:00Z","version":1}\n'
)
WITH_ALL: Final = (
    b'{"comment":"caf\\u00e9\\n","metadata":"blake3-rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI=","node":'
    b'{"target":"a\\udcff","type":"symlink"},"source":"/home/\\udcff","time":"2026-11-30T14:05:00.000001Z",'
    b'"version":1}\n'
)


def test_to_the_byte() -> None:
    ref = NamedRoot(DirectoryNode(EMPTY, 0), TIME)
    assert encode(ref) == WRITTEN
    assert decode(WRITTEN, "www") == ref
    later = TIME + datetime.timedelta(microseconds=1)
    ref = NamedRoot(
        SymlinkNode(SymlinkTarget(b"a\xff")),
        later,
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n",
        EMPTY,
        "/home/\udcff",
    )
    assert encode(ref) == WITH_ALL
    assert decode(WITH_ALL, "www") == ref


def test_what_may_be_left_out() -> None:
    """What somebody has written by hand."""
    document = json.loads(WRITTEN)
    for key in ("comment", "metadata", "source"):
        del document[key]
    assert decode(json.dumps(document, indent=2).encode(), "www") == decode(WRITTEN, "www")


DIGESTS: Final = st.binary(min_size=32, max_size=32).map(B3Digest)
SIZES: Final = st.integers(0, (1 << 64) - 1)
NODES: Final = st.one_of(
    st.builds(FileNode, DIGESTS, SIZES, st.booleans()),
    st.builds(DirectoryNode, DIGESTS, SIZES),
    st.binary(min_size=1, max_size=50)
    .filter(lambda target: b"\0" not in target)
    .map(lambda target: SymlinkNode(SymlinkTarget(target))),
)
ANY_TEXT: Final = st.text(st.characters(), max_size=50)
REFS: Final = st.builds(
    NamedRoot, NODES, st.datetimes(timezones=st.just(datetime.UTC)), ANY_TEXT, st.none() | DIGESTS, ANY_TEXT
)


@given(REFS)
def test_it_is_read_as_it_was_written(ref: NamedRoot) -> None:
    data = encode(ref)
    assert decode(data, "www") == ref
    assert encode(decode(data, "www")) == data
    assert data.isascii()


@given(st.binary(max_size=200) | st.integers(0, len(WRITTEN) - 2).map(lambda end: WRITTEN[:end]))
def test_nothing_else_is_a_ref(data: bytes) -> None:
    with pytest.raises(CorruptRefError, match=r"the ref `www` cannot be read.*stored as k"):
        decode(data, "www", key="k")


def changed(**values: Any) -> bytes:
    document = {**json.loads(WRITTEN), **values}
    return json.dumps({key: value for key, value in document.items() if value != "LEFT OUT"}).encode()


DIGEST: Final = EMPTY.sri
DIRECTORY: Final = {"type": "directory", "digest": DIGEST, "size": 0}
HOSTILE: Final = {
    "no JSON": (b"no json", "Expecting value"),
    "a list": (b"[]", "no JSON object"),
    "a newer version": (changed(version=2), r"version 2 of the format, and this castore knows 1: upgrade"),
    "a version of a foreign kind": (changed(version="1"), "does not say"),
    "a truth value": (changed(version=True), "does not say"),
    "a broken number": (changed(version=1.0), "does not say"),
    "no version": (changed(version="LEFT OUT"), "does not say"),
    "an unknown key": (changed(owner="me"), "no ref has 'owner'"),
    "no node": (changed(node="LEFT OUT"), "has no node"),
    "a node that is none": (changed(node={"type": "device"}), "no node"),
    "a node with more": (
        changed(node={"type": "directory", "digest": DIGEST, "size": 0, "name": "x"}),
        "a node has no `name`",
    ),
    "a size that is no number": (changed(node={**DIRECTORY, "size": True}), "a size is a number"),
    "a size below 0": (changed(node={"type": "directory", "digest": DIGEST, "size": -1}), "-1 is no size"),
    "another form of a digest": (changed(node={**DIRECTORY, "digest": EMPTY.hex()}), "not written"),
    "a time without a zone": (changed(time="2026-11-30T14:05:00"), "the time is none"),
    "a time elsewhere": (changed(time="2026-11-30T14:05:00+01:00"), "the time is none"),
    "a time that is none": (changed(time="2026-13-30T14:05:00Z"), "the time is none"),
    "a number as time": (changed(time=1), "the time is none"),
    "no time": (changed(time="LEFT OUT"), "the time is none"),
    "a comment that is none": (changed(comment=1), "no text"),
    "a source that is none": (changed(source=None), "no text"),
    "metadata that is no digest": (changed(metadata="x"), "not a digest"),
    "metadata that is no text": (changed(metadata=[]), "no digest"),
    "a key twice": (WRITTEN.replace(b'"version":1', b'"version":1,"version":1'), "a key is there twice"),
    "not a number": (changed(comment=float("nan")), "NaN is no JSON"),
    "too long": (b" " * (LONGEST + 1), "65537 bytes"),
    "deep": (b"[" * 30_000, "."),
    "a large number": (b'{"version":' + b"9" * 10_000 + b"}", "."),
    "no ASCII": (WRITTEN.replace(b'"source":""', '"source":"ä"'.encode()), "ascii"),
    "nothing": (b"", "Expecting value"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(CorruptRefError, match=message):
        decode(data, "www")


def test_a_time_needs_a_zone() -> None:
    with pytest.raises(InvalidRefError, match="it needs a zone"):
        NamedRoot(DirectoryNode(EMPTY, 0), datetime.datetime(2026, 11, 30))
    assert NamedRoot(DirectoryNode(EMPTY, 0), TIME).time.isoformat() == "2026-11-30T14:05:00+00:00"


@pytest.mark.parametrize("key", ["refs/.json", "refs/a", "blobs/a.json", "refs/a/../b.json", "refs//a.json"])
def test_keys_of_no_refs(key: str) -> None:
    assert name_in(key) is None


def test_the_key_of_a_ref() -> None:
    assert key_of("www/2026-11-30T14-05-00Z") == "refs/www/2026-11-30T14-05-00Z.json"
    assert name_in("refs/www/2026-11-30T14-05-00Z.json") == "www/2026-11-30T14-05-00Z"


NAMES: Final = st.lists(st.text("abAB0._+-", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join)


@given(NAMES)
def test_a_name_is_the_name_of_a_file(name: str) -> None:
    """Each that is one leads to a place of its own below the folder of refs, and back."""
    try:
        check_name(name)
    except InvalidRefError:
        return
    assert name_in(key_of(name)) == name
    assert not any(part in ("", ".", "..") or part.startswith(".") for part in key_of(name).split("/"))
    assert is_below(name, "")
    assert is_below(name, name)
    assert is_below(f"{name}/x", name)
    assert not is_below(f"{name}x", name)
    assert not is_below(name, f"{name}/")
