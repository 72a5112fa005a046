"""A directory that is stored is there, under its digest, with the children that it needs."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections import Counter

from castore.contract.directories import AnyDirectory, Complete, DirectoryLister, DirectoryService
from castore.contract.operations import DIRECTORY_CAPABILITIES
from castore.digest import EMPTY, B3Digest
from castore.errors import MissingDirectoryError
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode, SymlinkTarget
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    capability_of,
    expect,
    expect_raises,
    expect_that,
    fresh,
    fresh_directory,
    fresh_tree,
)

chapter = Chapter()
clause = chapter.clause


@clause()
def absent_directories(service: DirectoryService) -> None:
    """A directory that was never stored is absent by each way to ask for it."""
    digest, other = absent(), absent()
    expect("get() of an absent directory", service.get(digest), None)
    expect("has() of an absent directory", service.has(digest), False)
    expect("missing() of absent directories", service.missing([digest, other]), {digest, other})
    expect("get_many() of absent directories", service.get_many([digest, other]), {})
    expect("closure() of an absent directory", service.closure(digest), None)


@clause()
def what_is_no_digest(service: DirectoryService) -> None:
    """Text is no digest, and is not called absent."""
    expect_raises("get() of text", TypeError, lambda: service.get("a" * 64))  # type: ignore[arg-type]
    expect_raises("has() of text", TypeError, lambda: service.has("a" * 64))  # type: ignore[arg-type]


@clause(name="put-directory-then-get")
def put_then_get(service: DirectoryService) -> None:
    """`put` returns the digest of the encoding, under which the directory is there."""
    directory = fresh_directory()
    expect("put()", service.put(directory), directory.digest)
    expect("get() of what was put", service.get(directory.digest), directory)
    expect("has() of what was put", service.has(directory.digest), True)
    expect("missing() of what was put", service.missing([directory.digest]), set())
    expect("put() again", service.put(directory), directory.digest)


@clause()
def the_empty_directory(service: DirectoryService) -> None:
    """The empty directory can be stored as any other."""
    expect("put() of the empty directory", service.put(Directory()), EMPTY)
    expect("get() of the empty directory", service.get(EMPTY), Directory())
    expect("closure() of the empty directory", list(service.closure(EMPTY) or ()), [Directory()])


@clause()
def every_kind_of_node(service: DirectoryService) -> None:
    """Names and targets are any bytes, sizes have 64 bits, and the bit of a file stays with it."""
    directory = Directory(
        {
            bytes(set(range(256)) - {0, 0x2F}): FileNode(absent(), 2**64 - 1, executable=True),
            b"x" * 255: FileNode(EMPTY, 0),
            b"\xff\xfe": SymlinkNode(SymlinkTarget(b"../\xff" + fresh().replace(b"\0", b"1"))),
        }
    )
    expect("get() of what was put", service.get(service.put(directory)), directory)


@clause()
def a_large_directory(service: DirectoryService) -> None:
    """A directory of 20,000 entries is one like any other."""
    digest = absent()
    directory = Directory({b"%05d" % number: FileNode(digest, number) for number in range(20_000)})
    expect_that(service.get(service.put(directory)) == directory, "get() of a large directory", "another")


@clause()
def get_many_of_many(service: DirectoryService) -> None:
    """`get_many` has each directory that is there, and leaves out those that are absent."""
    leaves = [fresh_directory() for _ in range(600)]
    root = Directory({b"%d" % number: leaf.node for number, leaf in enumerate(leaves)})
    service.put_closure([*leaves, root])
    wanted = {leaf.digest for leaf in leaves}
    nowhere = [absent() for _ in range(600)]
    found = service.get_many(iter([*wanted, *nowhere]), within=root.digest)
    expect("how many get_many() has", len(found), len(wanted))
    for leaf in leaves:
        expect("what get_many() has", found[leaf.digest], leaf)
    expect("get_many() of nothing", service.get_many([]), {})


@clause(needs=(AnyDirectory,))
def any_directory_of_a_tree(service: DirectoryService) -> None:
    """Each directory within a tree can be had by its digest alone."""
    tree = fresh_tree()
    service.put_closure(tree)
    for directory in tree:
        expect("get() of a directory within a tree", service.get(directory.digest), directory)
    expect("missing() of all of them", service.missing(each.digest for each in tree), set())


@clause()
def within_a_tree(service: DirectoryService) -> None:
    """Each directory of a tree can be had if its root is named."""
    tree = fresh_tree()
    root = service.put_closure(tree)
    for directory in tree:
        found = service.get_many([directory.digest], within=root)
        expect("get_many(within=root)", found, {directory.digest: directory})


@clause()
def putting_many_again(service: DirectoryService) -> None:
    """`put_many` may be repeated, and given what is there already."""
    tree = fresh_tree()
    for _ in range(2):
        service.put_many(tree)
    expect("get() of the root", service.get(tree[-1].digest), tree[-1])
    service.put_many([])


@clause(needs=(Complete,))
def a_child_that_is_missing_is_refused(service: DirectoryService) -> None:
    """`put_many` raises `MissingDirectoryError` for a child that is neither given nor there."""
    child = absent()
    parent = Directory({b"child": DirectoryNode(child, 2), b"x": FileNode(absent(), 1)})
    error = expect_raises(
        "put_many() without a child", MissingDirectoryError, lambda: service.put_many([parent])
    )
    expect("the digest in the error", error.expected, child)
    expect("has() of what was refused", service.has(parent.digest), False)


@clause(name="directory-capabilities-are-real")
def capabilities_are_real(service: DirectoryService) -> None:
    """What `capability` returns for a capability is an object of that capability, or None."""
    for kind in DIRECTORY_CAPABILITIES:
        found = service.capability(kind)
        is_one = found is None or isinstance(found, kind)
        expect_that(is_one, f"capability({kind.__name__}) to be one, or None", type(found))


@clause(needs=(DirectoryLister,))
def a_list_has_each_root_once(service: DirectoryService) -> None:
    """`list_directories` yields each root once, and nothing that is absent."""
    tree = fresh_tree()
    for _ in range(2):
        service.put_closure(tree)
    counts = Counter(capability_of(service, DirectoryLister).list_directories())
    expect("how often a root is listed", counts[tree[-1].digest], 1)
    expect("how often an absent one is listed", counts[absent()], 0)
    for digest in counts:
        expect_that(isinstance(digest, B3Digest), "list_directories() to yield B3Digests", type(digest))
    expect("missing() of what is listed", service.missing(counts), set())


@clause(needs=(DirectoryLister, AnyDirectory))
def a_list_has_all(service: DirectoryService) -> None:
    """Where any directory can be had, `list_directories` yields all of them."""
    tree = fresh_tree()
    service.put_closure(tree)
    listed = set(capability_of(service, DirectoryLister).list_directories())
    expect("those of a tree that are not listed", {each.digest for each in tree} - listed, set())
