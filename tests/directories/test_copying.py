"""The order in which trees are copied."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castore.digest import EMPTY
from castore.directories.copying import copy_trees, leaves_first, put_with_children
from castore.errors import MissingDirectoryError
from castore.format.closures import LeavesToRoot
from castore.format.directories import Directory
from castore.format.nodes import FileNode
from castore.testing import FaultyDirectoryService
from castore_memory.directories import MemoryDirectoryService
from tests.format.test_directories import A, B, C, D, E


def test_one_that_is_at_two_levels() -> None:
    assert list(leaves_first([E, D, A, B])) == [A, B, D, E]


@given(st.integers(0, 2**32))
def test_any_tree(seed: int) -> None:
    """Whatever has what in it: each comes once, after all those within it."""
    dice = random.Random(seed)
    made = [Directory({b"file": FileNode(EMPTY, seed)})]
    for number in range(dice.randrange(1, 20)):
        chosen = dice.sample(made, dice.randrange(1, len(made) + 1))
        entries = {b"%d" % place: each.node for place, each in enumerate(chosen)}
        made.append(Directory({**entries, b"own": FileNode(EMPTY, number)}))
    tops = {each.digest for each in made} - {node.digest for each in made for _, node in each.directories}
    root = Directory({b"%d" % n: each.node for n, each in enumerate(made) if each.digest in tops})
    service = MemoryDirectoryService()
    service.put_closure([*made, root])
    order = LeavesToRoot()
    assert all(order.accept(each) for each in leaves_first(service.closure(root.digest) or ()))
    assert order.finish() == root.digest


def test_many_levels() -> None:
    """No call goes down with them."""
    tree = [A]
    for _ in range(20_000):
        tree.append(Directory({b"d": tree[-1].node}))
    assert list(leaves_first(reversed(tree))) == tree


def test_many_trees_are_copied_level_by_level() -> None:
    """One call for a level of all of them, and one to put them; those that share something have it once."""
    shared = Directory({b"x": FileNode(EMPTY, 1)})
    inner = [Directory({b"m": FileNode(EMPTY, n), b"s": shared.node}) for n in range(200)]
    tops = [Directory({b"n": FileNode(EMPTY, n), b"d": below.node}) for n, below in enumerate(inner)]
    source = MemoryDirectoryService()
    source.put_many([shared, *inner, *tops])
    target = MemoryDirectoryService()
    asked, told = FaultyDirectoryService(source), FaultyDirectoryService(target)
    parent = Directory({b"%d" % n: top.node for n, top in enumerate(tops)})

    put_with_children([parent], asked, told)

    assert asked.calls == ["get_many"] * 3
    assert told.calls == ["missing", "put_many", "put_many"]
    assert len(list(target.closure(parent.digest) or ())) == 402


def test_those_that_are_not_there() -> None:
    source, target = MemoryDirectoryService(), MemoryDirectoryService()
    source.put_many([A, B, D])
    assert copy_trees([D.digest, C.digest, E.digest], source, target) == {C.digest, E.digest}
    assert list(target.closure(D.digest) or ()) == [D, A, B]
    with pytest.raises(MissingDirectoryError):
        put_with_children([Directory({b"c": C.node, b"d": D.node})], source, MemoryDirectoryService())
