"""A service whose every operation has one fixed outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    ChunkMeta,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)


class StubService(BlobService):
    """Says the same of every blob.

    ==============  ======================  ======================  ====================
    outcome         `has`                   `chunks`, `open_read`   `open_write`
    ==============  ======================  ======================  ====================
    `unavailable`   `UnavailableError`      `UnavailableError`      `UnavailableError`
    `absent`        False                   `None`                  `UnsupportedError`
    `corrupt`       True                    `CorruptBlobError`      `UnsupportedError`
    ==============  ======================  ======================  ====================

    It has no capabilities. What it took it would lose, so where it is not unavailable it takes nothing.
    """

    def __init__(
        self,
        outcome: Literal["unavailable", "absent", "corrupt"] = "unavailable",
        *,
        name: str = "error",
    ) -> None:
        self._outcome = outcome
        self._name = name

    def has(self, digest: B3Digest) -> bool:  # noqa: ARG002 - it is the same for all
        """Tell that a blob is there only if it is to be found damaged."""
        self._require_available()
        return self._outcome == "corrupt"

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Find the blob absent, or raise."""
        self._find_nothing(digest)
        return None

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """Find the blob absent, or raise."""
        self._find_nothing(digest)
        return None

    def open_write(self) -> BlobWriter:
        """Raise."""
        self._require_available()
        raise UnsupportedError(f"`{self._name}` keeps nothing: it rehearses what is {self._outcome}")

    def _find_nothing(self, digest: B3Digest) -> None:
        self._require_available()
        if self._outcome == "corrupt":
            raise CorruptBlobError(
                f"blob {digest} is corrupt: `{self._name}` rehearses that", expected=digest
            )

    def _require_available(self) -> None:
        if self._outcome == "unavailable":
            raise UnavailableError(self._name, "it rehearses that")
