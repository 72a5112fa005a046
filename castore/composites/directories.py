"""The base of services of directories over several others, of which the first that has one gives it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, cast

from castore.composites.members import Found, Member, Members, periods
from castore.contract.blobs import BlobService
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
    KeptInBlobs,
    kept_in_blobs,
)
from castore.digest import B3Digest
from castore.directories.reading import closure_of
from castore.errors import CastoreError
from castore.format.directories import Directory

P = TypeVar("P")

_BATCH: Final = 64


class DirectoryMember(Member):
    """One of the services of directories; the arguments are those of `Member`."""

    def __init__(self, name: str, service: DirectoryService, **settings: Any) -> None:
        # A member asks for no more than both kinds have: `missing`, and capabilities.
        super().__init__(name, cast("BlobService", service), **settings)
        self.directories = service


class MembersDirectoryService(DirectoryService):
    """Asks *members* what they have, as they are asked in turn; subclasses say where it writes."""

    def __init__(self, members: Members, each: Sequence[DirectoryMember]) -> None:
        self._members = members
        self._each = tuple(each)
        self._by_member: Mapping[Member, DirectoryMember] = {member: member for member in each}
        self.high_latency = any(member.directories.high_latency for member in each)

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Return what the first member that has it says of each; a member is asked once for those left."""

        def ask(member: Member, rest: Collection[B3Digest]) -> FoundDirectories:
            return self._by_member[member].directories.get_many(list(rest), within=within)

        found, lacking = self._members.gather(ask, digests)
        self._watch(found)
        answer: FoundDirectories = {digest: each.value for digest, each in found.items()}
        for digest, votes in lacking.items():
            try:
                votes.decide(self._members.name, self._members.misses)
            except CastoreError as error:
                answer[digest] = error
        return answer

    def _watch(self, found: Mapping[B3Digest, Found[Directory]]) -> None:
        """Take note of what was found, and of who did not have it right."""

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that are absent; each member is asked only for what those before it lack."""
        return self._members.missing(digests)

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return a tree: level by level, or, where a member has trees by their roots alone, as one has it."""
        if self.capability(AnyDirectory) is not None:
            return closure_of(self, root)
        return self._in_turn(root)

    def _in_turn(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return the tree of the first member that has it; where that breaks the next one goes on."""

        def begin(member: Member) -> _Tree | None:
            directories = self._by_member[member].directories.closure(root)
            return None if directories is None else _Tree(member, directories)

        found = self._members.first(begin)
        return None if found is None else self._go_on(found, begin)

    def _go_on(self, found: Found[_Tree], begin: Callable[[Member], _Tree | None]) -> Iterator[Directory]:
        come: set[B3Digest] = set()
        failure: CastoreError | None = None
        others = [member for member in self._members.all if member is not found.member]
        for member in [found.member, *others]:
            try:
                tree = found.value if member is found.member else member.call(partial(begin, member))
                if tree is None:
                    continue
                while batch := tree.next_batch():
                    new = [directory for directory in batch if directory.digest not in come]
                    come |= {directory.digest for directory in new}
                    yield from new
            except CastoreError as error:
                if member.final:
                    raise
                failure = failure or error
            else:
                return
        assert failure is not None
        raise failure

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability that all members make possible."""
        answer: Any = super().capability(kind)
        if kind in {AnyDirectory, Complete}:
            answer = kind() if self._all_have(kind) else None
        elif kind is DirectoryLister and self._all_have(kind):
            answer = UnionDirectoryLister(self._each)
        elif kind is KeptInBlobs:
            answer = kept_in_blobs(member.directories for member in self._each)
        found: P | None = answer
        return found

    def _all_have(self, kind: Callable[..., Any]) -> bool:
        return all(member.directories.capability(kind) is not None for member in self._each)

    def close(self) -> None:
        """End the threads of deadlines. The services stay open."""
        self._members.close()


class _Tree:
    """A tree that comes from a member."""

    def __init__(self, member: Member, directories: Iterator[Directory]) -> None:
        self._member = member
        self._directories = directories

    def next_batch(self) -> list[Directory]:
        """Return some directories; none at the end."""
        return self._member.call(lambda: list(islice(self._directories, _BATCH)), periods=periods(_BATCH))


class UnionDirectoryLister(DirectoryLister):
    """Lists what any member has. If one of them fails so does the list, for it would be short."""

    def __init__(self, members: Sequence[DirectoryMember]) -> None:
        self._members = members

    def list_directories(self) -> Iterator[B3Digest]:
        """Yield the digest of every directory of every member, each once."""
        seen: set[B3Digest] = set()
        for member in self._members:
            lister = member.directories.capability(DirectoryLister)
            if lister is None:
                continue
            digests = member.call(lister.list_directories)
            while batch := member.call(partial(_some, digests)):
                for digest in batch:
                    if digest not in seen:
                        seen.add(digest)
                        yield digest


def _some(digests: Iterator[B3Digest]) -> list[B3Digest]:
    return list(islice(digests, 1000))
