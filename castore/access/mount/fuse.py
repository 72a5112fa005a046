"""A mount by FUSE: what the kernel asks for, answered from a tree, or from all refs."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import attrs

from castore.access.mount.attributes import Attributes, inode, mode
from castore.access.mount.points import MountError, mount_points, mounted_at, unmount
from castore.access.mount.refs import LASTING, MountedRefs
from castore.access.mount.trees import (
    NAME,
    FolderOfNames,
    MountedNode,
    MountedTree,
    Stores,
    as_bytes,
    as_text,
)
from castore.errors import CastoreError, MissingDriverError, UnavailableError
from castore.format.nodes import DirectoryNode, FileNode, SymlinkNode
from castore.threads.forks import new_lock

F = TypeVar("F", bound=Callable[..., Any])
Give: TypeAlias = Callable[[str, Mapping[str, int] | None, int, bool], bool]

_FOR_EVER: Final = 86400.0
"""For so many seconds the kernel keeps names and attributes of what does not change."""

_THREADS: Final = 64
"""So many requests may wait for a store; others are answered meanwhile."""

_SILENCE: Final = 60.0
"""The same line is not written again within so many seconds: the kernel asks again and again."""

_MOST_LINES: Final = 1024
_FEW: Final = 20
_MOST_LISTED: Final = 8
"""Longer lists than that are kept for the next part, of so many folders."""

_MOST_TOLD: Final = 1 << 16

_READDIR_PLUS: Final = 1
_FILL_PLUS: Final = 2
"""FUSE_READDIR_PLUS, FUSE_FILL_DIR_PLUS: with a name comes its status, which is not asked for any more."""

_BLOCK: Final = 4096
_READDIRPLUS_AUTO: Final = 1 << 14
_ASYNC_READ: Final = 1
"""FUSE_CAP_ASYNC_READ: parts of a file are asked for before those in front of them have come."""

_MOST_COUNT: Final = (1 << 63) - 1
_STDERR: Final = 2
_NOISE: Final = "max threads value"
"""libfuse 3.14.0 always says that it ignores a wrong number of threads, which nobody has given."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@attrs.frozen(kw_only=True)
class MountOptions:
    """How a mount is made.

    Attributes:
        source: What is said to be mounted, in lists of what is.
        allow_other: Whether other users may look into it; the kernel checks the modes then.
        read_ahead: How many bytes the kernel may ask for ahead while a file is read in order.
    """

    source: str = "castore"
    allow_other: bool = False
    read_ahead: int = 1 << 20


class Mounted(Protocol):
    """What is mounted."""

    def find(self, path: str) -> MountedNode:
        """Return what is at a path; raise `FileNotFoundError` if nothing is."""


def load() -> Any:
    """Return the module `mfusepy`, over libfuse 3.

    Raises `MissingDriverError` without it, `MountError` without that library.
    """
    before = os.environ.get("FUSE_LIBRARY_NAME")
    # By itself it takes libfuse 2 where both are there.
    os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
    try:
        import mfusepy  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingDriverError(
            "`castore mount` needs a package that is not installed: pip install 'castore[mount]'"
        ) from error
    except (OSError, AttributeError) as error:
        raise MountError(
            "the library libfuse 3 is not there: install the system's package for it, such as"
            f" `apt-get install fuse3` ({error})"
        ) from error
    finally:
        if before is None:
            os.environ.pop("FUSE_LIBRARY_NAME", None)
    return mfusepy


@attrs.frozen
class MountView:
    """What a mount shows.

    Attributes:
        mounted: What is at which path.
        stores: What is read from.
        attributes: What nodes are like.
        report: Called with a line on each request that could not be answered.
    """

    mounted: Mounted
    stores: Stores
    attributes: Attributes = attrs.field(factory=Attributes)
    report: Callable[[str], object] = lambda _: None


