"""A service whose every operation has one fixed outcome."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from castore import (
    B3Digest,
    BlobReader,
    BlobService,
    BlobWriter,
    ChunkMeta,
    CorruptBlobError,
    CorruptDirectoryError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.directories import DirectoryService, DirectoryWriter, FoundDirectories
from castore.format.directories import Directory


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


class StubDirectoryService(DirectoryService):
    """Says the same of every directory; what it took it would lose, so it takes nothing.

    It has no capabilities.
    """

    def __init__(
        self,
        outcome: Literal["unavailable", "absent", "corrupt"] = "unavailable",
        *,
        name: str = "error",
    ) -> None:
        self._outcome = outcome
        self._name = name

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - it is the same for all
        """Find all of them absent, or corrupt, or raise."""
        self._require_available()
        if self._outcome == "absent":
            return {}
        return {
            digest: CorruptDirectoryError(
                f"directory {digest} is corrupt: `{self._name}` rehearses that", expected=digest
            )
            for digest in digests
        }

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Tell that they are there only if they are to be found damaged."""
        self._require_available()
        return set(digests) if self._outcome == "absent" else set()

    def put_many(self, directories: Collection[Directory]) -> None:  # noqa: ARG002 - as above
        """Raise."""
        self._require_available()
        raise UnsupportedError(f"`{self._name}` keeps nothing: it rehearses what is {self._outcome}")

    def open_write(self) -> DirectoryWriter:
        """Raise."""
        self.put_many(())
        raise AssertionError

    def _require_available(self) -> None:
        if self._outcome == "unavailable":
            raise UnavailableError(self._name, "it rehearses that")
