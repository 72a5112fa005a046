"""Trees and blobs as a file system of fsspec: for pandas, Dask, pyarrow, zarr, and who else takes its URLs.

`castore://HEX/path` is a file of the tree HEX, `castore://NAME/path` of the tree that a ref stands for, and
`castore://HEX` a tree or a blob by itself. The options are `composition`, a path or the tables of one, and
`service`, the name of the blob service in it. Without them the composition is that of `castore.open`.

Nothing can be written, except in a transaction, which makes a new tree.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self, cast

from fsspec.spec import AbstractFileSystem
from fsspec.transaction import Transaction
from fsspec.utils import stringify_path, tokenize

from castore.access.drafts import Draft, path_of
from castore.access.files import CastoreFile, CastoreWriteFile
from castore.access.ranges import read_ranges
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.directories import AnyDirectory, DirectoryService, only_blob_service
from castore.contract.refs import NamedRoot
from castore.digest import EMPTY, B3Digest
from castore.errors import (
    CastoreError,
    CompositionError,
    CorruptDirectoryError,
    InvalidDigestError,
    InvalidRefError,
    MissingDirectoryError,
    NodeNotFoundError,
    SourceError,
)
from castore.format.closures import MOST_FRAME
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath
from castore.opening import open as open_composition
from castore.places import absolute
from castore.threads.forks import new_lock
from castore.trees.leading_refs import MOST_PARTS, find_leading_ref
from castore.trees.naming import directories_of, parse_root
from castore.trees.reading_ahead import RecentDirectories
from castore.trees.ref_names import RefName, refs_of
from castore.trees.walking import resolve

_TIME: Final = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
"""All that a tree says of times: one second after the beginning, as in the reference's mounts."""

_TAGS: Final = frozenset(b"\x0a\x12\x1a")
"""What the encoding of a directory begins with."""

_MOST_ROOTS: Final = 1024


class _Opened:
    """A composition that all file systems of a process with the same options share."""

    def __init__(self, stores: Composition, *, close: bool) -> None:
        self.stores = stores
        if close:
            weakref.finalize(self, _close, stores, os.getpid())


_left: Final[list[Composition]] = []
"""Compositions of the parent, in a child of a fork, where fsspec forgets all file systems."""


def _close(stores: Composition, process: int) -> None:
    """Close a composition that no file system uses any more, in the process that has opened it."""
    if os.getpid() == process:
        stores.close()
    else:
        _left.append(stores)


class _Lent:
    """A composition that somebody else closes, as an option: known by a token, in other processes, too."""

    def __init__(self, stores: Composition, token: str) -> None:
        self.stores = stores
        self._token = token

    def __repr__(self) -> str:
        return f"<composition {self._token}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _Lent, (self.stores, self._token)


_opened: Final[weakref.WeakValueDictionary[str, _Opened]] = weakref.WeakValueDictionary()
_opening: Final = new_lock()


def _share(key: str, open_it: Callable[[], Composition]) -> _Opened:
    with _opening:
        found = _opened.get(key)
        if found is None:
            _opened[key] = found = _Opened(open_it(), close=True)
    return found


class CastoreTransaction(Transaction):  # type: ignore[misc] # fsspec has no types
    """What is written in one `with` block, and the trees that come of it.

    Attributes:
        roots: After the block the digest of each new tree in hex, by the first part of the URLs: a digest or
            the name of a ref.
        root: The digest of the only one; `None` where there is none, or more than one.
    """

    def __init__(self, fs: CastoreFileSystem, **kwargs: Any) -> None:
        super().__init__(fs, **kwargs)
        self.fs: Any = fs
        self.roots: dict[str, str] = {}
        self.root: str | None = None
        self.drafts: dict[str, tuple[Draft, NamedRoot | None]] = {}

    def complete(self, commit: bool = True) -> None:
        """Put the trees, and let refs stand for theirs; or forget all of it."""
        fs: CastoreFileSystem = self.fs
        try:
            while self.files:
                file = self.files.popleft()
                file.commit() if commit else file.discard()
            if commit:
                self._commit(fs)
        finally:
            while self.files:
                self.files.popleft().discard()
            self.drafts = {}
            fs._intrans = False  # noqa: SLF001 - this is fsspec's protocol
            fs._transaction = None  # noqa: SLF001
            self.fs = None

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if self.fs is not None:
            self.complete(commit=exc_type is None)

    def _commit(self, fs: CastoreFileSystem) -> None:
        for first, (draft, before) in self.drafts.items():
            digest = draft.commit()
            self.roots[first] = str(digest)
            named = parse_root(first)
            if isinstance(named, RefName):
                new = NamedRoot(draft.snapshot(), source="fsspec")
                if not fs.refs.set(named.name, new, expect=before):
                    raise OSError(
                        errno.EBUSY,
                        f"{first} was changed by somebody else; what was written here is the tree {digest}",
                    )
        if len(self.roots) == 1:
            (self.root,) = self.roots.values()


