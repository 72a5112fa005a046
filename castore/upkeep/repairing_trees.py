"""Repair of trees: directories and blobs that are missing or damaged are fetched from elsewhere.

Blobs come first, then directories, from the leaves to the root: so none is there before what it names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import attrs

from castore.contract.blobs import BlobReader, BlobService, BlobWriter
from castore.contract.directories import DirectoryService, only_blob_service
from castore.digest import B3Digest
from castore.directories.copying import leaves_first
from castore.directories.reading import level_by_level
from castore.errors import CastoreError, MissingDirectoryError, UnsupportedError, describe
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from castore.streams.readers import BytesReader
from castore.upkeep.findings import MISSING_BLOB, UNAVAILABLE, WRONG_SIZE, Finding, finding_of
from castore.upkeep.reading import Attempts
from castore.upkeep.repairing import Mending, repair


@attrs.frozen
class TreeDonor:
    """Where what is wrong with trees is fetched from.

    Attributes:
        name: What to call it in messages.
        blobs: It has blobs; nothing of it is believed without a check.
        directories: Those that `TreeVerification.donated` has.
    """

    name: str
    blobs: BlobService
    directories: Mapping[B3Digest, Directory]


def repair_trees(
    directories: DirectoryService,
    blobs: BlobService,
    findings: Sequence[Finding],
    donor: TreeDonor,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> Iterator[Mending]:
    """Mend what a verification of trees has found; yield what became of each finding.

    Arguments:
        directories: Where directories are to be right.
        blobs: Where files are to be; as for `repair`, else `UnsupportedError` is raised.
        findings: As `TreeVerification.run` yields them.
        donor: What they are mended with.
        progress: Called with the number of bytes that were fetched since the last call.
    """
    outcomes = _mend_blobs(blobs, findings, donor, progress)
    outcomes |= _mend_directories(directories, findings, donor)
    for finding in findings:
        kind = "directory" if finding.what == "directory" else "blob"
        if finding.code == WRONG_SIZE:
            yield Mending(finding, False, "the tree itself says so, wherever it is")
        elif finding.code == UNAVAILABLE:
            yield Mending(finding, False, "it may be right: it could not be read")
        else:
            yield attrs.evolve(outcomes[kind, finding.digest], finding=finding)


def _amiss(findings: Sequence[Finding], *, directories: bool) -> dict[B3Digest, Finding]:
    """Return what can be mended, once for each digest."""
    return {
        finding.digest: finding
        for finding in findings
        if (finding.what == "directory") is directories and finding.code not in (WRONG_SIZE, UNAVAILABLE)
    }


def _mend_blobs(
    blobs: BlobService, findings: Sequence[Finding], donor: TreeDonor, progress: Callable[[int], object]
) -> dict[tuple[str, B3Digest], Mending]:
    amiss = _amiss(findings, directories=False).values()
    mended = _mend_as_blobs(blobs, donor.blobs, amiss, donor.name, progress)
    return {("blob", digest): mending for digest, mending in mended.items()}


def _mend_as_blobs(
    blobs: BlobService,
    source: BlobService,
    amiss: Collection[Finding],
    name: str,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[B3Digest, Mending]:
    """Mend blobs, and the chunks of them that are damaged; return what became of each blob."""
    if not amiss:
        return {}
    attempt = Attempts(blobs)
    chunks: dict[B3Digest, Finding] = {}
    for finding in amiss:
        if finding.code not in (MISSING_BLOB, MissingDirectoryError.code):
            chunks |= _damaged_chunks(attempt, finding.digest)
    wanted = [Finding("blob", finding.digest, finding.code, finding.message) for finding in amiss]
    mendings = list(repair(blobs, source, [*chunks.values(), *wanted], name=name, progress=progress))
    fetched = {each.finding.blob: each for each in mendings if each.finding.what == "chunk" and each.mended}
    return {
        each.finding.digest: _because(each, fetched.get(each.finding.digest))
        for each in mendings
        if each.finding.what == "blob"
    }


def _because(mending: Mending, chunk: Mending | None) -> Mending:
    """Return what became of a blob, with how: it is right again because a chunk of it was replaced."""
    if chunk is None or not mending.mended:
        return mending
    return attrs.evolve(mending, message=chunk.message, quarantine=chunk.quarantine)


def _damaged_chunks(attempt: Attempts, blob: B3Digest) -> dict[B3Digest, Finding]:
    index = attempt.index(blob)
    chunks = None if isinstance(index, CastoreError) else index
    portions = attempt.in_order(chunks) if chunks else [[(None, attempt.chunks({blob: None}).get(blob))]]
    return {
        digest: finding_of("chunk", digest, data, blob=blob)
        for portion in portions
        for meta, data in portion
        if isinstance(data, CastoreError)
        for digest in (blob if meta is None else meta.digest,)
    }


def _mend_directories(
    directories: DirectoryService, findings: Sequence[Finding], donor: TreeDonor
) -> dict[tuple[str, B3Digest], Mending]:
    amiss = _amiss(findings, directories=True)
    given = {digest: donor.directories[digest] for digest in amiss if digest in donor.directories}
    outcomes = {
        ("directory", digest): Mending(finding, False, f"{donor.name} does not have it")
        for digest, finding in amiss.items()
        if digest not in given
    }
    ordered = [amiss[directory.digest] for directory in leaves_first(given.values())]
    kept_in = only_blob_service(directories)
    if kept_in is not None:
        # Each is a blob, and is mended as such: what is damaged is set aside.
        mended = _mend_as_blobs(kept_in, _Directories(given), ordered, donor.name)
        return outcomes | {("directory", digest): mending for digest, mending in mended.items()}
    reason = _put(directories, given)
    for finding in ordered:
        message = reason or f"fetched from {donor.name}"
        outcomes["directory", finding.digest] = Mending(finding, not reason, message)
    return outcomes


def _put(directories: DirectoryService, given: Mapping[B3Digest, Directory]) -> str:
    """Put directories, from the leaves to the root; return why that did not go, or came to nothing."""
    inner = {node.digest for directory in given.values() for _, node in directory.directories}
    tops = given.keys() - inner
    try:
        if directories.whole_trees:
            for root in tops:
                directories.put_many(list(leaves_first(_whole(directories, root, given).values())))
        elif given:
            directories.put_many(list(leaves_first(given.values())))
    except CastoreError as error:
        return describe(error)
    try:
        for root in tops:
            deque(directories.closure(root) or (), maxlen=0)
        absent = directories.missing(tops)
    except CastoreError as error:
        return f"it is still not right after it was put: {describe(error)}"
    return "it is still not there after it was put" if absent else ""


def _whole(
    directories: DirectoryService, root: B3Digest, given: Mapping[B3Digest, Directory]
) -> dict[B3Digest, Directory]:
    """Return all directories of a tree, those that were given and those that are there."""

    def get_many(digests: list[B3Digest]) -> dict[B3Digest, Directory | CastoreError]:
        found: dict[B3Digest, Directory | CastoreError] = {
            digest: given[digest] for digest in digests if digest in given
        }
        there = [digest for digest in digests if digest not in found]
        return {**found, **directories.get_many(there)} if there else found

    return dict(level_by_level(DirectoryNode(root, given[root].size), get_many, seen=set()))


class _Directories(BlobService):
    """Directories that are at hand, as blobs."""

    def __init__(self, given: Mapping[B3Digest, Directory]) -> None:
        self._given = given

    def has(self, digest: B3Digest) -> bool:
        return digest in self._given

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        directory = self._given.get(digest)
        return None if directory is None else BytesReader(directory.encoded, digest)

    def open_write(self) -> BlobWriter:
        raise UnsupportedError("nothing is stored here")
