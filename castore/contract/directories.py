"""The kind of services that keep directories.

No type of this kind is bundled yet, and its operations are not settled. The kind exists so that a
composition may declare its table, `directoryservices`, and be told exactly what is missing.
"""

from __future__ import annotations

from abc import ABC


class DirectoryService(ABC):  # noqa: B024 - its methods come with the first type of the kind
    """A place that keeps directories, named by the digest of their encoding."""

    def close(self) -> None:  # noqa: B027 - nothing to release is the usual case
        """Release what the service holds."""