class CastoreFileSystem(AbstractFileSystem):  # type: ignore[misc] # as above
    """Trees and blobs of a composition, as files.

    Arguments:
        composition: The path of a composition, or its tables; as `castore.open` finds it, by default.
        service: The name of the blob service in it.

    Errors are those of Python for what is not there (`FileNotFoundError`), and castore's own for the rest.
    """

    protocol = "castore"
    root_marker = ""
    cachable = True
    transaction_type = CastoreTransaction
    _extra_tokenize_attributes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        composition: str | os.PathLike[str] | Mapping[str, Any] | _Lent | None = None,
        service: str = "root",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.service = service
        self._composition: Any = composition
        self._shared: _Opened | None = None
        if isinstance(composition, _Lent):
            self._shared = _Opened(composition.stores, close=False)
        elif composition is None:
            # It is found here and now, so that other processes get the same one.
            stores = open_composition()
            self._composition = _path_of(stores)
            self._shared = _share(self._key, lambda: stores)
        elif isinstance(composition, Mapping):
            self._composition = dict(composition)
        elif isinstance(composition, (str, os.PathLike)):
            self._composition = absolute(composition)
        else:
            raise TypeError(f"composition is a path or tables, not {composition!r:.100}")
        self._directories_at_hand: RecentDirectories | None = None
        self._roots: dict[B3Digest, Node] = {}

    @classmethod
    def of(cls, stores: Composition, service: str = "root") -> Self:
        """Return a file system over a composition that is open; whoever has opened it closes it.

        Pickled, it opens the same composition anew.
        """
        lent = _Lent(stores, f"{stores.name} {os.urandom(8).hex()}")
        return cls(composition=lent, service=service, skip_instance_cache=True)

    # -- what it stands on --

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options that make the same one in another folder, or in another process."""
        found: dict[str, Any] = {**self._options, "service": self.service}
        found["composition"] = self._composition
        return found

    @storage_options.setter
    def storage_options(self, options: dict[str, Any]) -> None:
        self._options = options

    @property
    def storage_args(self) -> tuple[Any, ...]:
        """None: all are options."""
        return ()

    @storage_args.setter
    def storage_args(self, _: Any) -> None:
        pass

    @property
    def _fs_token(self) -> str:
        # The same in all threads and processes, as what is read is.
        return cast("str", tokenize(type(self).__name__, self._composition, self.service))

    @property
    def _key(self) -> str:
        return cast("str", tokenize(self._composition))

    @property
    def stores(self) -> Composition:
        """The composition."""
        if self._shared is None:
            if isinstance(self._composition, dict):
                self._shared = _share(self._key, lambda: Composition.from_mapping(self._composition))
            else:
                self._shared = _share(self._key, lambda: open_composition(self._composition))
        return self._shared.stores

    @property
    def blobs(self) -> BlobService:
        """The blob service that files are read from."""
        return self.stores.blobs(self.service)

    @property
    def directories(self) -> DirectoryService:
        """The service that has the directories of trees."""
        return directories_of(self.stores, self.service)

    @property
    def refs(self) -> Any:
        """The service that has the refs."""
        return refs_of(self.stores, self.service)

    # -- paths --

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = stringify_path(path)
        text = text.removeprefix("castore://").removeprefix("castore::")
        if "//" in text or "/./" in text or text.startswith(("/", "./")) or text.endswith("/."):
            text = "/".join(each for each in text.split("/") if each not in ("", "."))
        return text.rstrip("/")

    @classmethod
    def _parent(cls, path: Any) -> str:
        return str(cls._strip_protocol(path)).rpartition("/")[0]

    def _split(self, path: str) -> tuple[str, Node, TreePath, DirectoryService | RecentDirectories]:
        """Return of a path what stands for its root, that root, the path below it, and the directories.

        Raises `FileNotFoundError` if there is no such root.
        """
        parts = path.split("/")
        drafts = self._transaction.drafts if self._intrans else {}
        for used in range(1, min(len(parts), MOST_PARTS) + 1) if drafts else ():
            first = "/".join(parts[:used])
            if first in drafts:
                draft = drafts[first][0]
                return first, draft.snapshot(), path_of("/".join(parts[used:])), draft.directories
        found = self._root(parts)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, f"no tree, ref or blob is named {parts[0]!r}", path)
        root, used = found
        return "/".join(parts[:used]), root, path_of("/".join(parts[used:])), self._recent

    def _root(self, parts: Sequence[str]) -> tuple[Node, int] | None:
        """Return what a path begins with, and how many parts its name has."""
        named = _parsed(parts[0])
        if isinstance(named, RefName):
            found = find_leading_ref(self.refs, parts)
            return None if found is None else (found[1].node, found[2])
        if not isinstance(named, B3Digest):
            return None
        root = self._roots.get(named)
        if root is None:
            root = self._look_up(named)
            if root is None:
                return None
            if len(self._roots) >= _MOST_ROOTS:
                self._roots.clear()
            self._roots[named] = root
        return root, 1

    def _look_up(self, digest: B3Digest) -> Node | None:
        """Return what a digest is of: a directory, or a blob by itself."""
        if digest == EMPTY:
            return Directory().node  # Also a blob, but a new tree begins with it.
        blob: FileNode | None = None
        if only_blob_service(self.directories) is self.blobs:
            blob, may_be_directory = self._blob(digest)
            if not may_be_directory:
                return blob
        try:
            directory = self._recent.get(digest)
        except CorruptDirectoryError as error:
            # Its bytes are right, and those of no directory.
            if error.found != digest or isinstance(error, MissingDirectoryError):
                raise
            directory = None
        if directory is not None:
            return directory.node
        return blob or self._blob(digest)[0]

    def _blob(self, digest: B3Digest) -> tuple[FileNode | None, bool]:
        """Return a blob by itself, and whether it may be the encoding of a directory."""
        reader = self.blobs.open_read(digest)
        if reader is None:
            return None, False
        with reader:
            node = FileNode(digest, reader.size)
            return node, 0 < reader.size <= MOST_FRAME and reader.read(1)[0] in _TAGS

    @property
    def _recent(self) -> RecentDirectories:
        # Of two that come first at once one is forgotten.
        if self._directories_at_hand is None:
            self._directories_at_hand = RecentDirectories(self.directories)
        return self._directories_at_hand

    def _find(self, path: str, *, follow: bool = True) -> tuple[Node, TreePath, Node, Any]:
        """Return what is at a path, the path in its tree, the root of that and its directories."""
        _, root, below, directories = self._split(path)
        try:
            node = resolve(directories, root, below, follow=follow)
        except NodeNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, error.message, path) from error
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node, below, root, directories

    def _file(self, path: str) -> FileNode:
        node = self._find(self._strip_protocol(path))[0]
        if not isinstance(node, FileNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    # -- reading --

    def info(self, path: str, **_kwargs: Any) -> dict[str, Any]:
        """Tell what is at a path; of a link what it leads to, unless that is nothing within its tree."""
        path = self._strip_protocol(path)
        if not path:
            return {"name": "", "size": 0, "type": "directory"}
        node, below, root, directories = self._find(path, follow=False)
        return self._entry(path, node, below, root, directories, follow=True)

    def _entry(
        self, name: str, node: Node, below: TreePath, root: Node, directories: Any, *, follow: bool
    ) -> dict[str, Any]:
        link: dict[str, Any] = {}
        if isinstance(node, SymlinkNode):
            link = {"islink": True, "destination": _text(node.target)}
            target: Node | None = None
            with suppress(NodeNotFoundError):
                target = resolve(directories, root, below)
            if target is None or (isinstance(target, DirectoryNode) and not follow):
                # What is listed as a directory would be gone into, and round in circles.
                return {"name": name, "size": 0, "type": "link", **link}
            node = target
        if isinstance(node, DirectoryNode):
            return {"name": name, "size": 0, "type": "directory", "digest": str(node.digest), **link}
        assert isinstance(node, FileNode)
        return {
            "name": name,
            "size": node.size,
            "type": "file",
            "digest": str(node.digest),
            "mode": stat.S_IFREG | (0o555 if node.executable else 0o444),
            **link,
        }

    def ls(self, path: str, detail: bool = True, **_kwargs: Any) -> list[Any]:
        """List a directory; of a file itself; without a path the refs."""
        path = self._strip_protocol(path)
        if not path:
            return self._ls_refs(detail=detail)
        node, below, root, directories = self._find(path)
        if isinstance(node, FileNode):
            entries = [self._entry(path, node, below, root, directories, follow=True)]
        else:
            directory = self._directory(node, root, directories)
            names = [(_text(name), name, each) for name, each in directory.items()]
            if not detail:
                return [f"{path}/{name}" for name, *_ in names]
            entries = [
                self._entry(f"{path}/{name}", each, below.join(raw), root, directories, follow=False)
                for name, raw, each in names
            ]
        return entries if detail else [each["name"] for each in entries]

    def _ls_refs(self, *, detail: bool) -> list[Any]:
        try:
            refs = list(self.refs.list())
        except CompositionError:
            return []  # There is no place for refs.
        if not detail:
            return [name for name, _ in refs]
        return [self._entry(name, ref.node, TreePath(), ref.node, None, follow=True) for name, ref in refs]

    def _directory(self, node: Node, root: Node, directories: Any) -> Directory:
        assert isinstance(node, DirectoryNode)
        within = root.digest if isinstance(root, DirectoryNode) else None
        if isinstance(directories, RecentDirectories):
            found: Any = directories.get(node.digest, within=within)
        else:
            found = directories.get(node.digest)
        if found is None:
            raise MissingDirectoryError(node.digest)
        return cast("Directory", found)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """List all files below a path; the directories come with one call, however many they are."""
        path = self._strip_protocol(path)
        if not path or maxdepth is not None:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        try:
            node, below, root, directories = self._find(path)
        except FileNotFoundError:
            return {} if detail else []
        found: dict[str, dict[str, Any]] = {}
        if not isinstance(node, DirectoryNode):
            found[path] = self._entry(path, node, below, root, directories, follow=True)
        else:
            if withdirs:
                found[path] = self._entry(path, node, below, root, directories, follow=True)
            self._find_below(path, node, below, root, directories, withdirs, found)
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def _find_below(  # noqa: PLR0917 - one loop of `find`, to itself
        self,
        path: str,
        node: DirectoryNode,
        below: TreePath,
        root: Node,
        directories: Any,
        withdirs: bool,
        found: dict[str, dict[str, Any]],
    ) -> None:
        known = self._closure(node, root, directories)
        waiting = [(path, below, node)]
        while waiting:
            name, place, here = waiting.pop()
            for raw, each in known[here.digest].items():
                full, at = f"{name}/{_text(raw)}", place.join(raw)
                if isinstance(each, DirectoryNode):
                    waiting.append((full, at, each))
                    if not withdirs:
                        continue
                found[full] = self._entry(full, each, at, root, directories, follow=False)

    def _closure(self, node: DirectoryNode, root: Node, directories: Any) -> Mapping[B3Digest, Directory]:
        service = self.directories if isinstance(directories, RecentDirectories) else directories
        top = node.digest
        if service.capability(AnyDirectory) is None and isinstance(root, DirectoryNode):
            top = root.digest  # Such a service finds a directory by way of its root.
        closure = service.closure(top)
        if closure is None:
            raise MissingDirectoryError(top)
        return {EMPTY: Directory(), **{each.digest: each for each in closure}}

    def exists(self, path: str, **_kwargs: Any) -> bool:
        """Tell whether something is at a path; what a store raises is raised, and is no absence."""
        return self._type(path) is not None

    def isdir(self, path: str) -> bool:
        """Tell whether a directory is at a path."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Tell whether a file is at a path."""
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        try:
            return cast("str", self.info(path)["type"])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def ukey(self, path: str) -> str:
        """Return the digest: what has another one is another file, and what has this one is the same."""
        return self.checksum(path)

    def checksum(self, path: str) -> str:
        """Return the digest of what is at a path, in hex."""
        return str(self.info(path)["digest"])

    def created(self, path: str) -> datetime:
        """Return the first second of 1970, which all that is in trees has."""
        return self.modified(path)

    def modified(self, path: str) -> datetime:
        """Return the first second of 1970, which all that is in trees has."""
        self.info(path)
        return _TIME

    def _open(self, path: str, mode: str = "rb", **_kwargs: Any) -> Any:
        if mode == "rb":
            node = self._file(path)
            return CastoreFile(self.blobs.open(node.digest), path)
        if mode not in {"wb", "xb", "ab"}:
            raise ValueError(f"{mode!r} is no mode of castore: files are read, or written from start to end")
        draft, place = self._draft(path)
        before = self._type(path)
        if before == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if mode == "xb" and before is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        file = CastoreWriteFile(self.blobs.open_write(), draft, place, path)
        if mode == "ab" and before is not None:
            with self._open(path) as old:
                while piece := old.read(1 << 20):
                    file.write(piece)
        return file

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_kwargs: Any) -> bytes:
        """Return the bytes of a file, or a part of them, as a slice would."""
        with self.blobs.open(self._file(path).digest) as reader:
            begin, stop, _step = slice(start, end).indices(reader.size)
            reader.seek(begin)
            return reader.read(max(stop - begin, 0))

    def cat_ranges(  # noqa: PLR0912 - fsspec's signature takes some steps to read
        self,
        paths: list[str],
        starts: int | Iterable[int] | None,
        ends: int | Iterable[int] | None,
        max_gap: int | None = None,  # noqa: ARG002 - chunks say what is read together
        on_error: str = "return",
        **_kwargs: Any,
    ) -> list[bytes | Exception]:
        """Return many ranges of files; each chunk that they touch is read once."""
        if not isinstance(paths, list):
            raise TypeError("cat_ranges takes a list of paths")
        many_starts = list(starts) if isinstance(starts, Iterable) else [starts] * len(paths)
        many_ends = list(ends) if isinstance(ends, Iterable) else [ends] * len(paths)
        if not len(paths) == len(many_starts) == len(many_ends):
            raise ValueError("there must be as many starts and ends as paths")
        found: list[bytes | Exception] = [b""] * len(paths)
        nodes: dict[str, FileNode | Exception] = {}
        wanted: dict[B3Digest, list[tuple[int, int, int]]] = {}
        for number, (path, start, end) in enumerate(zip(paths, many_starts, many_ends, strict=True)):
            if path not in nodes:
                try:
                    nodes[path] = self._file(path)
                except (OSError, CastoreError) as error:
                    nodes[path] = error
            node = nodes[path]
            if isinstance(node, Exception):
                found[number] = node
                continue
            begin, stop, _step = slice(start, end).indices(node.size)
            wanted.setdefault(node.digest, []).append((number, begin, max(stop, begin)))
        for digest, ranges in wanted.items():
            try:
                parts = read_ranges(self.blobs, digest, [(begin, stop) for _, begin, stop in ranges])
            except CastoreError as error:
                for number, *_ in ranges:
                    found[number] = error
                continue
            for (number, *_), part in zip(ranges, parts, strict=True):
                found[number] = part
        if on_error != "return":
            for each in found:
                if isinstance(each, Exception):
                    raise each
        return found

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = None, outfile: Any = None, **_kwargs: Any
    ) -> None:
        """Copy a file, or the folder that a directory stands for, to this machine."""
        if outfile is None and hasattr(lpath, "write"):
            outfile = lpath
        rpath = self._strip_protocol(rpath)
        node = self._find(rpath)[0]
        if outfile is None and isinstance(node, DirectoryNode):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        if not isinstance(node, FileNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), rpath)
        with CastoreFile(self.blobs.open(node.digest), rpath) as reader:
            if callback is not None:
                callback.set_size(reader.size)
            if outfile is not None:
                self._copy(reader, outfile, callback)
                return
            Path(lpath).parent.mkdir(parents=True, exist_ok=True)
            with Path(lpath).open("wb", buffering=0) as out:
                self._copy(reader, out, callback)

    @staticmethod
    def _copy(reader: CastoreFile, out: Any, callback: Any) -> None:
        while view := reader.read_view(1 << 20):
            size = len(view)
            while view:
                view = view[out.write(view) or len(view) :]
            if callback is not None:
                callback.relative_update(size)

    # -- writing, in a transaction --

    def _draft(self, path: str) -> tuple[Draft, TreePath]:
        """Return the draft of a path's tree, and the path in it; raise `OSError` outside of a transaction."""
        path = self._strip_protocol(path)
        if not self._intrans:
            raise OSError(
                errno.EROFS,
                "trees do not change: write in a transaction (`with fs.transaction as new`), for a new one",
                path,
            )
        first, _, rest = path.partition("/")
        drafts = self._transaction.drafts
        try:
            first, root, below, _directories = self._split(path)
        except FileNotFoundError:
            named = _parsed(first)
            if not isinstance(named, RefName) or named.at is not None:
                raise
            root, below = None, path_of(rest)  # A new ref.
        if first not in drafts:
            if root is not None and not isinstance(root, DirectoryNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), first)
            named = _parsed(first)
            if isinstance(named, RefName) and named.at is not None:
                raise OSError(errno.EROFS, f"{first} is a snapshot, which stays as it is", path)
            before = self.refs.get(named.name) if isinstance(named, RefName) else None
            if before is not None:
                root = before.node
            drafts[first] = Draft(self.directories, root), before
        return drafts[first][0], below

    def mkdir(self, path: str, create_parents: bool = True, **_kwargs: Any) -> None:
        """Make a directory; in a transaction alone."""
        draft, place = self._draft(path)
        if self._type(path) is not None and place:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if not create_parents and len(place) > 1 and not self.isdir(self._parent(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._parent(path))
        draft.make_directory(place)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those that lead there; in a transaction alone."""
        draft, place = self._draft(path)
        if self._type(path) is not None and not exist_ok:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        draft.make_directory(place)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory; in a transaction alone."""
        draft, place = self._draft(path)
        draft.remove(place, directory=True)

    def rm_file(self, path: str) -> None:
        """Remove a file, a link or an empty directory from a tree; in a transaction alone."""
        draft, place = self._draft(path)
        if place:
            node = self._find(self._strip_protocol(path), follow=False)[0]
            draft.remove(place, directory=isinstance(node, DirectoryNode))

    _rm = rm_file

    def cp_file(self, path1: str, path2: str, **_kwargs: Any) -> None:
        """Let a file stand in a second place; no byte is copied. In a transaction alone."""
        draft, place = self._draft(path2)
        node = self._find(self._strip_protocol(path1))[0]
        if isinstance(node, DirectoryNode):
            draft.make_directory(place)
        else:
            draft.put(place, node)

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_kwargs: Any) -> None:
        """Write bytes as a file; in a transaction alone."""
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **_kwargs: Any
    ) -> None:
        """Store a file of this machine, with its mark of a program; in a transaction alone."""
        draft, place = self._draft(rpath)
        if mode == "create" and self.exists(rpath):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), rpath)
        status = Path(lpath).stat()
        if stat.S_ISDIR(status.st_mode):
            draft.make_directory(place)
            return
        try:
            digest = self.blobs.put_file(
                lpath, progress=None if callback is None else callback.relative_update
            )
        except SourceError as error:
            raise OSError(errno.EIO, error.message, str(lpath)) from error
        with self.blobs.open(digest) as reader:
            size = reader.size
        draft.put(place, FileNode(digest, size, bool(status.st_mode & stat.S_IXUSR)))

    def touch(self, path: str, truncate: bool = True, **_kwargs: Any) -> None:
        """Make an empty file; in a transaction alone."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def invalidate_cache(self, path: str | None = None) -> None:
        """Do nothing: what is remembered does not change, and refs are asked for each time."""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _parsed(first: str) -> Any:
    try:
        return parse_root(first)
    except (InvalidDigestError, InvalidRefError):
        return None


def _path_of(stores: Composition) -> str | None:
    """Return the path of the file that a composition is from; `None` for the built-in one."""
    path = absolute(stores.name)
    return path if os.path.isfile(path) else None  # noqa: PTH113
