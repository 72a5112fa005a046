"""Refs in a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from castore.contract.refs import ANY, Expected, FoundRefs, NamedRoot, RefService, check_name, is_below
from castore.format import refs as written
from castore.threads import forks


class MemoryRefService(RefService):
    """Keeps refs in memory."""

    def __init__(self) -> None:
        self._refs: dict[str, NamedRoot] = {}
        self._lock = forks.new_lock()

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names."""
        with self._lock:
            return iter(sorted(name for name in self._refs if is_below(name, prefix)))

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return those that are there."""
        wanted = [check_name(name) for name in names]
        with self._lock:
            return {name: self._refs[name] for name in wanted if name in self._refs}

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Let a name stand for a root."""
        check_name(name)
        written.encode(ref)  # One that is too long is so everywhere.
        with self._lock:
            if expect is not ANY and self._refs.get(name) != expect:
                return False
            self._refs[name] = ref
            return True

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Forget a name."""
        check_name(name)
        with self._lock:
            found = self._refs.get(name)
            if found is None or expect not in (ANY, found):
                return False
            del self._refs[name]
            return True
