"""Verification of trees: all of their directories, and the blobs of all of their files.

A tree is gone through level by level, with one call for many directories, each of which is looked at once,
however many trees have it. Its digest is computed here, too, and each entry that says a size is compared with
what it is of. So a tree in which nothing is found is complete.

Of a blob in several chunks the index says how large it is, and whether each chunk is there is asked for many
at once. One that is a single chunk has no list: it is read, many by one call, which checks its bytes as well.

In memory are the digests of the directories, each with where it was met first. The files that were found
right are in a temporary ledger on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Literal, TypeAlias

import attrs

from castore.contract.batches import MOST_ITEMS, MOST_UNKNOWN
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.contract.directories import DirectoryService
from castore.digest import EMPTY, B3Digest
from castore.directories.reading import portions
from castore.errors import (
    BlobNotFoundError,
    CastoreError,
    CorruptBlobError,
    CorruptDirectoryError,
    DirectorySizeError,
    InvalidDirectoryError,
    MissingDirectoryError,
    UnavailableError,
    describe,
)
from castore.format.blob_index import size_of
from castore.format.closures import MOST_LEVELS
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, PathComponent, TreePath
from castore.threads.pool import Pool
from castore.upkeep.findings import MISSING_BLOB, WRONG_SIZE, Finding
from castore.upkeep.ledger import Ledger
from castore.upkeep.reading import MOST_UNAVAILABLE, Attempts, labelled

SizeRule: TypeAlias = Literal["snix", "spec", "mixed"]
"""How entries for directories were written: as the reference does (`2n + s`), as its texts have it (`n + s`),
or some this way and some that."""

_Key: TypeAlias = "tuple[str, B3Digest, int | None]"
_At: TypeAlias = "tuple[B3Digest | None, PathComponent | None]"
"""Where something is: its directory, and its name there; the root has neither."""


@attrs.frozen
class TreeRoot:
    """A tree that is to be checked.

    Attributes:
        name: What to call it in findings.
        node: Its root; of a directory the digest will do.
        within: The root of a tree that has it below it, for services that keep whole trees.
        path: Where in that tree it is, which paths in findings begin with.
        metadata: The blob that is kept beside it, if there is one.
    """

    name: str
    node: Node | B3Digest
    within: B3Digest | None = None
    path: TreePath = attrs.field(factory=TreePath)
    metadata: B3Digest | None = None


@attrs.define
class TreeCounts:
    """How much was checked: different directories, files as often as those have them, bytes that were read.

    `rule` says how the sizes of directories were written; `None` if no entry tells.
    """

    directories: int = 0
    files: int = 0
    bytes: int = 0
    rule: SizeRule | None = None


@attrs.frozen
class TreeReport:
    """What came of a verification of trees: `findings` is empty if all is well."""

    findings: list[Finding]
    tally: TreeCounts

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify_trees(
    roots: Iterable[TreeRoot],
    directories: DirectoryService,
    blobs: BlobService,
    *,
    read: bool = False,
    pool: Pool | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> TreeReport:
    """Check trees and return all that is wrong with them.

    Arguments:
        roots: Which ones.
        directories: Where their directories are.
        blobs: Where their files are.
        read: Whether blobs of several chunks are read as well, from start to end.
        pool: The pool that reads; by default one of its own.
        progress: Called with the number of bytes that were read since the last call.

    Raises `UnavailableError` if a service does not answer any more. To see what is found while it is found,
    use `TreeVerification`.
    """
    own_pool = Pool() if pool is None else None
    try:
        check = TreeVerification(
            directories, blobs, read=read, pool=pool or own_pool or Pool(0), progress=progress
        )
        return TreeReport(list(check.run(roots)), check.tally)
    finally:
        if own_pool is not None:
            own_pool.close()


@attrs.frozen(eq=False)
class _Entry:
    """A file: of what directory, by what name; without one it is the root itself."""

    parent: B3Digest | None
    name: PathComponent | None
    digest: B3Digest
    size: int | None
    what: Literal["file", "metadata"] = "file"


class TreeVerification:
    """One verification, whose findings come while it runs; arguments as for `verify_trees`.

    `tally` says how far it is. What is wrong with a directory is made up for by what *donor* has, if it has
    it: what is below it is checked then as well, and `donated` has those directories.
    """

    def __init__(
        self,
        directories: DirectoryService,
        blobs: BlobService,
        *,
        read: bool = False,
        pool: Pool,
        donor: DirectoryService | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._directories = directories
        self._files = _Files(blobs, read=read)
        self._pool = pool
        self._donor = donor
        self._progress = progress
        self._sizes: dict[B3Digest, tuple[int, ...]] = {}
        """Of each directory that was met, what an entry for it may say; nothing of one that is not right."""
        self._waiting: dict[B3Digest, dict[int, _At]] = {}
        """Of each that is to be read, the sizes that entries say, with where the first such entry is."""
        self._parents: dict[B3Digest, tuple[B3Digest, PathComponent]] = {}
        self._wrong: dict[_Key, Finding] = {}
        self._said: set[tuple[int, _Key]] = set()
        self._found: list[Finding] = []
        self._number = 0
        self._root = TreeRoot("", EMPTY)
        self._unanswered = 0
        self.tally = TreeCounts()
        self.donated: dict[B3Digest, Directory] = {}

    def run(self, roots: Iterable[TreeRoot]) -> Iterator[Finding]:
        """Check trees, and yield what is wrong: of each the same thing once, with the first path to it."""
        checked = list(roots)
        ledger = Ledger()
        try:
            for number, root in enumerate(checked):
                self._begin(number, root)
                yield from self._check(ledger)
        finally:
            ledger.close()
        if self._wrong and len(checked) > 1:
            # What several trees have was looked at once, and is wrong with all of them.
            for number, root in enumerate(checked):
                self._begin(number, root)
                yield from self._look_for_known()

    def _begin(self, number: int, root: TreeRoot) -> None:
        self._number, self._root = number, root
        self._parents = {}

    def _check(self, ledger: Ledger) -> Iterator[Finding]:
        portions = self._files.portions
        unknown = MOST_UNKNOWN

        def weight(entry: _Entry) -> int:
            return unknown if entry.size is None else min(entry.size, unknown)

        calls = (
            (entries, partial(self._files.look_up, {entry.digest: entry.size for entry in entries}))
            for entries in portions.split(self._news(ledger), weight)
        )
        for entries, found in self._pool.map(labelled, calls, most=portions.ahead):
            self._progress(sum(found.read.values()))
            self.tally.bytes += sum(found.read.values())
            for entry in entries:
                self._settle(entry, found.sizes[entry.digest], ledger)
            yield from self._take_found()
        yield from self._take_found()

    def _take_found(self) -> list[Finding]:
        found, self._found = self._found, []
        return found

    def _settle(self, entry: _Entry, found: int | CastoreError | None, ledger: Ledger) -> None:
        self._heed(found)
        self.tally.files += entry.what == "file"
        at = (entry.parent, entry.name)
        if found is None:
            message = describe(BlobNotFoundError(entry.digest))
            self._report(Finding(entry.what, entry.digest, MISSING_BLOB, message), at)
        elif isinstance(found, CastoreError):
            self._report(Finding(entry.what, entry.digest, found.code, describe(found)), at)
        elif entry.size is not None and found != entry.size:
            sizes = f"{entry.size} bytes, and the blob {entry.digest} has {found}"
            message = f"the tree gives the file a size of {sizes}"
            self._report(Finding(entry.what, entry.digest, WRONG_SIZE, message), at, size=entry.size)
        else:
            ledger.add("blob", _mark(entry))

    def _news(self, ledger: Ledger) -> Iterator[_Entry]:
        for entry in self._entries():
            if ledger.has("blob", _mark(entry)):
                self.tally.files += entry.what == "file"
            elif ("file", entry.digest, None) not in self._wrong:
                yield entry
            else:
                self._report_again(("file", entry.digest, None), (entry.parent, entry.name))

    # -- directories --

    def _entries(self) -> Iterator[_Entry]:
        """Yield all files of the directories that were not met before; report what is wrong with those."""
        root = self._root
        if root.metadata is not None:
            yield _Entry(None, None, root.metadata, None, "metadata")
        if isinstance(root.node, FileNode):
            yield _Entry(None, None, root.node.digest, root.node.size)
        if isinstance(root.node, DirectoryNode):
            self._expect(root.node, (None, None))
        if isinstance(root.node, (DirectoryNode, bytes)):
            yield from self._go_down(_digest_of(root.node))

    def _go_down(self, top: B3Digest) -> Iterator[_Entry]:
        level = [top] if top not in self._sizes else []
        levels = 0
        while level:
            if levels == MOST_LEVELS:
                error = InvalidDirectoryError(
                    f"the tree has more than {MOST_LEVELS} levels; what is below was not looked at",
                    rule="too-deep",
                )
                self._report(Finding("directory", top, error.code, describe(error)), (None, None))
                return
            levels += 1
            below: list[B3Digest] = []
            for digest, directory in self._read_all(level, report=True):
                self._note(digest, () if directory is None else directory.possible_sizes)
                if directory is None:
                    continue
                self.tally.directories += 1
                for name, node in directory.items():
                    if isinstance(node, FileNode):
                        yield _Entry(digest, name, node.digest, node.size)
                    elif isinstance(node, DirectoryNode) and self._expect(node, (digest, name)):
                        self._parents[node.digest] = (digest, name)
                        below.append(node.digest)
            level = below

    def _expect(self, node: DirectoryNode, at: _At) -> bool:
        """Compare the size that an entry says, now or later; tell whether its directory is a new one."""
        known = self._sizes.get(node.digest)
        if known is not None:
            self._compare(node, known, at)
            return False
        fresh = node.digest not in self._waiting
        self._waiting.setdefault(node.digest, {}).setdefault(node.size, at)
        return fresh

    def _note(self, digest: B3Digest, possible: tuple[int, ...]) -> None:
        """Take note of a directory, which entries may give these sizes; none if it is not right."""
        self._sizes[digest] = possible
        for size, at in self._waiting.pop(digest, {}).items():
            self._compare(DirectoryNode(digest, size), possible, at)

    def _read_all(
        self, digests: Sequence[B3Digest], *, report: bool
    ) -> Iterator[tuple[B3Digest, Directory | None]]:
        """Yield directories, `None` for one that is not right, of which that is reported."""
        within = self._within
        for batch in portions({digest: self._size_said(digest) for digest in digests}):
            found: dict[B3Digest, Directory | CastoreError] = {
                digest: _checked(digest, answer)
                for digest, answer in self._directories.get_many(batch, within=within).items()
            }
            if report:
                self._ask_donor({each for each in batch if not isinstance(found.get(each), Directory)})
            for digest in batch:
                answer = found.get(digest, MissingDirectoryError(digest))
                directory = answer if isinstance(answer, Directory) else self.donated.get(digest)
                if report and isinstance(answer, CastoreError):
                    self._heed(answer)
                    at = self._parents.get(digest, (None, None))
                    self._report(Finding("directory", digest, _code_of(answer), describe(answer)), at)
                yield digest, directory
            # Or two portions would be held while the next one is read.
            found, answer, directory = {}, MissingDirectoryError(EMPTY), None

    def _size_said(self, digest: B3Digest) -> int:
        """Return what the entries for a directory say that it has, at most; 0 if there are none."""
        return max(self._waiting.get(digest) or self._sizes.get(digest) or (0,))

    @property
    def _within(self) -> B3Digest | None:
        root = self._root
        if root.within is not None or not isinstance(root.node, (DirectoryNode, bytes)):
            return root.within
        return _digest_of(root.node)

    def _ask_donor(self, digests: set[B3Digest]) -> None:
        if self._donor is None or not digests:
            return
        for digest, answer in self._donor.get_many(digests, within=self._within).items():
            directory = _checked(digest, answer)
            if isinstance(directory, Directory):
                self.donated[digest] = directory

    def _compare(self, node: DirectoryNode, possible: tuple[int, ...], at: _At) -> None:
        """Compare the size that an entry says with those that it may say."""
        if not possible:
            return
        if node.size not in possible:
            error = DirectorySizeError(at[1] or b".", node.size, possible)
            finding = Finding("directory", node.digest, WRONG_SIZE, describe(error))
            self._report(finding, at, size=node.size)
        elif len(possible) > 1:
            rule: SizeRule = "snix" if node.size == possible[0] else "spec"
            self.tally.rule = rule if self.tally.rule in (None, rule) else "mixed"

    # -- findings --

    def _report(self, finding: Finding, at: _At, *, size: int | None = None) -> None:
        """Report something, unless that was done before of this tree; with *size* it is about that."""
        key = ("directory" if finding.what == "directory" else "file", finding.digest, size)
        self._wrong.setdefault(key, finding)
        self._report_again(key, at)

    def _report_again(self, key: _Key, at: _At) -> None:
        if (self._number, key) not in self._said:
            self._said.add((self._number, key))
            path = self._path(*at)
            self._found.append(attrs.evolve(self._wrong[key], root=self._root.name, path=path))

    def _path(self, parent: B3Digest | None, name: PathComponent | None) -> TreePath:
        names = [] if name is None else [name]
        while parent in self._parents:
            parent, above = self._parents[parent]
            names.append(above)
        return self._root.path.join(*reversed(names))

    def _heed(self, found: object) -> None:
        """Raise the error of a service that does not answer any more: the rest would fare no better."""
        self._unanswered = self._unanswered + 1 if isinstance(found, UnavailableError) else 0
        if self._unanswered == MOST_UNAVAILABLE:
            assert isinstance(found, UnavailableError)
            raise found

    def _look_for_known(self) -> Iterator[Finding]:
        """Yield what is known to be wrong, and is in this tree as well."""
        root = self._root
        if root.metadata is not None:
            self._recall("file", root.metadata, None, (None, None))
        if isinstance(root.node, FileNode):
            self._recall("file", root.node.digest, root.node.size, (None, None))
        if not isinstance(root.node, (DirectoryNode, bytes)):
            return
        top = _digest_of(root.node)
        size = root.node.size if isinstance(root.node, DirectoryNode) else None
        self._recall("directory", top, size, (None, None))
        seen, level = {top}, [top]
        for _ in range(MOST_LEVELS):
            below: list[B3Digest] = []
            for digest, directory in self._read_all(level, report=False):
                for name, node in () if directory is None else directory.items():
                    if isinstance(node, FileNode):
                        self._recall("file", node.digest, node.size, (digest, name))
                    elif isinstance(node, DirectoryNode):
                        if node.digest not in seen:
                            seen.add(node.digest)
                            self._parents[node.digest] = (digest, name)
                            below.append(node.digest)
                        self._recall("directory", node.digest, node.size, (digest, name))
            level = below
        yield from self._take_found()

    def _recall(
        self,
        kind: str,
        digest: B3Digest,
        size: int | None,
        at: _At,
    ) -> None:
        for key in ((kind, digest, None), (kind, digest, size)):
            if key in self._wrong:
                self._report_again(key, at)


def _digest_of(node: DirectoryNode | B3Digest) -> B3Digest:
    return node.digest if isinstance(node, DirectoryNode) else node


def _checked(digest: B3Digest, answer: Directory | CastoreError) -> Directory | CastoreError:
    if isinstance(answer, CastoreError):
        return answer
    found = B3Digest.of(answer.encoded)
    if found == digest:
        return answer
    message = f"directory {digest} is corrupt: the service gave {found}"
    return CorruptDirectoryError(message, expected=digest, found=found)


def _code_of(error: CastoreError) -> str:
    """Return the code of what is wrong with a directory, also where its service says it of a blob."""
    if isinstance(error, CorruptBlobError) and not isinstance(error, CorruptDirectoryError):
        return CorruptDirectoryError.code
    return error.code


def _mark(entry: _Entry) -> B3Digest:
    """Return what stands in the ledger for a file: its blob, and the size that the tree gives it."""
    return B3Digest.of(entry.digest + (b"" if entry.size is None else entry.size.to_bytes(8, "big")))


@attrs.frozen
class _FoundFiles:
    """The sizes of blobs, or what is wrong with them, `None` for absent ones; how much of each was read."""

    sizes: Mapping[B3Digest, int | CastoreError | None]
    read: Mapping[B3Digest, int]


class _Files:
    """Finds out whether blobs are there, and how large they are; for use in threads."""

    def __init__(self, blobs: BlobService, *, read: bool) -> None:
        self._blobs = blobs
        self._source = blobs.capability(ChunkSource)
        self._attempt = Attempts(blobs)
        self._read = read
        self.portions = self._attempt.portions

    def look_up(self, sizes: Mapping[B3Digest, int | None]) -> _FoundFiles:
        """Look up blobs, whose sizes are said to be these."""
        known = {EMPTY: 0} if EMPTY in sizes else {}
        wanted = {digest: size for digest, size in sizes.items() if digest != EMPTY}
        if self._read:
            found = self._attempt.blobs(list(wanted))
            read = {digest: size for digest, size in found.items() if isinstance(size, int)}
            return _FoundFiles({**known, **found}, read)
        small = self._read_small(wanted)
        lists = {digest: self._attempt.index(digest) for digest in wanted if digest not in small}
        read = {digest: size for digest, size in small.items() if isinstance(size, int)}
        return _FoundFiles({**known, **small, **self._measured(lists)}, read)

    def _read_small(self, sizes: Mapping[B3Digest, int | None]) -> dict[B3Digest, int | CastoreError]:
        """Return the sizes of those that are one chunk, or what is wrong with it."""
        if self._source is None:
            return {}
        try:
            there = self._source.find_chunks(sizes)
        except CastoreError:
            return {}  # Each has its own chance.
        found = self._attempt.chunks({digest: sizes[digest] for digest in there})
        return {
            digest: data if isinstance(data, CastoreError) else len(data) for digest, data in found.items()
        }

    def _measured(
        self, lists: Mapping[B3Digest, Sequence[ChunkMeta] | CastoreError | None]
    ) -> dict[B3Digest, int | CastoreError | None]:
        found: dict[B3Digest, int | CastoreError | None] = {}
        listed: dict[B3Digest, Sequence[ChunkMeta]] = {}
        for digest, chunks in lists.items():
            if chunks is None or isinstance(chunks, CastoreError):
                found[digest] = chunks
            elif chunks:
                listed[digest] = chunks
            else:
                found[digest] = self._opened(digest)
        sizes = {digest: size_of(chunks) for digest, chunks in listed.items()}
        return {**found, **sizes, **self._lacking(listed)}

    def _opened(self, digest: B3Digest) -> int | CastoreError | None:
        """Return the size of a blob as its reader says; it need not read it."""
        try:
            reader = self._blobs.open_read(digest)
            if reader is None:
                return None
            with reader:
                return reader.size
        except CastoreError as error:
            return error

    def _lacking(self, lists: Mapping[B3Digest, Sequence[ChunkMeta]]) -> dict[B3Digest, CastoreError]:
        """Return what is wrong with blobs that lack a chunk."""
        source = self._source
        if source is None:
            return {}
        found: dict[B3Digest, CastoreError] = {}
        pairs = ((blob, meta.digest) for blob, chunks in lists.items() for meta in chunks)
        while batch := list(islice(pairs, MOST_ITEMS)):
            wanted = {chunk for _, chunk in batch}
            try:
                there = source.find_chunks(wanted)
            except CastoreError as error:
                found |= dict.fromkeys((blob for blob, _ in batch), error)
                continue
            for blob, chunk in batch:
                if chunk not in there:
                    found.setdefault(blob, self._attempt.absence(blob, chunk))
        return found
