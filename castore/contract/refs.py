"""The contract of services of refs: names for roots, which can be set anew.

Everything else in castore is named by its digest and never changes. A ref is the one thing that does: a name
chosen by somebody, and the root that it stands for now (`NamedRoot`). What changes it may say what it expects
to find, so that of two who change it at once only one does.

A name has parts, joined by slashes::

    www                         a name that is set anew as time goes by
    www/2026-11-30T14-05-00Z    a snapshot of it: a name that has its time as last part, and stays

A backend subclasses `RefService` and writes four methods. Services are used by many threads at once.
"""

from __future__ import annotations

import contextlib
import datetime
import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias, TypeVar, cast, final

import attrs

from castore.contract.operations import Operation
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDigestError, InvalidRefError

if TYPE_CHECKING:
    from castore.format.nodes import Node

P = TypeVar("P")

LONGEST_PART: Final = 240
"""Bytes of a part of a name: with `.json` and a number behind, it can be the name of a file."""

LONGEST_NAME: Final = 1024
"""Bytes of a name."""

_PART: Final = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9a-fA-F]{8,}")
_FORMS: Final = ("b3", "dir")
"""What stands before the colon in a digest, or in a root that is one."""

_BATCH: Final = 256
"""How many refs a list has at hand."""


class Anything(enum.Enum):
    """The type of `ANY`."""

    ANY = "any"


ANY: Final = Anything.ANY
"""Stands for whatever a name is, or is not, at the moment."""


def check_name(name: str) -> str:
    """Return *name* if it can be that of a ref; raise `InvalidRefError`, which says why not.

    Its parts have letters, digits, `.`, `_`, `+` and `-`, begin with no dot and do not end in `.json`. It
    cannot be read as a digest, nor as the beginning of one.
    """
    wrong = _what_is_wrong_with(name)
    if wrong:
        raise InvalidRefError(f"{_shown(name)} cannot be the name of a ref: {wrong}", name=str(name))
    return name


def _what_is_wrong_with(name: str) -> str:
    if not isinstance(name, str) or not name:
        return "it is empty" if name == "" else "it is no text"
    if len(name) > LONGEST_NAME:
        return f"it has {len(name)} characters; {LONGEST_NAME} are the most"
    wrong = next(filter(None, map(_what_is_wrong_with_part, name.split("/"))), "")
    if wrong:
        return wrong
    if _DIGITS.fullmatch(name) or name in _FORMS:
        return "it could be read as a digest, or the beginning of one"
    try:
        B3Digest.parse(name)
    except InvalidDigestError:
        return ""
    return "it is a digest"


def _what_is_wrong_with_part(part: str) -> str:
    wrongs = (
        (not part, "a part of it is empty: it begins or ends with a slash, or has two in a row"),
        (part.startswith("."), "a part of it begins with a dot"),
        (
            not _PART.fullmatch(part),
            "it may have letters, digits, and `.`, `_`, `+`, `-`, with slashes between its parts",
        ),
        (
            len(part) > LONGEST_PART,
            f"a part of it has {len(part)} characters; {LONGEST_PART} are the most",
        ),
        (part.endswith(".json"), "a part of it ends in `.json`, as the files do that keep refs"),
    )
    return next((words for wrong, words in wrongs if wrong), "")


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:70]}...'"


def is_below(name: str, prefix: str) -> bool:
    """Tell whether a name is *prefix*, or has that before a slash; an empty one is before all names.

    With a slash at its end *prefix* does not mean the ref of that name itself.
    """
    bare = prefix.rstrip("/")
    return not bare or name.startswith(f"{bare}/") or name == prefix


def _as_utc(time: datetime.datetime) -> datetime.datetime:
    if not isinstance(time, datetime.datetime) or time.tzinfo is None:
        raise InvalidRefError(f"{time!r} cannot be the time of a ref: it needs a zone, such as UTC")
    return time.astimezone(datetime.UTC)


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def time_to_text(time: datetime.datetime) -> str:
    """Return a time in UTC as text, as RFC 3339 has it: none or six digits of a second, and `Z`."""
    return time.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"


def time_from_text(text: object) -> datetime.datetime:
    """Read such a time; raise `InvalidRefError` for anything else."""
    if isinstance(text, str) and _TIME.fullmatch(text):
        with contextlib.suppress(ValueError):
            return datetime.datetime.fromisoformat(text)
    raise InvalidRefError("the time is none, as `2026-11-30T14:05:00Z` is")


