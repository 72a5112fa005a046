"""Several services of directories, of which the first that has one gives it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from castore.composites.directories import DirectoryMember, MembersDirectoryService
from castore.composites.members import Members, periods
from castore.contract.capabilities import Durable
from castore.directories.copying import put_with_children
from castore.format.directories import Directory

P = TypeVar("P")


class FallbackDirectoryService(MembersDirectoryService):
    """Asks its members in order, as `FallbackBlobService` does; new trees go to one of them.

    What a new tree needs and that one lacks is copied there from the others: so each tree that is written is
    there as a whole.

    Arguments:
        members: In the order in which they are asked.
        write_to: The name of the one that takes new trees; by default the first.
        name: That of the instance, for errors.
    """

    def __init__(
        self, members: Sequence[DirectoryMember], *, write_to: str | None = None, name: str = "fallback"
    ) -> None:
        super().__init__(Members(name, members), members)
        by_name = {member.name: member for member in members}
        self._target = members[0] if write_to is None else by_name[write_to]
        self.whole_trees = self._target.directories.whole_trees

    def put_many(self, directories: Collection[Directory]) -> None:
        """Put them where new trees go."""
        put = partial(put_with_children, list(directories), self, self._target.directories)
        self._target.call(put, periods=periods(len(directories)))

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return a capability; how long a tree lasts the one says that takes it."""
        if kind is Durable:
            found: Any = self._target.directories.capability(Durable)
            durable: P | None = found
            return durable
        return super().capability(kind)
