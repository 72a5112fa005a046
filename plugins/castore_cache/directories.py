"""A near service of directories in front of a far one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from castore import B3Digest, CastoreError, MissingDirectoryError
from castore.composites.remarks import Remarks
from castore.contract.capabilities import Durable
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    FoundDirectories,
    KeptInBlobs,
    kept_in_blobs,
)
from castore.contract.operations import size_of
from castore.directories.copying import put_tree, put_with_children
from castore.directories.reading import closure_of
from castore.format.directories import Directory
from castore_cache.flights import Flight, Flights

P = TypeVar("P")

_log: Final = logging.getLogger("castore_cache")

_MOST_HELD: Final = 64 << 20
"""Trees of more bytes are not kept in near as a whole."""

Answers = dict[B3Digest, Directory | CastoreError | None]


class CacheDirectoryService(DirectoryService):
    """Asks *near* first, and *far* for what near lacks, which then stays in near; writes to far, then near.

    What stays is the directory alone, where far has any of a tree and near takes any; else the whole tree.
    What far has to give is asked for once, however many want it. A near that fails is passed over.

    Arguments:
        near: Asked first.
        far: Has what is stored.
        fill_wait: How long one waits for another that brings the same from far, in seconds.
        name: That of the instance, for errors.
    """

    def __init__(
        self, near: DirectoryService, far: DirectoryService, *, fill_wait: float = 60.0, name: str = "cache"
    ) -> None:
        self._near = near
        self._far = far
        self._name = name
        self._flights = Flights(fill_wait)
        self._remarks = Remarks(_log)
        self._near_failures = 0
        self.high_latency = far.high_latency
        self.whole_trees = near.whole_trees or far.whole_trees
        single = far.capability(AnyDirectory) is not None and near.capability(Complete) is None
        self._fills_singly = single and not near.whole_trees

    # -- reading --

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Return what near has, and the rest of what far has."""
        wanted = list(dict.fromkeys(digests))
        found = self._in_near(wanted, within)
        rest = [digest for digest in wanted if digest not in found]
        if rest:
            answers: Answers = self._flights.join_many(
                rest, lambda led: self._bring(list(led), within, led), lambda keys: self._bring(keys, within)
            )
            found |= {digest: answer for digest, answer in answers.items() if answer is not None}
        return found

    def _in_near(self, wanted: Collection[B3Digest], within: B3Digest | None) -> FoundDirectories:
        try:
            found = self._near.get_many(wanted, within=within)
        except CastoreError as error:
            self._near_failed(error)
            return {}
        for answer in found.values():
            if isinstance(answer, CastoreError):
                self._near_failed(answer)
        return {digest: answer for digest, answer in found.items() if not isinstance(answer, CastoreError)}

    def _near_failed(self, error: CastoreError) -> None:
        self._near_failures += 1
        self._remarks.warn("`%s`: near is passed over: %s", self._name, error)

    def _bring(
        self,
        wanted: list[B3Digest],
        within: B3Digest | None,
        led: Mapping[B3Digest, Flight[Directory | CastoreError | None]] | None = None,
    ) -> Answers:
        """Return what far has of some directories, and keep it in near.

        An error is for who has asked, and not for those who wait for it.
        """
        # Somebody may have brought it since near was asked.
        here = self._in_near(wanted, within) if led is not None and self._flights.landed else {}
        rest = [digest for digest in wanted if digest not in here]
        if not rest:
            found: FoundDirectories = {}
        elif self._fills_singly:
            found = self._far.get_many(rest, within=within)
            self._keep([each for each in found.values() if isinstance(each, Directory)])
        else:
            found = self._bring_trees(rest, within)
        answers: Answers = {digest: here.get(digest, found.get(digest)) for digest in wanted}
        for digest, flight in (led or {}).items():
            if not isinstance(answers[digest], CastoreError):
                flight.give(answers[digest])
        return answers

    def _bring_trees(self, wanted: Iterable[B3Digest], within: B3Digest | None) -> FoundDirectories:
        found: FoundDirectories = {}
        rest = dict.fromkeys(wanted)
        for root in [*([] if within is None or within in rest else [within]), *rest]:
            if root in found or (root is within and not rest):
                continue
            try:
                tree = self._far.closure(root)
                for directory in self._kept(tree) if tree is not None else ():
                    if directory.digest in rest:
                        found[directory.digest] = directory
            except CastoreError as error:
                if root in rest and root not in found:
                    found[root] = error
        # What is within trees that far has only by their roots.
        lacking = [digest for digest in rest if digest not in found]
        return found | self._far.get_many(lacking, within=within) if lacking else found

    def _kept(self, tree: Iterator[Directory]) -> Iterator[Directory]:
        """Yield a tree from far; in the end it is kept in near, if it is not too large."""
        held: list[Directory] = []
        size = 0
        for directory in tree:
            size += size_of(directory)
            if size <= _MOST_HELD:
                held.append(directory)
            else:
                held.clear()
            yield directory
        if held:
            try:
                put_tree(held, self._near)
            except CastoreError as error:
                self._near_failed(error)

    def _keep(self, directories: Collection[Directory]) -> None:
        if directories:
            try:
                self._near.put_many(directories)
            except CastoreError as error:
                self._near_failed(error)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Return those that neither has."""
        wanted = set(digests)
        try:
            rest = self._near.missing(wanted)
        except CastoreError as error:
            self._near_failed(error)
            rest = wanted
        return self._far.missing(rest) if rest else set()

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return a tree: level by level, or as near or far has it as a whole."""
        if self._fills_singly:
            return closure_of(self, root)
        try:
            near = self._near.closure(root)
        except CastoreError as error:
            self._near_failed(error)
            near = None
        if near is not None:
            return self._go_on(root, near)
        far = self._far.closure(root)
        return None if far is None else self._kept(far)

    def _go_on(self, root: B3Digest, near: Iterator[Directory]) -> Iterator[Directory]:
        """Yield a tree that near has; where that breaks far goes on."""
        come: set[B3Digest] = set()
        try:
            for directory in near:
                come.add(directory.digest)
                yield directory
        except CastoreError as error:
            self._near_failed(error)
        else:
            return
        far = self._far.closure(root)
        if far is None:
            raise MissingDirectoryError(root)
        for directory in self._kept(far):
            if directory.digest not in come:
                yield directory

    # -- writing --

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them at far, and then at near; that near fails is no error."""
        given = list(directories)
        put_with_children(given, self, self._far)
        try:
            if self._fills_singly:
                self._near.put_many(given)
            else:
                put_with_children(given, self._far, self._near)
        except CastoreError as error:
            self._near_failed(error)

    def gauges(self) -> Mapping[str, float]:
        """Return how often near has failed."""
        return {"near_failures": self._near_failures}

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability: that of far, which has what is stored; a tree is whole if both say so."""
        answer: Any = None
        if kind is AnyDirectory and self._far.capability(AnyDirectory) is not None:
            answer = AnyDirectory()
        elif kind is Complete and all(each.capability(Complete) for each in (self._near, self._far)):
            answer = Complete()
        elif kind in {Durable, DirectoryLister}:
            answer = self._far.capability(kind)
        elif kind is KeptInBlobs:
            answer = kept_in_blobs((self._far, self._near))
        else:
            answer = None if kind in {AnyDirectory, Complete} else super().capability(kind)
        found: P | None = answer
        return found
