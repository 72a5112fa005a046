"""What castore asks of an object store: whole objects under keys, and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator


class ObjectStore(ABC):
    """Objects of bytes under keys such as `chunks/b3/af13/af13...`, used by many threads at once.

    A key that is not there is `None` or `False`; everything else that goes wrong raises
    `UnavailableError`, or `UnsupportedError` for what the store can never do.
    """

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return a whole object, `None` if it is absent."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Tell whether there is an object."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Store an object, replacing what was there; readers see the old one or the new one, whole."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with *prefix*, which ends in `/`, in no particular order."""

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release connections."""
