"""Directories that are handed out only when they are those that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from castore import (
    B3Digest,
    CastoreError,
    CorruptDirectoryError,
    DirectoryOrderError,
    DirectorySizeError,
    MissingDirectoryError,
)
from castore.contract.directories import FoundDirectories
from castore.format.closures import RootToLeaves
from castore.format.directories import Directory
from castore.wrapping.directories import WrapperDirectoryService

_log: Final = logging.getLogger("castore_wrappers.verify")


class VerifyDirectoryService(WrapperDirectoryService):
    """Hands out of *inner* no directory of another digest, and no tree that is not whole."""

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Return what is right, and the error of what is not; what was not asked for is left out."""
        wanted = list(dict.fromkeys(digests))
        found = super().get_many(wanted, within=within)
        return {digest: self._checked(found[digest], digest) for digest in wanted if digest in found}

    def _checked(self, found: Directory | CastoreError, digest: B3Digest) -> Directory | CastoreError:
        if isinstance(found, CastoreError) or found.digest == digest:
            return found
        message = f"directory {digest} is corrupt: the service gave {found.digest}"
        return self._reported(CorruptDirectoryError(message, expected=digest, found=found.digest))

    def wrap_closure(self, directories: Iterator[Directory], root: B3Digest) -> Iterator[Directory]:
        """Hand out each directory as soon as one before it has asked for it; end only if all have come."""
        order = RootToLeaves(root)
        for directory in directories:
            try:
                is_new = order.accept(directory)
            except (DirectoryOrderError, DirectorySizeError) as error:
                message = f"the tree {root} is corrupt: {error}"
                raise self._reported(CorruptDirectoryError(message, expected=root)) from error
            if is_new:
                yield directory
        for digest in order.pending:
            raise self._reported(MissingDirectoryError(digest))

    def _reported(self, error: CorruptDirectoryError) -> CorruptDirectoryError:
        _log.error("`%s`: %s", self.name, error)
        return error