def run(
    view: MountView, folder: str, options: MountOptions, ready: Callable[[], object] = lambda: None
) -> None:
    """Mount, and answer the kernel until it is unmounted, or SIGTERM, SIGINT or SIGHUP come.

    For the main thread. Signals that are ignored stay so.

    Arguments:
        view: What is mounted.
        folder: Where; an empty folder.
        options: How.
        ready: Called when it is mounted.

    Raises `MountError` if it cannot be mounted.
    """
    fuse = load()
    if options.allow_other and os.geteuid() and not _others_allowed():
        raise MountError(
            "--allow-other is for root, unless /etc/fuse.conf has a line `user_allow_other`; without it only"
            " you can look into the mount"
        )
    kind = _RefsOperations if isinstance(view.mounted, MountedRefs) else _Operations
    words = _HeldWords()
    operations = kind(view, folder, options, ready, words.release)
    with _signals_of_libfuse(), words:
        try:
            # It ends when the file system does.
            _engine(fuse)(operations, folder, foreground=True, raw_fi=True, **_flags(fuse, options))
        except RuntimeError as error:
            if not operations.mt_is_ready:
                raise MountError(f"{folder} cannot be mounted: {words.read() or error}") from None
        except Exception as error:
            raise MountError(f"the mount at {folder} has ended: {error}") from error
        finally:
            # After an error of its own libfuse leaves it to us.
            with contextlib.suppress(MountError, OSError):
                _end_own(folder)


class _HeldWords:
    """Keeps what libfuse writes to stderr, until it is mounted: what it says of its own faults is for nobody.

    Where it cannot be mounted those are the words that say why.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._stderr = -1

    def __enter__(self) -> None:
        sys.stderr.flush()
        self._file = tempfile.TemporaryFile()
        self._stderr = os.dup(_STDERR)
        os.dup2(self._file.fileno(), _STDERR)

    def release(self) -> None:
        """Give stderr back."""
        if self._stderr >= 0:
            os.dup2(self._stderr, _STDERR)
            os.close(self._stderr)
            self._stderr = -1

    def read(self) -> str:
        """Return what was written, in one line."""
        self._file.seek(0)
        lines = self._file.read().decode("utf-8", "replace").splitlines()
        return "; ".join(line.strip() for line in lines if line.strip() and _NOISE not in line)

    def __exit__(self, *_: object) -> None:
        self.release()
        self._file.close()


def _end_own(folder: str) -> None:
    there = mounted_at(folder)
    if there is not None and there.is_castores and there.is_dead:
        unmount(folder, lazy=True)


def _others_allowed() -> bool:
    with contextlib.suppress(OSError):
        lines = Path("/etc/fuse.conf").read_text("utf-8", "replace").splitlines()
        return any(line.split("#")[0].strip() == "user_allow_other" for line in lines)
    return False


def _flags(fuse: Any, options: MountOptions) -> dict[str, Any]:
    # Commas stand between options.
    source = options.source.replace("\\", "\\\\").replace(",", "\\,")
    flags: dict[str, Any] = {
        "ro": True,
        "nosuid": True,
        "nodev": True,
        "noatime": True,
        "fsname": source,
        "subtype": "castore",
        "max_read": options.read_ahead,
    }
    if options.allow_other:
        flags |= {"allow_other": True, "default_permissions": True}
    if (fuse.fuse_version_major, fuse.fuse_version_minor) >= (3, 12):
        flags["max_threads"] = _THREADS
    return flags


@contextlib.contextmanager
def _signals_of_libfuse() -> Iterator[None]:
    """Leave signals to libfuse, which takes over those that nobody has a handler for."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(method: F) -> F:
    """Turn whatever a method raises into an error of the system that a program is told; it is reported."""

    @functools.wraps(method)
    def answer(self: _Operations, path: str, *args: Any) -> Any:
        try:
            return method(self, path.strip("/"), *args)
        except CastoreError as error:
            self.mt_report_once(path, error)
            raise OSError(_number(error), str(error)) from None
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENODATA, errno.EINVAL}:
                raise
            self.mt_report_once(path, error)
            raise OSError(errno.EIO, str(error)) from None
        except Exception as error:  # noqa: BLE001 - mfusepy would make EINVAL of it
            self.mt_report_once(path, error)
            raise OSError(errno.EIO, str(error)) from None

    return answer  # type: ignore[return-value]


def _number(error: CastoreError) -> int:
    if isinstance(error, UnavailableError) and (
        error.instance == NAME or isinstance(error.__cause__, TimeoutError)
    ):
        return errno.ETIMEDOUT
    return errno.EIO


