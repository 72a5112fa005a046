"""Directories of a peer: one by one, or whole trees, each checked before it is believed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, cast

from castore import B3Digest
from castore.contract.directories import DirectoryService, DirectoryWriter, FoundDirectories
from castore.digest import no_digest
from castore.errors import (
    CastoreError,
    CorruptDirectoryError,
    DirectoryOrderError,
    InvalidDirectoryError,
    MissingDirectoryError,
    UnavailableError,
    WriterClosedError,
)
from castore.format.closures import MOST_FRAME, LeavesToRoot, RootToLeaves
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode
from castore.format.wire import answered_digest, directory_request
from castore.threads import forks
from castore.threads.pool import Pool, process_pool
from castore_grpc.peer import AbsentError, CutError, Peer, RemoteDamageError, again_if_cut
from castore_grpc.upload import Upload

_SERVICE: Final = "DirectoryService"

_MOST_HELD: Final = 32 << 20
"""How many bytes of trees stay at hand, for peers that have a directory only by way of its root."""

_MOST_REPEATED: Final = 1000
"""So many directories of a tree, beyond its number of them, may come again."""


class GrpcDirectoryService(DirectoryService):
    """Reads and writes directories of a peer.

    Some peers have a directory by the root of its tree alone. If such a one does not know a directory, and
    the root is known, the whole tree is read.

    Arguments:
        peer: The peer, which is closed with the service.
        pool: The pool beside which calls are made, some at once.
    """

    high_latency = True
    # Some peers have a directory by the root of its tree alone.
    whole_trees = True

    def __init__(self, peer: Peer, *, pool: Pool | None = None) -> None:
        self._peer = peer
        self._pool = (pool or process_pool()).io_pool
        self._lock = forks.new_lock()
        self._trees: OrderedDict[B3Digest, Mapping[B3Digest, Directory]] = OrderedDict()
        self._held = 0

    # -- reading --

    def get_many(self, digests: Iterable[B3Digest], *, within: B3Digest | None = None) -> FoundDirectories:
        """Ask for each, many at once; for those that the peer does not know by way of the root *within*."""
        wanted = list(dict.fromkeys(digests))
        found: FoundDirectories = {}
        if within is not None:
            found.update(self._at_hand(wanted, within))
            wanted = [digest for digest in wanted if digest not in found]
        for digest, answer in zip(wanted, self._pool.map(self._get, wanted), strict=True):
            if answer is not None:
                found[digest] = answer
        lacking = [digest for digest in wanted if digest not in found]
        if lacking and within is not None:
            tree = self._tree(within)
            found |= {digest: tree[digest] for digest in lacking if digest in tree}
        return found

    def _get(self, digest: B3Digest) -> Directory | CastoreError | None:
        if not isinstance(digest, bytes):
            raise no_digest(digest)
        try:
            return again_if_cut(lambda: self._read_one(digest))
        except RemoteDamageError as error:
            message = f"directory {digest} is corrupt at the peer: {error}"
            return CorruptDirectoryError(message, expected=digest)
        except AbsentError:
            return None
        except CastoreError as error:
            return error

    def _read_one(self, digest: B3Digest) -> Directory:
        with closing(self._stream(digest, recursive=False)) as stream:
            message = next(stream, None)
            if message is None:
                raise UnavailableError(self._peer.instance, f"it answered nothing about directory {digest}")
            directory = self._decoded(message, digest)
            if directory.digest != digest:
                raise _another(digest, directory.digest)
            if next(stream, None) is not None:
                raise UnavailableError(self._peer.instance, f"it sent more than directory {digest}")
        return directory

    def _stream(self, digest: B3Digest, *, recursive: bool) -> Generator[bytes]:
        request = directory_request(digest, recursive=recursive)
        return cast("Generator[bytes]", self._peer.receive(_SERVICE, "Get", request, most=MOST_FRAME))

    @staticmethod
    def _decoded(message: bytes, root: B3Digest) -> Directory:
        try:
            # What the peer has put beside the fields is no part of the directory.
            return Directory.decode(message, canonical=False)
        except InvalidDirectoryError as error:
            raise CorruptDirectoryError(
                f"the peer sent for {root} what is no directory: {error}", expected=root
            ) from error

    def missing(self, digests: Iterable[B3Digest]) -> set[B3Digest]:
        """Ask for each, many at once."""
        wanted = list(set(digests))
        absent = set()
        for digest, answer in zip(wanted, self._pool.map(self._get, wanted), strict=True):
            if isinstance(answer, CastoreError):
                raise answer
            if answer is None:
                absent.add(digest)
        return absent

    def closure(self, root: B3Digest) -> Iterator[Directory] | None:
        """Return the tree as the peer sends it; what does not belong to it, or lacks in it, is an error."""
        if not isinstance(root, bytes):
            raise no_digest(root)
        begun = again_if_cut(lambda: self._begin(root))
        return None if begun is None else self._whole(root, *begun)

    def _begin(self, root: B3Digest) -> tuple[bytes, Generator[bytes]] | None:
        """Return the first message of a tree, and the stream of the others; `None` if there is no tree."""
        stream = self._stream(root, recursive=True)
        try:
            first = next(stream, None)
        except RemoteDamageError as error:
            raise CorruptDirectoryError(
                f"the tree {root} is corrupt at the peer: {error}", expected=root
            ) from error
        except AbsentError:
            first = None
        if first is None:
            stream.close()
            return None
        return first, stream

    def _whole(self, root: B3Digest, first: bytes, stream: Generator[bytes]) -> Iterator[Directory]:
        """Yield a tree, and begin it again when a fork has ended the call: without those that were given."""
        given: set[B3Digest] = set()
        begun: tuple[bytes, Generator[bytes]] | None = (first, stream)
        while begun is not None:
            try:
                for directory in self._checked(root, *begun):
                    if directory.digest not in given:
                        given.add(directory.digest)
                        yield directory
            except CutError:
                begun = again_if_cut(lambda: self._begin(root))
            else:
                return
        raise MissingDirectoryError(root)

    def _checked(self, root: B3Digest, first: bytes, stream: Generator[bytes]) -> Iterator[Directory]:
        order = RootToLeaves(root)
        count = repeated = 0
        message: bytes | None = first
        with closing(stream):
            while message is not None:
                directory = self._decoded(message, root)
                try:
                    is_new = order.accept(directory)
                except DirectoryOrderError as error:
                    if not count:
                        raise _another(root, directory.digest) from error
                    raise CorruptDirectoryError(
                        f"the peer sent another tree: {error}", expected=root
                    ) from error
                if is_new:
                    count += 1
                    yield directory
                else:
                    repeated += 1
                    if repeated > count + _MOST_REPEATED:
                        raise UnavailableError(
                            self._peer.instance, f"it sends the same directories of {root} again and again"
                        )
                message = self._next(stream, root)
        for digest in order.pending:
            raise MissingDirectoryError(digest)

    @staticmethod
    def _next(stream: Generator[bytes], root: B3Digest) -> bytes | None:
        try:
            return next(stream, None)
        except AbsentError as error:
            raise CorruptDirectoryError(
                f"the tree {root} is incomplete at the peer: {error}", expected=root
            ) from error

    # -- trees at hand --

    def _at_hand(self, digests: Iterable[B3Digest], root: B3Digest) -> FoundDirectories:
        with self._lock:
            tree = self._trees.get(root, {})
            return {digest: tree[digest] for digest in digests if digest in tree}

    def _tree(self, root: B3Digest) -> Mapping[B3Digest, Directory]:
        """Read the whole tree, and keep it at hand unless it is large."""
        tree = {directory.digest: directory for directory in self.closure(root) or ()}
        size = _size_of(tree)
        if tree and size <= _MOST_HELD:
            with self._lock:
                if root not in self._trees:
                    self._trees[root] = tree
                    self._held += size
                while self._held > _MOST_HELD:
                    self._held -= _size_of(self._trees.popitem(last=False)[1])
        return tree

    # -- writing --

    def put_many(self, directories: Collection[Directory]) -> None:
        """Send each tree among *directories*, with those below it that the peer has already."""
        given = {directory.digest: directory for directory in directories}
        inner = {node.digest for directory in directories for _, node in directory.directories}
        for root in given.keys() - inner:
            with self.open_write() as writer:
                for directory in _leaves_first(root, given):
                    for _, node in directory.directories:
                        if node.digest not in given:
                            writer.graft(node)
                    writer.put(directory)

    def open_write(self) -> DirectoryWriter:
        """Start a tree, whose directories are sent as they come."""
        return GrpcDirectoryWriter(self, self._peer)

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()


class GrpcDirectoryWriter(DirectoryWriter):
    """Sends the directories of a tree, each after those that it refers to.

    A peer wants to be sent all of them. So those of a tree that is grafted are read from it first.
    """

    def __init__(self, service: GrpcDirectoryService, peer: Peer) -> None:
        self._service = service
        self._peer = peer
        self._order = LeavesToRoot()
        self._grafted: dict[B3Digest, DirectoryNode] = {}
        self._upload: Upload | None = None
        self._generation = forks.generation()
        self._root: B3Digest | None = None
        self._ended = False

    def put(self, directory: Directory) -> B3Digest:
        """Send a directory."""
        self._require_open()
        self._send_grafted()
        self._send(directory)
        return directory.digest

    def graft(self, node: DirectoryNode) -> None:
        """Take note of a tree that the peer has; it is read before the next directory is sent."""
        self._require_open()
        if node.digest not in self._order:
            self._grafted[node.digest] = node

    def _send_grafted(self) -> None:
        while self._grafted:
            digest, _ = self._grafted.popitem()
            if digest in self._order:
                continue
            tree = self._service.closure(digest)
            if tree is None:
                self.abort()
                raise MissingDirectoryError(digest)
            try:
                found = {directory.digest: directory for directory in tree}
            except CastoreError:
                self.abort()
                raise
            for directory in _leaves_first(digest, found):
                self._send(directory)

    def _send(self, directory: Directory) -> None:
        if not self._order.accept(directory):
            return
        try:
            if self._upload is None:
                self._upload = Upload(self._peer, _SERVICE, "Put")
            self._upload.send(directory.encoded)
        except CastoreError:
            self.abort()
            raise

    def close(self) -> B3Digest:
        """Return the root, when the peer has said that it has all of it."""
        if self._root is None:
            self._require_open()
            for node in self._grafted.values():
                self._order.take_for_granted(node.digest, node.size)
            grafted, self._grafted = self._grafted, {}
            root = self._order.finish()
            if self._upload is None:
                # Nothing but a tree that is there.
                if root in grafted and root in self._service.missing((root,)):
                    raise MissingDirectoryError(root)
            else:
                self._finish(root)
            self._ended = True
            self._root = root
        return self._root

    def _finish(self, root: B3Digest) -> None:
        assert self._upload is not None
        self._ended = True
        answer = self._upload.finish()
        try:
            found = answered_digest(answer)
        except ValueError as error:
            raise UnavailableError(self._peer.instance, f"it answered no digest: {error}") from error
        if found != root:
            raise CorruptDirectoryError(
                f"the tree {root} was stored by the peer as {found}", expected=root, found=found
            )

    def abort(self) -> None:
        """Give the call up."""
        if not self._ended:
            self._ended = True
            if self._upload is not None and self._generation == forks.generation():
                self._upload.cancel()

    def _require_open(self) -> None:
        if self._ended:
            raise WriterClosedError("the writer of this tree was closed, or aborted, or has failed")
        if self._generation != forks.generation():
            raise WriterClosedError(
                "this writer was opened before the process was forked, and is the parent's; open one here"
            )


def _leaves_first(root: B3Digest, tree: Mapping[B3Digest, Directory]) -> Iterator[Directory]:
    """Yield what is below *root*, and in *tree*, each after all that it refers to, and once."""
    begun = {root}
    way = [(tree[root], _children(tree[root]))]
    while way:
        directory, children = way[-1]
        child = next((digest for digest in children if digest in tree and digest not in begun), None)
        if child is None:
            way.pop()
            yield directory
        else:
            begun.add(child)
            way.append((tree[child], _children(tree[child])))


def _children(directory: Directory) -> Iterator[B3Digest]:
    return (node.digest for _, node in directory.directories)


def _size_of(tree: Mapping[B3Digest, Directory]) -> int:
    return sum(len(directory.encoded) for directory in tree.values())


def _another(expected: B3Digest, found: B3Digest) -> CorruptDirectoryError:
    return CorruptDirectoryError(
        f"directory {expected} is corrupt: the peer sent {found}", expected=expected, found=found
    )
