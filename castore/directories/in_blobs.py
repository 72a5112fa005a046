"""Directories in a service of blobs.

The digest of a directory is that of its encoding, and so that of a blob. Hence every stack of blob services
serves directories at once, any of them can be had by itself, and those that two trees share are stored once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from castore.chunks.storing import store_each
from castore.contract.blobs import BlobReader, BlobService
from castore.contract.directories import AnyDirectory, DirectoryService, FoundDirectories, KeptInBlobs
from castore.digest import EMPTY, B3Digest
from castore.errors import CastoreError, CorruptDirectoryError
from castore.format.closures import MOST_FRAME
from castore.format.directories import Directory, decode_checked


class BlobsDirectoryService(DirectoryService, AnyDirectory, KeptInBlobs):
    """Keeps each directory as a blob of *blobs*, which whoever made it closes.

    The empty directory is always there. That a directory is there says nothing of those below it, as blobs
    are put and collected one by one.
    """

    def __init__(self, blobs: BlobService) -> None:
        self.blobs = blobs
        self.high_latency = blobs.high_latency

    @property
    def blob_services(self) -> Sequence[BlobService]:
        """The one that keeps them."""
        return (self.blobs,)

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:  # noqa: ARG002 - any blob can be had by itself
        """Read the blobs, in requests as few as the service can."""
        wanted = set(digests)
        found: FoundDirectories = {EMPTY: Directory()} if EMPTY in wanted else {}
        for digest, answer in self.blobs.read_many(wanted - {EMPTY}):
            if answer is not None:
                found[digest] = _directory_of(digest, answer)
        return found

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask for the blobs."""
        return self.blobs.missing(set(digests) - {EMPTY})

    def put_many(self, directories: Collection[Directory]) -> None:
        """Store the blobs, together."""
        store_each(self.blobs, {each.digest: each.encoded for each in directories if each})


def _directory_of(digest: B3Digest, answer: bytes | BlobReader | CastoreError) -> Directory | CastoreError:
    if isinstance(answer, CastoreError):
        return answer
    try:
        if isinstance(answer, BlobReader):
            if answer.size > MOST_FRAME:
                message = f"{digest} is no directory: the blob has {answer.size} bytes"
                return CorruptDirectoryError(message, expected=digest, found=digest)
            answer = answer.read()
        return decode_checked(answer, digest)
    except CastoreError as error:
        return error