class _Operations:
    """What mfusepy calls. It takes each attribute for an operation that has the name of one.

    Paths begin with a slash; bytes that are no UTF-8 stand in them as surrogates. The kernel keeps what it is
    told, as a tree does not change; so it need not say when a file is opened or closed.
    """

    use_ns = True

    mt_lasting = True
    """Whether what is in a folder stays as it is."""

    def __init__(
        self,
        view: MountView,
        folder: str,
        options: MountOptions,
        ready: Callable[[], object],
        hear: Callable[[], object],
    ) -> None:
        self.mt_hear = hear
        self.mt_mounted: Any = view.mounted
        self.mt_stores = view.stores
        self.mt_attributes = view.attributes
        self.mt_report = view.report
        self.mt_folder = folder
        self.mt_options = options
        self.mt_ready = ready
        self.mt_is_ready = False
        self.mt_lock = new_lock()
        self.mt_said: dict[str, float] = {}
        self.mt_sizes: tuple[int, int] | None = None
        # Folders of which the kernel was told all, and those of which it was told all so far.
        self.mt_told: set[str] = set()
        self.mt_telling: set[str] = set()
        self.mt_listed: dict[str, list[tuple[str, Any]]] = {}

    def init_with_config(self, connection: Any, config: Any) -> None:
        """Set up the connection; an error here ends it."""
        assert connection is not None
        assert config is not None
        self.mt_keep(config)
        config.use_ino = 1
        connection.max_read = self.mt_options.read_ahead
        connection.max_readahead = self.mt_options.read_ahead
        # One part after the other: then one reader has them all, and reads ahead.
        # And names always with their status: by itself the kernel asks so for the first few alone.
        connection.want &= ~(_ASYNC_READ | _READDIRPLUS_AUTO)
        connection.max_background = connection.congestion_threshold = _THREADS
        self.mt_read_ahead()
        self.mt_is_ready = True
        self.mt_hear()
        self.mt_ready()

    def mt_keep(self, config: Any) -> None:
        """Say how long the kernel keeps what it is told."""
        config.kernel_cache = 1
        config.entry_timeout = config.attr_timeout = config.negative_timeout = _FOR_EVER

    def mt_read_ahead(self) -> None:
        """Let the kernel ask for more at once, where this process may say so; else it is 128 KiB."""
        for there in mount_points():
            if there.path != self.mt_folder:
                continue
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{there.device}/read_ahead_kb").write_text(
                    str(self.mt_options.read_ahead >> 10), "ascii"
                )

    def mt_report_once(self, path: str, error: Exception) -> None:
        """Write a line, unless it was written lately."""
        line = f"{path}: {error}" if isinstance(error, CastoreError) else f"{path}: {error!r}"
        now = time.monotonic()
        with self.mt_lock:
            if now - self.mt_said.get(line, float("-inf")) < _SILENCE:
                return
            if len(self.mt_said) >= _MOST_LINES:
                self.mt_said.clear()
            self.mt_said[line] = now
        self.mt_report(line.encode("utf-8", "backslashreplace").decode())

    @_answers
    def getattr(self, path: str, _: Any = None) -> Mapping[str, int]:
        """Return the status of a file."""
        return self.mt_attributes.status(self.mt_mounted.find(path).node, path)

    @_answers
    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        node = self.mt_mounted.find(path).node
        if not isinstance(node, SymlinkNode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return as_text(node.target)

    def readdir(self, path: str, info: Any) -> None:
        """Do nothing: see `mt_readdir`."""
        raise NotImplementedError

    @_answers
    def mt_readdir(self, path: str, give: Give, start: int, plus: bool) -> int:
        """Give the names in a folder, from the one with the number *start* on, until *give* takes no more.

        It takes a name, the status of what that stands for, and the number of the next one. The status is
        whole where *plus* asks for that, and the kernel was not told before; else it is type and inode.
        """
        entries = self.mt_entries(path, start)
        above = f"{path}/" if path else ""
        attributes = self.mt_attributes
        plus = plus and path not in self.mt_told
        if not plus:
            self.mt_telling.discard(path)
        elif not start:
            self.mt_telling.add(path)
        for number in range(start, len(entries)):
            name, node = entries[number]
            status: Mapping[str, int] | None = None
            if node is not None and plus:
                status = attributes.status(node, above + name)
            elif node is not None:
                status = {"st_ino": inode(node, above + name), "st_mode": mode(node)}
            if not give(name, status, number + 1, plus):
                return 0
        if path in self.mt_telling and self.mt_lasting:
            if len(self.mt_told) >= _MOST_TOLD:
                self.mt_told.clear()
                self.mt_telling.clear()
            self.mt_told.add(path)
        return 0

    def mt_entries(self, path: str, start: int) -> list[tuple[str, Any]]:
        """Return what is in a folder; for who goes on with it as it was when he began."""
        with self.mt_lock:
            listed = self.mt_listed.pop(path, None) if start else None
        if listed is None:
            found = self.mt_mounted.find(path)
            if isinstance(found.node, FolderOfNames):
                entries: Mapping[Any, Any] = found.node.entries
            elif isinstance(found.node, DirectoryNode):
                entries = found.tree.directory(found.below)
            else:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            listed = [(".", None), ("..", None), *((as_text(name), node) for name, node in entries.items())]
        if len(listed) > _FEW:
            with self.mt_lock:
                self.mt_listed[path] = listed
                while len(self.mt_listed) > _MOST_LISTED:
                    del self.mt_listed[next(iter(self.mt_listed))]
        return listed

    def read(self, path: str, size: int, offset: int, info: Any) -> bytes:
        """Do nothing: see `mt_read`."""
        raise NotImplementedError

    @_answers
    def mt_read(self, path: str, buffer: Any, size: int, offset: int) -> int:
        """Write bytes of a file, which were checked, to where libfuse wants them; return how many."""
        node = self.mt_mounted.find(path).node
        if not isinstance(node, FileNode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        with self.mt_stores.reading(node, offset, size) as view:
            if view:
                ctypes.memmove(buffer, ctypes.byref(ctypes.c_char.from_buffer(view)), len(view))
            return len(view)

    @_answers
    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return list(self.mt_attributes.xattrs(self.mt_mounted.find(path).node, path))

    @_answers
    def getxattr(self, path: str, name: str, _: int = 0) -> bytes:
        """Return an extended attribute."""
        found = self.mt_attributes.xattrs(self.mt_mounted.find(path).node, path).get(name)
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found

    @_answers
    def statfs(self, _: str) -> dict[str, int]:
        """Return how much there is: all is used, nothing is free."""
        size, count = self.mt_size()
        return {
            "f_bsize": _BLOCK,
            "f_frsize": _BLOCK,
            "f_blocks": min(-(-size // _BLOCK), _MOST_COUNT),
            "f_files": count,
            "f_namemax": 255,
        }

    def mt_size(self) -> tuple[int, int]:
        """Return how many bytes the tree has, and how many files; it is gone through once."""
        if self.mt_sizes is None:
            tree: MountedTree = self.mt_mounted
            self.mt_sizes = self.mt_stores.ask(tree.measure)
        return self.mt_sizes


class _RefsOperations(_Operations):
    """The same for all refs, which may be set anew: then files are read anew, too."""

    mt_lasting = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mt_open: dict[int, str] = {}
        self.mt_last = 0

    def mt_keep(self, config: Any) -> None:
        """Say how long the kernel keeps what it is told: contents as long as a ref stays."""
        config.entry_timeout = config.attr_timeout = config.negative_timeout = LASTING

    @_answers
    def open(self, path: str, info: Any) -> int:
        """Note that a file is open."""
        refs: MountedRefs = self.mt_mounted
        found = refs.find(path)
        info.keep_cache = refs.open(found)
        assert found.ref is not None
        with self.mt_lock:
            self.mt_last += 1
            info.fh = self.mt_last
            self.mt_open[self.mt_last] = found.ref
        return 0

    @_answers
    def release(self, _: str, info: Any) -> int:
        """Note that a file is closed."""
        with self.mt_lock:
            ref = self.mt_open.pop(info.fh)
        self.mt_mounted.release(ref)
        return 0

    def mt_size(self) -> tuple[int, int]:
        """Return nothing: to go through all trees would take too long."""
        return 0, 0


def _engine(fuse: Any) -> Any:
    """Return mfusepy's class, with other ways for what costs most.

    The bytes of files are not copied for Python, and what is in a folder comes with its status.
    """

    class Engine(fuse.FUSE):  # type: ignore[misc] # mfusepy is loaded when it is needed
        def read(self, path: bytes, buffer: Any, size: int, offset: int, _: Any) -> int:
            count: int = self.operations.mt_read(as_text(path), buffer, size, offset)
            return count

        def readdir_fuse_3(
            self, path: bytes, buffer: Any, filler: Any, offset: int, _: Any, flags: int
        ) -> int:
            entry = fuse.c_stat()

            def give(name: str, status: Mapping[str, int] | None, following: int, plus: bool) -> bool:
                if status is None:
                    return not filler(buffer, as_bytes(name), None, following, 0)
                fuse.set_st_attrs(entry, status, use_ns=True)
                return not filler(buffer, as_bytes(name), entry, following, _FILL_PLUS if plus else 0)

            done: int = self.operations.mt_readdir(as_text(path), give, offset, bool(flags & _READDIR_PLUS))
            return done

    return Engine
