"""The errors: one tree with stable codes, readable messages, and a round trip through pickle."""

from __future__ import annotations

import copy
import errno
import inspect
import io
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from castore import errors
from castore.digest import B3Digest
from castore.errors import CastoreError, describe

WANTED = B3Digest.of(b"wanted")
FOUND = B3Digest.of(b"found")

# Codes are for ever: a line may be added, none may change.
CODES = {
    "castore": errors.CastoreError,
    "blob-not-found": errors.BlobNotFoundError,
    "node-not-found": errors.NodeNotFoundError,
    "corrupt-blob": errors.CorruptBlobError,
    "corrupt-chunk": errors.CorruptChunkError,
    "bad-frame": errors.BadFrameError,
    "oversized-frame": errors.OversizedFrameError,
    "bad-index": errors.BadIndexError,
    "missing-chunk": errors.MissingChunkError,
    "corrupt-directory": errors.CorruptDirectoryError,
    "missing-directory": errors.MissingDirectoryError,
    "corrupt-ref": errors.CorruptRefError,
    "unavailable": errors.UnavailableError,
    "batch": errors.BatchError,
    "unsupported": errors.UnsupportedError,
    "invalid-digest": errors.InvalidDigestError,
    "invalid-seek": errors.InvalidSeekError,
    "invalid-directory": errors.InvalidDirectoryError,
    "directory-size": errors.DirectorySizeError,
    "directory-order": errors.DirectoryOrderError,
    "invalid-ref": errors.InvalidRefError,
    "merge-conflict": errors.MergeConflictError,
    "writer-closed": errors.WriterClosedError,
    "source": errors.SourceError,
    "source-changed": errors.SourceChangedError,
    "target": errors.TargetError,
    "composition": errors.CompositionError,
    "cycle": errors.CycleError,
    "build": errors.BuildError,
    "closed": errors.ClosedError,
    "plugin": errors.PluginError,
    "duplicate-plugin": errors.DuplicatePluginError,
    "missing-driver": errors.MissingDriverError,
}

ALSO = {
    errors.BlobNotFoundError: (KeyError,),
    errors.NodeNotFoundError: (KeyError,),
    errors.InvalidDigestError: (ValueError,),
    errors.InvalidSeekError: (OSError, ValueError),
    errors.InvalidDirectoryError: (ValueError,),
    errors.InvalidRefError: (ValueError,),
    errors.WriterClosedError: (ValueError,),
    errors.SourceError: (OSError,),
    errors.TargetError: (OSError,),
    errors.SourceChangedError: (OSError,),
}

EXAMPLES: list[CastoreError] = [
    errors.CastoreError("it broke"),
    errors.BlobNotFoundError(WANTED),
    errors.BlobNotFoundError(WANTED, instance="near"),
    errors.NodeNotFoundError("nothing is there"),
    errors.CorruptBlobError("it rots", expected=WANTED),
    errors.CorruptBlobError("it rots", expected=WANTED, found=FOUND, key="blobs/b3/41f8"),
    errors.CorruptChunkError("it rots", expected=WANTED, found=FOUND, key="chunks/b3/41f8"),
    errors.BadFrameError("no frame", expected=WANTED, key="k"),
    errors.OversizedFrameError("a bomb", expected=WANTED),
    errors.BadIndexError("no index", expected=WANTED),
    errors.MissingChunkError(blob=WANTED, chunk=FOUND, key="k"),
    errors.CorruptDirectoryError("it rots", expected=WANTED, found=FOUND, key="k"),
    errors.MissingDirectoryError(WANTED, path=b"a/\xff", key="k"),
    errors.CorruptRefError("www", "it is no JSON", key="refs/www.json"),
    errors.UnavailableError("far", "the network is down"),
    errors.UnavailableError("far", ConnectionResetError(104, "Connection reset by peer")),
    errors.BatchError("far", {WANTED: errors.UnavailableError("far", "the network is down")}, done=[FOUND]),
    errors.UnsupportedError("cannot delete"),
    errors.InvalidDigestError("too short"),
    errors.InvalidSeekError("seek to -1"),
    errors.InvalidDirectoryError("no name", rule="empty", name=b""),
    errors.DirectorySizeError(b"keep", 42, (2, 1)),
    errors.DirectoryOrderError("two roots", [WANTED, FOUND]),
    errors.InvalidRefError("no name", name="a//b"),
    errors.MergeConflictError([(b"a", b"\xff")]),
    errors.WriterClosedError("is closed"),
    errors.SourceError("cannot read 'x'"),
    errors.TargetError("cannot write 'x'"),
    errors.SourceChangedError("cannot store 'x'"),
    errors.CompositionError("two problems", ["first", "second"]),  # type: ignore[list-item]
    errors.CycleError("a cycle", ["root", "other", "root"], ["first"]),  # type: ignore[list-item]
    errors.BuildError(["root", "far"], ValueError("no such bucket")),
    errors.ClosedError("closed"),
    errors.PluginError("broken", plugin="tape", distribution="castore-tape 1.0"),
    errors.DuplicatePluginError("twice", plugin="tape"),
    errors.MissingDriverError("pip install castore[s3]", distribution="castore 0.1.0"),
]


def _name(error: CastoreError) -> str:
    return type(error).__name__


def _classes() -> list[type[CastoreError]]:
    members = inspect.getmembers(errors, inspect.isclass)
    return [member for _, member in members if issubclass(member, CastoreError)]


def test_every_class_has_its_code_and_every_code_its_class() -> None:
    assert {cls.code: cls for cls in _classes()} == CODES


def test_no_class_borrows_the_code_of_its_parent() -> None:
    assert [cls for cls in _classes() if "code" not in vars(cls)] == []


PAGE = (Path(__file__).parents[1] / "docs/reference/errors.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "margin"), [(errors.__doc__ or "", "    "), (PAGE, "")], ids=["docstring", "page"]
)
def test_the_drawing_of_the_tree_is_that_of_the_classes(text: str, margin: str) -> None:
    """Each line is indented under its parent and has the class's own code."""
    drawn = {}
    path: list[str] = []
    for line in text.splitlines():
        match = re.match(margin + r"(?P<indent>[│├└─ ]*)(?P<name>\w+Error) +(?P<code>[a-z-]+)(  |$)", line)
        if match:
            depth = len(match["indent"]) // 4
            path[depth:] = [match["name"]]
            drawn[match["name"]] = (path[depth - 1] if depth else None, match["code"])

    def parent(cls: type[CastoreError]) -> str | None:
        return None if cls is CastoreError else cls.__bases__[0].__name__

    assert drawn == {cls.__name__: (parent(cls), cls.code) for cls in _classes()}


def test_the_tree_in_the_module_docstring_names_the_builtin_bases() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for cls, bases in ALSO.items():
        line = next(line for line in lines if f"── {cls.__name__} " in line)
        assert [base.__name__ for base in bases if base.__name__ not in line] == []


@pytest.mark.parametrize("cls", _classes(), ids=lambda cls: cls.__name__)
def test_an_error_is_a_builtin_one_exactly_where_that_is_promised(cls: type[CastoreError]) -> None:
    builtin = tuple(base for base in (KeyError, OSError, ValueError) if issubclass(cls, base))

    assert builtin == next((ALSO[base] for base in cls.__mro__ if base in ALSO), ())


def test_there_is_an_example_of_every_class() -> None:
    assert {type(error) for error in EXAMPLES} == set(_classes())


@pytest.mark.parametrize("error", EXAMPLES, ids=_name)
def test_str_of_an_error_is_its_message(error: CastoreError) -> None:
    """`KeyError` would show its repr, `OSError` its errno."""
    assert str(error) == error.message == error.args[0]
    assert "\n" not in str(error)


def _state(error: BaseException) -> Any:
    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return _state(value) if isinstance(value, BaseException) else value

    return type(error), error.args, {name: plain(value) for name, value in vars(error).items()}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", EXAMPLES, ids=_name)
def test_an_error_pickles_with_all_its_attributes(error: CastoreError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))

    assert _state(again) == _state(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=_name)
def test_an_error_can_be_copied(error: CastoreError) -> None:
    assert _state(copy.copy(error)) == _state(copy.deepcopy(error)) == _state(error)


def test_a_digest_in_a_pickled_error_is_still_a_digest() -> None:
    again = pickle.loads(pickle.dumps(errors.MissingChunkError(blob=WANTED, chunk=FOUND)))

    assert (type(again.blob), again.blob) == (B3Digest, WANTED)
    assert (type(again.expected), again.expected) == (B3Digest, FOUND)


def test_a_note_survives_pickling() -> None:
    error = errors.CastoreError("it broke")
    error.add_note("while reading chunk 7")

    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while reading chunk 7"]


def test_an_invalid_seek_has_the_errno_of_one() -> None:
    assert errors.InvalidSeekError("seek to -1").errno == errno.EINVAL


def test_the_errno_of_an_invalid_seek_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(errors.InvalidSeekError("seek to -1"))).errno == errno.EINVAL


class _TwoArguments(Exception):
    """As many libraries have them: `args` does not fit the constructor, so unpickling fails."""

    def __init__(self, message: str, response: object) -> None:
        super().__init__(message)
        self.response = response


class _HoldsALock(Exception):
    """As errors that refer to their client do: pickling fails."""

    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


@pytest.mark.parametrize("cause", [_TwoArguments("throttled", 503), _HoldsALock()], ids=["loads", "dumps"])
@pytest.mark.parametrize(
    "wrap",
    [lambda cause: errors.UnavailableError("far", cause), lambda cause: errors.BuildError(["root"], cause)],
    ids=["UnavailableError", "BuildError"],
)
def test_an_error_pickles_whatever_its_cause(wrap: Any, cause: Exception) -> None:
    """All errors pickle: the cause comes from a backend's library, which promised nothing."""
    error = wrap(cause)

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)


def test_a_blob_not_found_names_the_digest_and_where_it_was_looked_for() -> None:
    assert str(errors.BlobNotFoundError(WANTED)) == f"no blob {WANTED}"
    assert str(errors.BlobNotFoundError(WANTED, instance="near")) == f"no blob {WANTED} in `near`"
    assert errors.BlobNotFoundError(WANTED, instance="near").digest == WANTED


def test_a_corrupt_blob_says_where_it_is_stored() -> None:
    error = errors.CorruptBlobError("it rots", expected=WANTED, found=FOUND, key="blobs/b3/41f8")

    assert str(error) == "it rots (stored as blobs/b3/41f8)"
    assert (error.expected, error.found, error.key) == (WANTED, FOUND, "blobs/b3/41f8")


def test_a_missing_chunk_names_the_chunk_and_the_blob() -> None:
    error = errors.MissingChunkError(blob=WANTED, chunk=FOUND)

    assert str(WANTED) in str(error)
    assert str(FOUND) in str(error)
    assert (error.blob, error.expected, error.found) == (WANTED, FOUND, None)


def test_an_unavailable_service_is_named_with_its_cause() -> None:
    cause = ConnectionResetError(104, "Connection reset by peer")

    error = errors.UnavailableError("far", cause)

    assert str(error) == "`far` is unavailable: Connection reset by peer"
    assert (error.instance, error.cause) == ("far", cause)


def test_a_failed_build_shows_its_chain() -> None:
    error = errors.BuildError(("root", "far"), ValueError("no such bucket"))

    assert str(error) == "cannot build `root` → `far`: ValueError: no such bucket"
    assert error.chain == ["root", "far"]


def test_a_composition_error_keeps_its_problems_as_a_tuple() -> None:
    assert errors.CompositionError("x").problems == ()
    problems: list[Any] = ["first", "second"]
    assert [*errors.CompositionError("x", problems).problems] == problems
    assert type(errors.CycleError("x", ("a", "b"), problems).problems) is tuple
    assert errors.CycleError("x", ("a", "b")).chain == ["a", "b"]


@pytest.mark.parametrize(
    ("cause", "phrase"),
    [
        ("the network is down", "the network is down"),
        (errors.UnsupportedError("cannot delete"), "cannot delete"),
        (errors.SourceError("cannot read 'x'"), "cannot read 'x'"),
        (FileNotFoundError(2, "No such file or directory", "/a/b"), "No such file or directory: /a/b"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (OSError("plain"), "OSError: plain"),
        (io.UnsupportedOperation("not readable"), "UnsupportedOperation: not readable"),
        (ValueError("wrong"), "ValueError: wrong"),
        (ValueError(" \n"), "ValueError"),
        (TimeoutError(), "TimeoutError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
    ids=repr,
)
def test_describe_gives_one_readable_phrase(cause: BaseException | str, phrase: str) -> None:
    assert describe(cause) == phrase
