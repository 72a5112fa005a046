"""What a verification is about, and what it finds."""

from __future__ import annotations

from typing import Final, Literal

import attrs
from blake3 import blake3

from castore.contract.upkeep import StoredItem
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, describe
from castore.format.nodes import TreePath

UNAVAILABLE: Final = "unavailable"
"""The code of what could not be read: it may be right."""

MISSING_INDEX: Final = "missing-index"
"""The code of a blob that was to be there, and is there only as a chunk."""

WRONG_SIZE: Final = "wrong-size"
"""The code of an entry of a directory that says another size than its file or directory has."""

MISSING_BLOB: Final = "missing-blob"
"""The code of a file of a tree whose blob is absent."""

_WHOLE: Final = 1 << 64


@attrs.frozen
class Finding:
    """One thing that is wrong.

    Attributes:
        what: `chunk`: its bytes are not what its name says, or it is missing though a blob needs it.
            `index`: the list of a blob's chunks is wrong. `blob`: a blob cannot be read, because of another
            finding; where a service does not show its chunks and indexes, because of itself. `directory`,
            `file` and `metadata`: what is wrong with one of a tree.
        digest: That of the chunk, of the blob, or of the directory.
        code: Of the error that a reader meets, such as `missing-chunk`; or `missing-index` for a blob that
            was to be there and is there only as a chunk; of trees also `missing-blob` and `wrong-size`.
        message: In words.
        key: Where it is stored, if that is known.
        blob: Of a chunk: the blob that was being checked.
        chunk: Of a blob: the chunk for want of which it cannot be read.
        root: Of a tree: which one it is, as it was named.
        path: Where in that tree it is.
    """

    what: Literal["chunk", "index", "blob", "directory", "file", "metadata"]
    digest: B3Digest
    code: str
    message: str
    key: str | None = None
    blob: B3Digest | None = None
    chunk: B3Digest | None = None
    root: str | None = None
    path: TreePath | None = None


def finding_of(
    what: Literal["chunk", "index", "blob"],
    digest: B3Digest,
    error: CastoreError,
    *,
    key: str | None = None,
    blob: B3Digest | None = None,
    chunk: B3Digest | None = None,
) -> Finding:
    """Return the finding that an error means."""
    place = error.key if isinstance(error, CorruptBlobError) else None
    return Finding(what, digest, error.code, describe(error), key or place, blob, chunk)


@attrs.frozen
class Scope:
    """Which of the items of a service are checked.

    Attributes:
        sample: The share of them, up to 1 for all.
        seed: Decides which ones; the same ones each time for the same seed.
        since: Only those that were put or claimed after this, in seconds since 1970; and those whose time
            the service does not tell.
    """

    sample: float = 1.0
    seed: int = 0
    since: float | None = None

    def takes(self, digest: B3Digest, modified: float | None) -> bool:
        """Tell whether an item is to be checked."""
        if self.since is not None and modified is not None and modified < self.since:
            return False
        if self.sample >= 1:
            return True
        place = blake3(digest + self.seed.to_bytes(8, "big")).digest(length=8)
        return int.from_bytes(place, "big") < self.sample * _WHOLE


@attrs.define
class Counts:
    """How much was checked: blobs from start to end, different chunks, bytes that were read for it.

    `skipped` more blobs and chunks were found right by the run that this one resumes.
    """

    blobs: int = 0
    chunks: int = 0
    bytes: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return how much both are together."""
        both = zip(attrs.astuple(self), attrs.astuple(other), strict=True)
        return Counts(*(mine + its for mine, its in both))


@attrs.frozen
class Report:
    """What came of a verification: `findings` is empty if all is well. Residue is not amiss."""

    findings: list[Finding]
    residue: list[StoredItem]
    tally: Counts

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings
