"""Every error castore raises, grouped by what a handler would do.

::

    CastoreError                        castore
    ├── BlobNotFoundError               blob-not-found       absent (also a KeyError)
    ├── NodeNotFoundError               node-not-found       no such root, or nothing there (also a KeyError)
    ├── CorruptBlobError                corrupt-blob         present, but not the bytes it should be
    │   ├── CorruptChunkError           corrupt-chunk        a chunk whose bytes have another digest
    │   ├── BadFrameError               bad-frame            a chunk that is no whole zstd frame
    │   │   └── OversizedFrameError     oversized-frame      a frame that has or becomes more than allowed
    │   ├── BadIndexError               bad-index            a blob index that cannot be right
    │   ├── MissingChunkError           missing-chunk        an index whose chunk is gone
    │   └── CorruptDirectoryError       corrupt-directory    bytes that are not the directory they should be
    │       └── MissingDirectoryError   missing-directory    a tree of which a directory is gone
    ├── CorruptRefError                 corrupt-ref          what is stored under a name is no ref
    ├── UnavailableError                unavailable          could not find out: try later, or elsewhere
    │   └── BatchError                  batch                a call for many, done in part; see its faults
    ├── UnsupportedError                unsupported          this service cannot do that, ever
    ├── InvalidDigestError              invalid-digest       not the text or bytes of a digest (a ValueError)
    ├── InvalidSeekError                invalid-seek         a seek outside the blob (OSError, ValueError)
    ├── InvalidDirectoryError           invalid-directory    no directory can be so (a ValueError)
    │   ├── DirectorySizeError          directory-size       an entry that gives its directory a wrong size
    │   └── DirectoryOrderError         directory-order      directories that are no tree, or in no order
    ├── InvalidRefError                 invalid-ref          no ref can be so, or be called so (a ValueError)
    ├── MergeConflictError              merge-conflict       trees that have different things at one path
    ├── WriterClosedError               writer-closed        used after close or abort (a ValueError)
    ├── SourceError                     source               what was to be stored failed (an OSError)
    │   └── SourceChangedError          source-changed       it is being written to (an OSError)
    ├── TargetError                     target               what was to be written failed (an OSError)
    ├── CompositionError                composition          the config is wrong; see its problems
    │   └── CycleError                  cycle                instances that need each other; see its chain
    ├── BuildError                      build                an instance could not be built; see its chain
    ├── ClosedError                     closed               the composition is closed already
    └── PluginError                     plugin               a plugin is broken
        ├── DuplicatePluginError        duplicate-plugin     two plugins, or two types, with one name
        └── MissingDriverError          missing-driver       an optional package is not installed

Absent, corrupt and unavailable are never mixed up: no error of a backend turns into "absent", and no
byte that failed its digest check reaches a caller.

The codes are stable: log them, match on them. All errors pickle.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from castore.digest import B3Digest
    from castore.problems import Problem


def _rebuild(cls: type[CastoreError], args: tuple[Any, ...], state: dict[str, Any]) -> CastoreError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _picklable(value: Any) -> Any:
    """Return *value*, or in place of a backend's error that does not pickle one that says the same."""
    if not isinstance(value, BaseException) or isinstance(value, CastoreError):
        return value
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001 - whatever a stranger's class raises
        return Exception(describe(value))
    return value


class CastoreError(Exception):
    """The root of all errors that castore raises."""

    code: ClassVar[str] = "castore"

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """What went wrong, in one sentence or more."""
        return str(self.args[0])

    def __str__(self) -> str:
        # KeyError would show its repr, OSError its errno.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls the class with `args`, which keyword-only fields do not survive.
        state = {name: _picklable(value) for name, value in self.__dict__.items()}
        return _rebuild, (type(self), self.args, state)


class BlobNotFoundError(CastoreError, KeyError):
    """No blob and no chunk has this digest."""

    code = "blob-not-found"

    def __init__(self, digest: B3Digest, *, instance: str | None = None) -> None:
        where = f" in `{instance}`" if instance else ""
        super().__init__(f"no blob {digest}{where}")
        self.digest = digest
        self.instance = instance


class NodeNotFoundError(CastoreError, KeyError):
    """No root has this digest or name, or it has nothing at a path, or nothing of the kind that is needed."""

    code = "node-not-found"


class CorruptBlobError(CastoreError):
    """What is stored under *expected* is something else.

    Attributes:
        expected: The digest that was asked for.
        found: The digest of what was there, or `None` where there was nothing to hash.
        key: Where it is stored (an object key, a row ...), if that is known.
        passed_over: Whether that is passed over from now on, or mended: opened anew the blob is right. Only
            what was read before the error is of no use.
    """

    code = "corrupt-blob"

    def __init__(
        self,
        message: str,
        *,
        expected: B3Digest,
        found: B3Digest | None = None,
        key: str | None = None,
        passed_over: bool = False,
    ) -> None:
        super().__init__(message if key is None else f"{message} (stored as {key})")
        self.expected = expected
        self.found = found
        self.key = key
        self.passed_over = passed_over


class CorruptChunkError(CorruptBlobError):
    """A chunk's bytes have another digest than its name says, or another size than its index says."""

    code = "corrupt-chunk"


class BadFrameError(CorruptBlobError):
    """A stored chunk does not decompress: cut short, damaged, or followed by something else."""

    code = "bad-frame"


class OversizedFrameError(BadFrameError):
    """A stored chunk has, or unpacks to, more than its index, or any, allows; it was not read further."""

    code = "oversized-frame"


class BadIndexError(CorruptBlobError):
    """A blob index that cannot be right: undecodable, or with impossible digests or sizes."""

    code = "bad-index"


class MissingChunkError(CorruptBlobError):
    """A blob's index is there, but one of its chunks is not.

    `expected` is the chunk's digest; `blob` that of the blob.
    """

    code = "missing-chunk"

    def __init__(self, *, blob: B3Digest, chunk: B3Digest, key: str | None = None) -> None:
        super().__init__(f"blob {blob} is incomplete: its chunk {chunk} is missing", expected=chunk, key=key)
        self.blob = blob


class CorruptDirectoryError(CorruptBlobError):
    """The encoding of a directory that has another digest, or is not as an encoding must be.

    Attributes:
        expected: The digest that was asked for.
        found: That of what was there, or `None`.
    """

    code = "corrupt-directory"


class MissingDirectoryError(CorruptDirectoryError):
    """A tree is there, but one of its directories is not.

    `expected` is the digest of that directory; `path` where it is in the tree, as bytes, if that is known.
    """

    code = "missing-directory"

    def __init__(self, digest: B3Digest, *, path: bytes | None = None, key: str | None = None) -> None:
        where = "" if path is None else f" at {path.decode('utf-8', 'backslashreplace')!r}"
        super().__init__(f"directory {digest}{where} of the tree is missing", expected=digest, key=key)
        self.path = path


