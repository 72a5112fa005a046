"""A service that nothing can be written to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from castore import B3Digest, BlobReader, BlobService, BlobWriter, ChunkMeta, RefService, UnsupportedError
from castore.contract.blobs import Answer
from castore.contract.capabilities import BlobLister, ChunkSource, Durable, EvictionEvents
from castore.contract.directories import (
    AnyDirectory,
    Complete,
    DirectoryLister,
    DirectoryService,
    DirectoryWriter,
    KeptInBlobs,
)
from castore.format.directories import Directory
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.wrapper import SelectiveService
from castore_wrappers.read_only.refs import ReadOnlyRefService

A = TypeVar("A")

KEPT: Final = (BlobLister, ChunkSource, Durable, EvictionEvents)
"""The capabilities that change nothing. Of one that is not known it cannot be told."""


class ReadOnlyService(SelectiveService):
    """Reads from *inner*; writing raises `UnsupportedError` and never reaches it.

    It has those capabilities of *inner* that change nothing; not one that can do both.
    """

    def __init__(self, inner: BlobService, *, name: str = "read_only") -> None:
        super().__init__(inner, name=name)

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask the service within."""
        return self.inner.missing(digests)

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        """Open the blob there."""
        return self.inner.open_read(digest)

    def chunks(self, digest: B3Digest) -> Sequence[ChunkMeta] | None:
        """List the chunks there."""
        return self.inner.chunks(digest)

    def read_many(self, digests: Iterable[B3Digest]) -> Iterator[tuple[B3Digest, Answer]]:
        """Read many blobs there."""
        return self.inner.read_many(digests)

    def open_write(self) -> BlobWriter:
        """Raise `UnsupportedError`."""
        raise UnsupportedError(f"`{self.name}` is read-only: write to another service")

    def listed(self) -> Mapping[type, Callable[[], Any]]:
        """Return those of *inner* that cannot write."""
        return {**{kind: partial(self.pass_on, kind) for kind in KEPT}, RefService: self._refs}

    def _refs(self) -> RefService | None:
        refs = self.inner.capability(RefService)
        return None if refs is None else ReadOnlyRefService(refs, name=self.name)


KEPT_OF_DIRECTORIES: Final = (AnyDirectory, Complete, DirectoryLister, Durable, KeptInBlobs)
"""The capabilities of a service of directories that change nothing."""


class ReadOnlyDirectoryService(WrapperDirectoryService):
    """Reads directories from *inner*; writing raises `UnsupportedError` and never reaches it."""

    def __init__(self, inner: DirectoryService, *, name: str = "read_only") -> None:
        super().__init__(inner, name=name)

    def put_many(self, directories: Collection[Directory]) -> None:  # noqa: ARG002 - it is the same for all
        """Raise `UnsupportedError`."""
        raise self._refusal()

    def open_write(self) -> DirectoryWriter:
        """Raise `UnsupportedError`."""
        raise self._refusal()

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(f"`{self.name}` is read-only: write to another service")

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return one of *inner* that changes nothing."""
        found: Any = super().capability(kind) if kind in KEPT_OF_DIRECTORIES else None
        if kind is KeptInBlobs and found is not None:
            found = _ReadOnlyKept(found, self.name)
        answer: A | None = found
        return answer


class _ReadOnlyKept(KeptInBlobs):
    """Where directories are blobs, which nobody writes to from here."""

    def __init__(self, kept: KeptInBlobs, name: str) -> None:
        self._kept = kept
        self._services = [ReadOnlyService(each, name=name) for each in kept.blob_services]

    @property
    def blob_services(self) -> Sequence[BlobService]:
        return self._services

    @property
    def elsewhere(self) -> bool:
        return self._kept.elsewhere
