"""Whole trees as sequences: what does not make up one tree, in order and whole, is an error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.digest import B3Digest
from castore.errors import DirectoryOrderError, DirectorySizeError, InvalidDirectoryError
from castore.format.closures import FrameReader, LeavesToRoot, RootToLeaves, encode_frames
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from tests.format.test_directories import A, B, C, D, E

WRONG_SIZE = Directory({b"foo": DirectoryNode(A.digest, 42)})


def up(directories: Iterable[Directory]) -> B3Digest:
    validator = LeavesToRoot()
    for directory in directories:
        validator.accept(directory)
    return validator.finish()


def down(root: Directory, directories: Iterable[Directory]) -> None:
    validator = RootToLeaves(root.digest)
    for directory in directories:
        assert validator.allows(directory.digest)
        validator.accept(directory)
    validator.finish()


@pytest.mark.parametrize("order", [[A], [A, B], [A, A, C], [A, C], [A, B, D], [A, B, D, E]])
def test_leaves_to_root(order: Sequence[Directory]) -> None:
    assert up(order) == order[-1].digest


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ([], DirectoryOrderError),
        ([A, C, B], DirectoryOrderError),
        ([B], DirectoryOrderError),
        ([B, A], DirectoryOrderError),
        ([A, WRONG_SIZE], DirectorySizeError),
    ],
)
def test_what_does_not_lead_to_a_root(order: Sequence[Directory], error: type[Exception]) -> None:
    with pytest.raises(error):
        up(order)


def test_several_roots_are_named() -> None:
    with pytest.raises(DirectoryOrderError, match="2 directories") as caught:
        up([A, B, C])
    assert set(caught.value.digests) == {B.digest, C.digest}


@pytest.mark.parametrize(
    "order", [[A], [B, A], [C, A], [C, A, A], [C, C, A], [E, D, A, B], [E, D, B, A], [D, B, A], [D, A, B]]
)
def test_root_to_leaves(order: Sequence[Directory]) -> None:
    down(order[0], order)


@pytest.mark.parametrize(("root", "order"), [(E, []), (C, [C]), (E, [E, D, A]), (E, [E, D, B]), (D, [D, A])])
def test_a_sequence_that_is_cut_short(root: Directory, order: Sequence[Directory]) -> None:
    with pytest.raises(DirectoryOrderError, match="cut short"):
        down(root, order)


@pytest.mark.parametrize(("root", "before", "stranger"), [(C, [C], B), (A, [], B), (E, [E], A)])
def test_a_directory_that_nobody_refers_to(
    root: Directory, before: Sequence[Directory], stranger: Directory
) -> None:
    validator = RootToLeaves(root.digest)
    for directory in before:
        validator.accept(directory)
    assert not validator.allows(stranger.digest)
    with pytest.raises(DirectoryOrderError):
        validator.accept(stranger)


@pytest.mark.parametrize("before", [True, False])
def test_a_wrong_size(before: bool) -> None:
    """Whether its directory has come before the entry, or comes later."""
    wrong = DirectoryNode(B.digest, 42)
    inner = Directory({b"w": wrong, b"z": A.node})
    names = (b"a", b"b") if before else (b"b", b"a")
    root = Directory({names[0]: B.node, names[1]: inner.node})
    order = [root, B, inner, A] if before else [root, inner, B, A]
    with pytest.raises(DirectorySizeError) as caught:
        down(root, order)
    assert (caught.value.name, caught.value.specified) == (b"w", 42)


def test_what_is_taken_for_granted_is_no_root() -> None:
    validator = LeavesToRoot()
    validator.take_for_granted(B.digest, B.size)
    validator.accept(Directory())
    validator.accept(D)
    assert validator.finish() == D.digest
    assert B.digest in validator


@given(st.integers(1, 50))
def test_frames(piece: int) -> None:
    """In pieces of any size they come out whole."""
    order = [E, D, A, B]
    data = b"".join(encode_frames(order))
    assert data.startswith((len(E.encoded)).to_bytes(4, "big"))
    reader = FrameReader()
    found = [each for at in range(0, len(data), piece) for each in reader.take(data[at : at + piece])]
    reader.finish()
    assert [Directory.decode(each) for each in found] == order


def test_the_payload_of_the_reference() -> None:
    """Of a directory with two empty ones, which is one and the same."""
    assert b"".join(encode_frames([C, A])) == bytes.fromhex("0000004f") + C.encoded + bytes(4)


def test_frames_that_are_cut_short() -> None:
    data = b"".join(encode_frames([E, D, A, B]))
    ends = {0}
    for directory in (E, D, A, B):
        ends.add(max(ends) + 4 + len(directory.encoded))
    for length in range(len(data) + 1):
        reader = FrameReader()
        list(reader.take(data[:length]))
        if length in ends:
            reader.finish()
        else:
            with pytest.raises(InvalidDirectoryError):
                reader.finish()


def test_a_frame_that_is_too_long() -> None:
    """It is refused before its bytes have come."""
    with pytest.raises(InvalidDirectoryError, match="1048576000 bytes"):
        list(FrameReader().take((1048576000).to_bytes(4, "big")))
