"""Refs that nobody can set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from castore import NamedRoot, RefService, UnsupportedError
from castore.contract.refs import ANY, Expected, FoundRefs


class ReadOnlyRefService(RefService):
    """Reads from *inner*; setting and deleting raise `UnsupportedError` and never reach it."""

    def __init__(self, inner: RefService, *, name: str = "read_only") -> None:
        self.inner = inner
        self.name = name

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names there."""
        return self.inner.names(prefix)

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return the refs there."""
        return self.inner.get_many(names)

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:  # noqa: ARG002 - it is refused
        """Raise `UnsupportedError`."""
        raise self._refused(name)

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:  # noqa: ARG002 - as above
        """Raise `UnsupportedError`."""
        raise self._refused(name)

    def _refused(self, name: str) -> UnsupportedError:
        return UnsupportedError(f"`{self.name}` is read-only: set the ref `{name}` in another service")
