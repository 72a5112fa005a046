"""Trees are written with the leaves first, and come back whole, the root first."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections.abc import Callable, Iterable

from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    DirectoryOrderError,
    DirectorySizeError,
    MissingDirectoryError,
    WriterClosedError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    expect,
    expect_raises,
    expect_that,
    fresh_directory,
    fresh_tree,
    in_threads,
)

chapter = Chapter()
clause = chapter.clause

_THREADS = 8


def _expect_tree(service: DirectoryService, tree: Iterable[Directory], root: B3Digest) -> None:
    __tracebackhide__ = True
    found = list(service.closure(root) or ())
    expect("how many directories come of a tree", len(found), len(set(tree)))
    expect("the first directory of a tree", found[0].digest, root)
    expect_that(set(found) == set(tree), "closure() to have the directories of the tree", "others")
    come = {root}
    for directory in found:
        expect_that(directory.digest in come, "each directory after one that refers to it", directory)
        come |= {node.digest for _, node in directory.directories}


@clause()
def a_tree_comes_back(service: DirectoryService) -> None:
    """`closure` yields each directory of a tree once, the root first, each after one that refers to it."""
    tree = fresh_tree()
    expect("put_closure()", service.put_closure(tree), tree[-1].digest)
    _expect_tree(service, tree, tree[-1].digest)


@clause()
def directories_that_come_again(service: DirectoryService) -> None:
    """A writer passes over a directory that it was given before."""
    tree = fresh_tree()
    repeated = [directory for each in tree for directory in (each, each, tree[0])]
    expect("put_closure()", service.put_closure(repeated), tree[-1].digest)
    _expect_tree(service, tree, tree[-1].digest)


@clause()
def a_deep_tree(service: DirectoryService) -> None:
    """A tree of 200 levels comes back."""
    tree = [fresh_directory()]
    for _ in range(200):
        tree.append(Directory({b"d": tree[-1].node}))
    _expect_tree(service, tree, service.put_closure(tree))


@clause()
def a_wide_tree(service: DirectoryService) -> None:
    """A tree of 3,000 directories comes back."""
    leaves = [fresh_directory() for _ in range(3_000)]
    tree = [*leaves, Directory({b"%d" % number: leaf.node for number, leaf in enumerate(leaves)})]
    _expect_tree(service, tree, service.put_closure(tree))


@clause()
def trees_with_something_in_common(service: DirectoryService) -> None:
    """Two trees may have a directory in common."""
    common = fresh_tree()
    for _ in range(2):
        leaf = fresh_directory()
        root = Directory({b"common": common[-1].node, b"own": leaf.node})
        _expect_tree(service, [*common, leaf, root], service.put_closure([*common, leaf, root]))


@clause()
def sizes_of_either_rule(service: DirectoryService) -> None:
    """An entry may say the size as the reference writes it, or as its texts have it, and stays as it is."""
    leaf = fresh_directory()
    inner = Directory({b"leaf": leaf.node, b"other": DirectoryNode(leaf.digest, leaf.possible_sizes[-1])})
    root = Directory({b"inner": DirectoryNode(inner.digest, inner.possible_sizes[-1])})
    _expect_tree(service, [leaf, inner, root], service.put_closure([leaf, inner, root]))


def _fails(service: DirectoryService, order: Iterable[Directory], *kinds: type[CastoreError]) -> None:
    __tracebackhide__ = True
    tree = list(order)
    expect_raises("put_closure() of what is no tree", kinds, lambda: service.put_closure(tree))
    if tree:
        expect("has() of what is no tree", service.has(tree[-1].digest), False)


@clause()
def what_is_no_tree(service: DirectoryService) -> None:
    """A writer refuses an empty tree, two roots, a child that did not come, and a wrong size."""
    leaf, other = fresh_directory(), fresh_directory()
    over_leaf = Directory({b"leaf": leaf.node})
    _fails(service, [], DirectoryOrderError)
    _fails(service, [leaf, over_leaf, other], DirectoryOrderError)
    _fails(service, [Directory({b"x": DirectoryNode(absent(), 2)})], DirectoryOrderError)
    _fails(service, [leaf, Directory({b"leaf": DirectoryNode(leaf.digest, 42)})], DirectorySizeError)


@clause()
def a_writer_is_closed_once(service: DirectoryService) -> None:
    """`close` again returns the same; afterwards nothing can be put."""
    tree = fresh_tree()
    writer = service.open_write()
    for directory in tree:
        expect("put()", writer.put(directory), directory.digest)
    expect("close()", writer.close(), tree[-1].digest)
    expect("close() again", writer.close(), tree[-1].digest)
    expect_raises("put() after close", WriterClosedError, lambda: writer.put(tree[0]))
    expect_raises("graft() after close", WriterClosedError, lambda: writer.graft(tree[0].node))
    writer.abort()
    _expect_tree(service, tree, tree[-1].digest)


@clause()
def an_aborted_tree_is_not_there(service: DirectoryService) -> None:
    """After `abort`, or an exception in its context, the root of a tree is absent."""
    first, second = fresh_directory(), fresh_directory()
    writer = service.open_write()
    writer.put(first)
    writer.abort()
    writer.abort()
    expect_raises("close() after abort", WriterClosedError, writer.close)

    def fail() -> None:
        with service.open_write() as other:
            other.put(second)
            raise ZeroDivisionError

    expect_raises("an exception in the context", ZeroDivisionError, fail)
    expect("has() of what was aborted", service.has(first.digest), False)
    expect("has() of what an exception ended", service.has(second.digest), False)


@clause()
def a_graft(service: DirectoryService) -> None:
    """A subtree that is there need not be put again."""
    tree = fresh_tree()
    service.put_closure(tree)
    leaf = fresh_directory()
    root = Directory({b"old": tree[-1].node, b"new": leaf.node})
    with service.open_write() as writer:
        writer.graft(tree[-1].node)
        writer.put(leaf)
        writer.put(root)
    _expect_tree(service, [*tree, leaf, root], root.digest)
    alone = service.open_write()
    alone.graft(root.node)
    expect("close() of a graft alone", alone.close(), root.digest)


@clause()
def a_graft_that_is_not_there(service: DirectoryService) -> None:
    """`put` or `close` raises `MissingDirectoryError`, and what was to be over it is absent."""
    node = DirectoryNode(absent(), 2)
    root = Directory({b"old": node})
    writer = service.open_write()
    writer.graft(node)
    steps: list[Callable[[], object]] = [lambda: writer.put(root), writer.close]
    expect_raises("a graft that is absent", MissingDirectoryError, lambda: [step() for step in steps])
    writer.abort()
    expect("has() of what was to be over it", service.has(root.digest), False)


@clause()
def threads_write_one_tree(service: DirectoryService) -> None:
    """Eight threads that write the same tree get the same root, and one whole tree."""
    tree = fresh_tree()
    roots = in_threads(_THREADS, lambda _: service.put_closure(tree))
    expect("the roots", set(roots), {tree[-1].digest})
    _expect_tree(service, tree, tree[-1].digest)


@clause()
def threads_write_and_read_many_trees(service: DirectoryService) -> None:
    """Eight threads write trees of their own, with parts in common, and read those of others."""
    common = fresh_tree()
    trees = []
    for _ in range(_THREADS):
        leaf = fresh_directory()
        trees.append([*common, leaf, Directory({b"common": common[-1].node, b"own": leaf.node})])

    def write_and_read(number: int) -> None:
        _expect_tree(service, trees[number], service.put_closure(trees[number]))
        other = trees[(number + 1) % _THREADS]
        found = service.closure(other[-1].digest)
        if found is not None:
            expect("a tree of another thread", set(found), set(other))

    in_threads(_THREADS, write_and_read)
    for tree in trees:
        _expect_tree(service, tree, tree[-1].digest)
