"""Several services of refs, of which the first that has a name says what it stands for."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from castore import CastoreError, NamedRoot, RefService, UnsupportedError
from castore.contract.refs import ANY, Expected, FoundRefs, check_name


class FallbackRefService(RefService):
    """Asks its members in order; names are set and deleted in one of them.

    One that fails is passed over for a name that another one has, and never for one that none has; a list has
    the names of all, or raises. What would stay hidden, or come to light, is refused.

    Arguments:
        members: In the order in which they are asked, each with its name.
        write_to: The name of the one that is written to; by default the first.
        name: That of the instance, for errors.
    """

    def __init__(
        self,
        members: Sequence[tuple[str, RefService]],
        *,
        write_to: str | None = None,
        name: str = "fallback",
    ) -> None:
        self._name = name
        names = [member for member, _ in members]
        self._at = 0 if write_to is None else names.index(write_to)
        self._members = list(members)
        self._target = members[self._at][1]

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all members; one that cannot be listed ends it."""
        lists = [member.names(prefix) for _, member in self._members]
        return (name for name, _ in groupby(heapq.merge(*lists)))

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return what the first that has a name says; an error if one failed, and no other has it."""
        left = dict.fromkeys(check_name(name) for name in names)
        found: FoundRefs = {}
        faults: dict[str, CastoreError] = {}
        for _, member in self._members:
            if not left:
                break
            try:
                answers = member.get_many(list(left))
            except CastoreError as error:
                answers = dict.fromkeys(left, error)
            for name, answer in answers.items():
                if isinstance(answer, CastoreError):
                    faults.setdefault(name, answer)
                else:
                    found[name] = answer
                    left.pop(name, None)
        return found | {name: error for name, error in faults.items() if name in left}

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Set a name where names are set; `UnsupportedError` for one that an earlier member has."""
        check_name(name)
        self._require_unhidden(name)
        if expect is ANY:
            return self._target.set(name, ref)
        if self._target.get(name) is None:
            # What a later member says counts as long as this one says nothing.
            shown = self._first(name, self._members[self._at + 1 :])
            if shown is not None:
                return shown[1] == expect and self._target.set(name, ref, expect=None)
        return self._target.set(name, ref, expect=expect)

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Delete a name where names are set; `UnsupportedError` for one that another member has."""
        check_name(name)
        self._require_unhidden(name)
        other = self._first(name, self._members[self._at + 1 :])
        if other is not None:
            raise UnsupportedError(
                f"`{self._name}` cannot delete the ref `{name}`: `{other[0]}` has it, which is only read;"
                " delete it there"
            )
        return self._target.delete(name, expect=expect)

    def _require_unhidden(self, name: str) -> None:
        other = self._first(name, self._members[: self._at])
        if other is not None:
            raise UnsupportedError(
                f"`{self._name}` cannot change the ref `{name}`: `{other[0]}` has it and is asked first;"
                " change it there"
            )

    @staticmethod
    def _first(name: str, members: Iterable[tuple[str, RefService]]) -> tuple[str, NamedRoot] | None:
        for member, service in members:
            found = service.get(name)
            if found is not None:
                return member, found
        return None