@attrs.frozen
class NamedRoot:
    """What a name stands for.

    Attributes:
        node: The root: a directory, and as well a file or a link.
        time: When it was made, in UTC; now, unless it is given.
        comment: What somebody wants to say of it.
        metadata: The blob that has the times, owners and modes of the tree; `None` if there is none.
        source: Where it comes from, such as the path of a folder.
    """

    node: Node
    time: datetime.datetime = attrs.field(factory=now, converter=_as_utc)
    comment: str = ""
    metadata: B3Digest | None = None
    source: str = ""


Expected: TypeAlias = "NamedRoot | Anything | None"
"""What somebody expects a name to be: that, anything, or nothing at all."""

FoundRefs: TypeAlias = "dict[str, NamedRoot | CastoreError]"
"""Refs by their names, or why one could not be had; one that is absent is left out."""


class RefService(ABC):
    """A place that keeps refs.

    Three outcomes are never mixed up: a ref is *absent*, what is there is none (`CorruptRefError`), or the
    service is *unavailable* (`UnavailableError`).

    A subclass needs no call of a constructor of this class.
    """

    high_latency: bool = False
    """Whether its requests mostly wait."""

    OPERATIONS: ClassVar[tuple[Operation, ...]] = ()

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names that are *prefix*, or below it (`is_below`), each once, in order.

        What is set or deleted meanwhile may or may not be among them.
        """

    @abstractmethod
    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return refs; one that is absent is left out, an error is why one could not be had.

        Raises `InvalidRefError` for what can be no name, and `UnavailableError` if nothing at all is known.
        """

    @abstractmethod
    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Let a name stand for a root; return whether it does.

        It survives the process, and the machine where the service promises that of anything.

        Arguments:
            name: The name.
            ref: What it is to stand for.
            expect: With `None` the name must be new; with a `NamedRoot` it must still stand for that. False
                is returned if somebody else was faster, and nothing is changed.

        Raises `InvalidRefError` for a name, or a ref, that cannot be; `CorruptRefError` if what is there is
        to be compared and is no ref; `UnsupportedError` if the service cannot compare.
        """

    @abstractmethod
    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Let a name stand for nothing; return whether it stood for something, or for what was expected.

        Raises as `set` does. The tree is not touched: it is a collector's once no root reaches it.
        """

    def capability(self, kind: Callable[..., P]) -> P | None:
        """Return what has the optional capability *kind*, or `None`; as `BlobService.capability`."""
        has_it = isinstance(kind, type) and isinstance(self, kind)
        return cast("P", self) if has_it else None

    def close(self) -> None:  # noqa: B027 - nothing to release is common
        """Release what the service holds. Closing again does nothing; using it afterwards is an error."""

    # -- written once, for all services --

    @final
    def get(self, name: str) -> NamedRoot | None:
        """Return what a name stands for, `None` if it is absent; raises what is wrong with it."""
        found = self.get_many((check_name(name),)).get(name)
        if isinstance(found, CastoreError):
            raise found
        return found

    @final
    def list(self, prefix: str = "") -> Iterator[tuple[str, NamedRoot]]:
        """Yield the names that are *prefix*, or below it, with what they stand for, in order.

        One that cannot be had ends the list, once all others have been yielded: then its error is raised.
        """
        failed: CastoreError | None = None
        names = self.names(prefix)
        while batch := list(islice(names, _BATCH)):
            found = self.get_many(batch)
            for name in batch:
                ref = found.get(name)
                if isinstance(ref, CastoreError):
                    failed = failed or ref
                elif ref is not None:
                    yield name, ref
        if failed is not None:
            raise failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The rows are about the class, and so come after it.
RefService.OPERATIONS = (
    Operation("names", RefService, repeatable=True, yields="iterator"),
    Operation(
        "get_many",
        RefService,
        repeatable=True,
        question=True,
        iterables=("names",),
        items="names",
        tells="found",
    ),
    # A second answer to what has an expectation could be about what the first attempt has done.
    Operation("set", RefService, writes=True),
    Operation("delete", RefService, writes=True),
    Operation("capability", RefService, idle=True),
    Operation("close", RefService, idle=True),
)
