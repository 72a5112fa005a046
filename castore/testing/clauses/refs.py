"""A name stands for the root that it was set to last, and of those who compare only one is first."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

import datetime
import os

from castore.contract.refs import NamedRoot, RefService
from castore.digest import EMPTY, B3Digest
from castore.errors import InvalidRefError
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, SymlinkTarget
from castore.testing.clause import Chapter
from castore.testing.expecting import expect, expect_raises, expect_that, fresh, in_threads

chapter = Chapter()
clause = chapter.clause

_THREADS = 4
_TURNS = 5


def _fresh_name() -> str:
    return f"contract-{os.urandom(8).hex()}"


def _fresh_ref(comment: str = "") -> NamedRoot:
    data = fresh()
    return NamedRoot(FileNode(B3Digest.of(data), len(data)), comment=comment)


@clause()
def absent_refs(service: RefService) -> None:
    """A name that was never set stands for nothing, by each way to ask for it."""
    name, other = _fresh_name(), _fresh_name()
    expect("get() of an absent ref", service.get(name), None)
    expect("get_many() of absent refs", service.get_many([name, other]), {})
    expect("names() below an absent ref", list(service.names(name)), [])
    expect("list() below an absent ref", list(service.list(name)), [])
    expect("delete() of an absent ref", service.delete(name), False)
    expect("delete() of an absent ref, which is expected", service.delete(name, expect=_fresh_ref()), False)


@clause()
def set_then_get(service: RefService) -> None:
    """What a name is set to comes back with its time, comment, metadata and source, whatever the root is."""
    nodes: list[Node] = [
        DirectoryNode(EMPTY, 0),
        FileNode(B3Digest.of(fresh()), 64, executable=True),
        SymlinkNode(SymlinkTarget(b"a\xff")),
    ]
    time = datetime.datetime(2026, 11, 30, 14, 5, 6, 7, tzinfo=datetime.UTC)
    for node in nodes:
        name = _fresh_name()
        ref = NamedRoot(node, time, "a comment\n\N{SNOWMAN} \udcff", B3Digest.of(b"m"), "/home/\udcff")
        expect("set() of a new name", service.set(name, ref), True)
        expect("get() of what was set", service.get(name), ref)
        expect("get_many() of what was set", service.get_many([name]), {name: ref})
        expect("list() of what was set", list(service.list(name)), [(name, ref)])


@clause()
def set_anew(service: RefService) -> None:
    """A name that is set again stands for the new root alone."""
    name, first, second = _fresh_name(), _fresh_ref(), _fresh_ref()
    service.set(name, first)
    expect("set() of a name that is there", service.set(name, second), True)
    expect("get() after that", service.get(name), second)
    expect("names() after that", list(service.names(name)), [name])


@clause()
def delete_a_ref(service: RefService) -> None:
    """A name that was deleted stands for nothing, and can be set anew."""
    name, ref = _fresh_name(), _fresh_ref()
    service.set(name, ref)
    expect("delete()", service.delete(name), True)
    expect("get() after that", service.get(name), None)
    expect("delete() again", service.delete(name), False)
    expect("set() as a new name", service.set(name, ref, expect=None), True)


@clause()
def names_in_order(service: RefService) -> None:
    """`names` and `list` have what is a prefix or below it, each name once, in order."""
    top = _fresh_name()
    below = [f"{top}/b", f"{top}/a/c", f"{top}/a", f"{top}-x", f"{top}.d", top, f"{top}/Z"]
    for name in below:
        service.set(name, _fresh_ref(name))
    expect("names() of a name", list(service.names(top)), sorted([top, *below[:3], below[6]]))
    inner = sorted([*below[:3], below[6]])
    expect("names() below a name", list(service.names(f"{top}/")), inner)
    expect("names() below another", list(service.names(f"{top}/a/")), [f"{top}/a/c"])
    expect("list() below a name", [(name, ref.comment) for name, ref in service.list(f"{top}/")],
           [(name, name) for name in inner])  # fmt: skip
    every = list(service.names())
    expect_that(every == sorted(set(every)), "all names() in order, each once", every)
    expect_that(set(below) <= set(every), "all names() to have what was set", set(below) - set(every))


@clause()
def a_name_that_must_be_new(service: RefService) -> None:
    """`expect=None` sets a name that is absent, and changes none that is there."""
    name, first, second = _fresh_name(), _fresh_ref(), _fresh_ref()
    expect("set(expect=None) of a new name", service.set(name, first, expect=None), True)
    expect("set(expect=None) of one that is there", service.set(name, second, expect=None), False)
    expect("set(expect=None) of the same", service.set(name, first, expect=None), False)
    expect("delete(expect=None) of one that is there", service.delete(name, expect=None), False)
    expect("get() after that", service.get(name), first)


@clause()
def a_name_that_must_still_be_that(service: RefService) -> None:
    """`expect` of a root changes a name only if it stands for exactly that."""
    name, first, second, third = _fresh_name(), _fresh_ref(), _fresh_ref(), _fresh_ref()
    expect("set() of an absent name that is expected", service.set(name, second, expect=first), False)
    expect("get() after that", service.get(name), None)
    service.set(name, first)
    expect("set() with another expected", service.set(name, third, expect=second), False)
    expect("delete() with another expected", service.delete(name, expect=second), False)
    expect("get() after that", service.get(name), first)
    expect("set() with it expected", service.set(name, second, expect=first), True)
    expect("get() after that", service.get(name), second)
    expect("delete() with it expected", service.delete(name, expect=second), True)
    expect("get() after that", service.get(name), None)


@clause()
def names_that_cannot_be(service: RefService) -> None:
    """What can be no name raises `InvalidRefError`, and reaches nothing."""
    ref = _fresh_ref()
    for name in ("", "/a", "a//b", "..", "a/../b", ".hidden", "a b", "a:b", "a\0", "deadbeef", "n" * 241):
        expect_raises(f"get({name!r})", InvalidRefError, lambda name=name: service.get(name))  # type: ignore[misc]
        expect_raises(f"set({name!r})", InvalidRefError, lambda name=name: service.set(name, ref))  # type: ignore[misc]
        expect_raises(f"delete({name!r})", InvalidRefError, lambda name=name: service.delete(name))  # type: ignore[misc]


@clause()
def one_of_those_at_once(service: RefService) -> None:
    """Of those who change a name at once, each comparing, each change is made upon the last."""
    name = _fresh_name()
    service.set(name, NamedRoot(FileNode(EMPTY, 0)))

    def count(_: int) -> None:
        for _ in range(_TURNS):
            while True:
                now = service.get(name)
                if now is None or not isinstance(now.node, FileNode):
                    return
                if service.set(name, NamedRoot(FileNode(EMPTY, now.node.size + 1)), expect=now):
                    break

    in_threads(_THREADS, count)
    found = service.get(name)
    expect("what was counted", found and found.node, FileNode(EMPTY, _THREADS * _TURNS))
