"""What a child of a fork begins anew.

A child has all the memory of its parent and a single thread. What the other threads were at stays half done
for ever: a lock that one of them had is never given back, a call that one of them made never returns, and a
thread that is counted on is not there. What the parent has open the child has open, too: to use a connection,
or to remove a file that the parent counts on, would hurt the parent. `multiprocessing` forks by default on
Linux before Python 3.14, and so do many servers.

So whatever is shared between threads, or belongs to the process, is made known here:

- a lock is made by `new_lock`, and is free in a child;
- a locked file is opened by `open_for_parent`, so that a child does not keep it locked after its parent;
- an object with threads, calls under way, connections or promises has a method `begin_anew`, and is given to
  `begin_anew_in_child`;
- what a library must not carry over has a method `let_go`, and is given to `let_go_before_fork`;
- what belongs to the process that has made it remembers `generation`, and compares it before it goes on;
- what must not be half done in a child, as calls of a library that has locks of its own, is done in a block
  of `held_off`, for the end of which a fork waits;
- where such a library stops its own threads before a fork, `come_before_others` lets castore be first.

In a child all locks come first, then the files, then the objects in the order in which they were made known.
What other libraries do in a child may come before: the first who enters a block of `held_off` begins anew.
Nothing is kept alive by being known. The sets are changed by single steps of the interpreter, so a fork, an
interrupt or a collection of garbage finds them whole.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar

L = TypeVar("L")
F = TypeVar("F", bound="Closable")


class BeginsAnew(Protocol):
    """What is not as it was in a child of a fork."""

    def begin_anew(self) -> object:
        """Forget what the other process is at, without touching it; called in the child, before all else."""


class LetsGo(Protocol):
    """What has open what must not be carried over a fork."""

    def let_go(self) -> object:
        """Close it, in the parent; it is opened again when it is needed. Waits for nobody."""


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> object:
        """Let go of it; the process that has opened it keeps it."""


_locks: Final[set[weakref.ref[Any]]] = set()
_files: Final[set[weakref.ref[Any]]] = set()
_owners: Final[dict[weakref.ref[Any], None]] = {}
_holders: Final[dict[weakref.ref[Any], None]] = {}
_LONGEST: Final = 5.0
_PAUSE: Final = 0.001
"""In seconds."""
_forks = 0
_begun = 0
"""The process that has begun anew last."""


def new_lock() -> threading.Lock:
    """Return a lock that is free in a child of a fork, whoever has it in the parent.

    Enter it by itself (`with lock:`), never by way of a condition: an interrupt then finds it either not
    entered, or entered by a block that leaves it.
    """
    return free_in_child(threading.Lock())


def free_in_child(lock: L) -> L:
    """Have a lock of another kind free in a child as well; returns it."""
    _locks.add(weakref.ref(lock, _locks.discard))
    return lock


def open_for_parent(open_file: Callable[[], F]) -> F:
    """Return what *open_file* opens, and have that closed in each child.

    A lock on it would last as long as any process has it open. No fork comes between the opening and the
    taking note of it.
    """
    with held_off():
        file = open_file()
        _files.add(weakref.ref(file, _files.discard))
    return file


def begin_anew_in_child(owner: BeginsAnew) -> None:
    """Have *owner* begin anew in each child that is forked while it exists."""
    _owners[weakref.ref(owner, _owners.pop)] = None


def let_go_before_fork(owner: LetsGo) -> None:
    """Have *owner* let go before each fork, when nobody is in a block of `held_off` any more."""
    _holders[weakref.ref(owner, _holders.pop)] = None


def come_before_others() -> None:
    """Let what castore does before a fork come before what others do, who were loaded up to now.

    Whoever comes last is called first. A library that stops its threads answers no call any more, and closes
    no connection.
    """
    os.register_at_fork(before=_gate.hold_still)


def generation() -> int:
    """Return how many forks lie between the first process and this one."""
    return _forks


class _Gate:
    """Who is in a block that no fork may come in between of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: dict[int, int] = {}
        self._forking: set[int] = set()
        """The threads that do."""
        self._process = 0
        """The one that forks."""

    def __enter__(self) -> None:
        if self._forking and os.getpid() != self._process:
            # In a child, in what another library does there, and does before: nobody would ever go on here.
            _begin_anew()
        me = threading.get_ident()
        while True:
            with self._lock:
                # Who is inside already goes on: the fork waits for that.
                if not self._forking or me in self._inside:
                    self._inside[me] = self._inside.get(me, 0) + 1
                    return
            time.sleep(_PAUSE)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with self._lock:
            left = self._inside.pop(me, 0) - 1
            if left > 0:
                self._inside[me] = left

    def hold_still(self) -> None:
        """Let nobody enter, and wait until all others have left; not for ever, as one of them may hang."""
        ends = time.monotonic() + _LONGEST
        me = threading.get_ident()
        with self._lock:
            if me in self._forking:
                return  # It was called first as well.
            self._process = os.getpid()
            self._forking.add(me)
        while self._inside.keys() - {me} and time.monotonic() < ends:
            time.sleep(_PAUSE)
        for owner in _alive(_holders):
            owner.let_go()

    def go_on(self) -> None:
        """Let others enter again, in the parent."""
        with self._lock:
            self._forking.discard(threading.get_ident())

    def begin_anew(self) -> None:
        """Have nobody else inside, in the child."""
        me = threading.get_ident()
        self._lock = threading.Lock()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._forking = set()


_gate: Final = _Gate()


def held_off() -> AbstractContextManager[None]:
    """Return a context that a fork by another thread waits for, some seconds at most; it may be nested.

    Enter it before any lock or turn that is waited for inside of other such blocks.
    """
    return _gate


def _begin_anew() -> None:
    global _forks, _begun  # noqa: PLW0603 - there is one process
    if _begun == os.getpid():
        return
    _begun = os.getpid()
    _forks += 1
    _gate.begin_anew()
    for lock in _alive(_locks):
        # The way of Python's own modules: only a lock that nobody waits for can be made anew in its place.
        lock._at_fork_reinit()  # noqa: SLF001 - as above
    for file in _alive(_files):
        with contextlib.suppress(OSError):
            file.close()
    _files.clear()
    for owner in _alive(_owners):
        owner.begin_anew()


def _alive(references: set[weakref.ref[Any]] | dict[weakref.ref[Any], None]) -> list[Any]:
    return [thing for reference in list(references) if (thing := reference()) is not None]


os.register_at_fork(before=_gate.hold_still, after_in_parent=_gate.go_on, after_in_child=_begin_anew)