class InvalidDirectoryError(CastoreError, ValueError):
    """What is no directory, or no name, target or entry of one.

    Attributes:
        rule: Which rule is broken, in a word: `empty`, `dot-dot`, `too-long`, `sorting`, `duplicate` ...
        name: The name that it is about, as bytes; `None` if it is about none.
    """

    code = "invalid-directory"

    def __init__(self, message: str, *, rule: str, name: bytes | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.name = name


class DirectorySizeError(InvalidDirectoryError):
    """An entry says another size of a directory than that has.

    Attributes:
        specified: The size that the entry gives.
        possible: The sizes that would be right.
    """

    code = "directory-size"

    def __init__(self, name: bytes, specified: int, possible: tuple[int, ...]) -> None:
        self.specified = specified
        self.possible = possible
        sizes = " or ".join(str(size) for size in possible)
        shown = name.decode("utf-8", "backslashreplace")
        super().__init__(
            f"the entry {shown!r} gives its directory the size {specified}, which is {sizes}",
            rule="size",
            name=name,
        )


class DirectoryOrderError(InvalidDirectoryError):
    """Directories that do not make up one tree, or did not come in the order that was promised.

    Attributes:
        digests: Those that it is about, ten at most.
    """

    code = "directory-order"

    def __init__(self, message: str, digests: Iterable[B3Digest] = ()) -> None:
        super().__init__(message, rule="order")
        self.digests = tuple(digests)


class InvalidRefError(CastoreError, ValueError):
    """What is no name of a ref, or cannot be written as one.

    Attributes:
        name: The name that it is about; `None` if it is about none.
    """

    code = "invalid-ref"

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class CorruptRefError(CastoreError):
    """What is stored under the name of a ref is none.

    Attributes:
        name: The name.
        key: Where it is stored, if that is known.
    """

    code = "corrupt-ref"

    def __init__(self, name: str, reason: str, *, key: str | None = None) -> None:
        where = "" if key is None else f" (stored as {key})"
        super().__init__(f"the ref `{name}` cannot be read: {reason}{where}; set it anew, or delete it")
        self.name = name
        self.key = key


class UnavailableError(CastoreError):
    """A service could not answer. It is unknown whether the blob is there.

    Attributes:
        instance: The name of the service instance that failed.
        cause: The backend's own error.
        causes: Of a service over several others: their errors by their names.
    """

    code = "unavailable"

    def __init__(
        self, instance: str, cause: BaseException | str, *, causes: Mapping[str, CastoreError] | None = None
    ) -> None:
        super().__init__(f"`{instance}` is unavailable: {describe(cause)}")
        self.instance = instance
        self.cause = cause
        self.causes = dict(causes or {})


class BatchError(UnavailableError):
    """A call for many things was done in part.

    Attributes:
        done: The digests of what was done; of a claim, those that are there.
        faults: Why others were not, by their digests. What is in neither is not known.
    """

    code = "batch"

    def __init__(
        self, instance: str, faults: Mapping[B3Digest, CastoreError], *, done: Iterable[B3Digest] = ()
    ) -> None:
        self.done = frozenset(done)
        self.faults = dict(faults)
        first = next(iter(self.faults.values()), None)
        # A fault of the instance itself is told by its cause, so that its name does not stand there twice.
        own = isinstance(first, UnavailableError) and first.instance == instance
        cause = first.cause if own and isinstance(first, UnavailableError) else first or "nothing is known"
        count = len(self.faults)
        words = f"{describe(cause)} (and {count - 1} more like this)" if count > 1 else cause
        super().__init__(instance, words)


class UnsupportedError(CastoreError):
    """The service cannot do this at all; trying again does not help."""

    code = "unsupported"


class InvalidDigestError(CastoreError, ValueError):
    """Not a BLAKE3 digest."""

    code = "invalid-digest"


class InvalidSeekError(CastoreError, OSError, ValueError):
    """A seek to before the start or beyond the end of a blob. The position is unchanged."""

    code = "invalid-seek"

    # On the class, where it survives pickling: that of an object is not in its `__dict__`.
    errno = errno.EINVAL


class MergeConflictError(CastoreError):
    """Trees that were to become one have different things at the same paths.

    Attributes:
        paths: The paths, in order, as bytes; at most 1,000 of them.
    """

    code = "merge-conflict"

    def __init__(self, paths: Iterable[Iterable[bytes]]) -> None:
        self.paths = tuple(b"/".join(path) for path in paths)
        shown = ", ".join(repr(path.decode("utf-8", "backslashreplace")) for path in self.paths[:10])
        more = f" and {len(self.paths) - 10} more" if len(self.paths) > 10 else ""
        super().__init__(f"the trees have different things at {shown}{more}")


class WriterClosedError(CastoreError, ValueError):
    """A writer was used after `close` or `abort`, or closed after it had failed."""

    code = "writer-closed"


class SourceError(CastoreError, OSError):
    """What was to be stored could not be read. Nothing was stored."""

    code = "source"


class SourceChangedError(SourceError):
    """A file was changed each time while it was read: it is not known what it had in it at any moment."""

    code = "source-changed"


class TargetError(CastoreError, OSError):
    """A folder or file that was to be made could not be written. Nothing of it is there."""

    code = "target"


class CompositionError(CastoreError):
    """A composition cannot be used; `problems` has everything that is wrong with it."""

    code = "composition"

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class CycleError(CompositionError):
    """Instances that need each other. `chain` has their names, each needing the next, the last the first."""

    code = "cycle"

    def __init__(self, message: str, chain: Sequence[str], problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, problems)
        self.chain = list(chain)


class BuildError(CastoreError):
    """An instance could not be built. `chain` leads from the instance asked for to the one that failed."""

    code = "build"

    def __init__(self, chain: Sequence[str], cause: BaseException) -> None:
        names = " → ".join(f"`{name}`" for name in chain)
        super().__init__(f"cannot build {names}: {describe(cause)}")
        self.chain = list(chain)
        self.cause = cause


class ClosedError(CastoreError):
    """The composition was closed; open it again to use it."""

    code = "closed"


class PluginError(CastoreError):
    """A plugin does not do what a plugin must.

    Attributes:
        plugin: The name of its entry point.
        distribution: The installed distribution that brought it, with its version.
    """

    code = "plugin"

    def __init__(self, message: str, *, plugin: str | None = None, distribution: str | None = None) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution


class DuplicatePluginError(PluginError):
    """Two plugins have one name, or two types one tag."""

    code = "duplicate-plugin"


class MissingDriverError(PluginError):
    """An optional dependency is not installed; the message says what to install."""

    code = "missing-driver"


_LONGEST_NAME: Final = 4096


def describe(cause: BaseException | str) -> str:
    """Return *cause* as one readable phrase, for use inside another message."""
    if isinstance(cause, str):
        return cause
    text = str(cause).strip()
    if isinstance(cause, CastoreError):
        return text
    if isinstance(cause, OSError) and cause.strerror:
        name = "" if cause.filename is None else str(cause.filename)
        # A longer one is no name that a system would take.
        name = name if len(name) <= _LONGEST_NAME else f"{name[:100]}…"
        return f"{cause.strerror}: {name}" if name else cause.strerror
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
