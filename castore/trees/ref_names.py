"""Names of roots as people write them: `www`, `www@latest`, `www@{2026-11-01}`; and the names of snapshots.

A snapshot of `www` is a ref `www/2026-11-30T14-05-00Z`: its last part is its time, in UTC. A second one
within the same second ends in `Z-2`, and so on.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Final, Self

import attrs

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.refs import NamedRoot, RefService, check_name
from castore.errors import InvalidRefError, NodeNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from castore.composition.composition import Composition

LATEST: Final = "latest"

_NAME: Final = re.compile(r"(?P<name>[^@]*)(?:@(?:(?P<latest>latest)|\{(?P<time>[^{}]*)\}))?", re.DOTALL)
_SNAPSHOT: Final = re.compile(
    r"(?:(?P<name>.+)/)?(?P<time>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)(?:-(?P<number>[1-9]\d{0,8}))?", re.ASCII
)
_FORM: Final = "%Y-%m-%dT%H-%M-%SZ"
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MINUTES: Final = re.compile(r".{10}[T ]\d\d:\d\d(?!:)", re.ASCII)
_TICK: Final = datetime.timedelta(microseconds=1)


@attrs.frozen(order=True)
class Snapshot:
    """What the name of a snapshot says.

    Attributes:
        time: When it was made, in UTC, in whole seconds.
        number: 1, or more for those that were made within the same second.
        of: The name that it is a snapshot of.
    """

    time: datetime.datetime
    number: int
    of: str

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read the name of a ref; `None` if it is not that of a snapshot."""
        match = _SNAPSHOT.fullmatch(name)
        if match is None or match["name"] is None:
            return None
        try:
            time = datetime.datetime.strptime(match["time"], _FORM).replace(tzinfo=datetime.UTC)
        except ValueError:
            return None
        return cls(time, int(match["number"] or 1), match["name"])

    def __str__(self) -> str:
        number = f"-{self.number}" if self.number > 1 else ""
        return f"{self.of}/{self.time.strftime(_FORM)}{number}"


@attrs.frozen
class RefName:
    """The name of a ref, or of one of its snapshots, as somebody wrote it.

    Attributes:
        name: The name.
        at: Which of its snapshots: `latest`, or the last one that is not later than a time, as text. `None`
            is the ref itself.
    """

    name: str
    at: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME`, `NAME@latest` or `NAME@{TIME}`; raise `InvalidRefError` for anything else."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise InvalidRefError(
                f"{text!r} cannot be the name of a ref: after `@` comes `latest`, or a time in braces",
                name=text,
            )
        check_name(match["name"])
        if match["time"] is not None:
            time_bound(match["time"])
        return cls(match["name"], match["latest"] or match["time"])

    def __str__(self) -> str:
        if self.at is None:
            return self.name
        return f"{self.name}@{self.at}" if self.at == LATEST else f"{self.name}@{{{self.at}}}"


def time_bound(text: str) -> datetime.datetime:
    """Return the last moment that a text means: of a date its end, of a time without seconds the minute's.

    A time without a zone is one of this machine's. `yesterday`, and how long ago (`7d`), will do as well.

    Raises `InvalidRefError` for what is no time.
    """
    from castore.composition.config.values import parse_duration  # noqa: PLC0415 - most names have no time

    now = datetime.datetime.now().astimezone()
    word = text.strip()
    if word == "yesterday":
        word = (now - datetime.timedelta(days=1)).date().isoformat()
    try:
        if _DATE.fullmatch(word):
            day = datetime.date.fromisoformat(word) + datetime.timedelta(days=1)
            return datetime.datetime.combine(day, datetime.time()).astimezone() - _TICK
        if (snapshot := Snapshot.parse(f"x/{word}")) is not None:
            return snapshot.time + datetime.timedelta(seconds=1) - _TICK
        if len(word) > len("2026-11-30"):
            found = datetime.datetime.fromisoformat(word).astimezone()
            step = datetime.timedelta(minutes=1) if _MINUTES.match(word) else datetime.timedelta(seconds=1)
            return found + step - _TICK if found.microsecond == 0 else found
        return now - datetime.timedelta(seconds=parse_duration(word))
    except (ValueError, OverflowError, OSError):
        raise InvalidRefError(
            f"{text!r} is no time of a snapshot: expected a date such as `2026-11-30`, a time such as"
            " `2026-11-30T14:05`, `yesterday`, or how long ago, such as `7d`"
        ) from None


def snapshots_of(refs: RefService, name: str) -> list[Snapshot]:
    """Return the snapshots of a name, the oldest first."""
    found = (Snapshot.parse(each) for each in refs.names(f"{check_name(name)}/"))
    return sorted(each for each in found if each is not None and each.of == name)


def find_ref(refs: RefService, ref: RefName) -> tuple[str, NamedRoot]:
    """Return what a name stands for, and the name itself, which for `@` is that of a snapshot.

    Raises `NodeNotFoundError` if there is none, and what is wrong with it.
    """
    name = ref.name if ref.at is None else str(_choose(refs, ref.name, ref.at))
    found = refs.get(name)
    if found is not None:
        return name, found
    latest = snapshots_of(refs, name)[-1:] if ref.at is None else []
    more = (
        f"; `{name}@latest` is its last snapshot"
        if latest
        else ": `castore ref list` shows those that are there"
    )
    raise NodeNotFoundError(f"no ref is named `{name}`{more}")


def _choose(refs: RefService, name: str, at: str) -> Snapshot:
    found = snapshots_of(refs, name)
    if not found:
        raise NodeNotFoundError(
            f"`{name}` has no snapshots: `castore import --snapshot {name} FOLDER` makes one"
        )
    if at == LATEST:
        return found[-1]
    bound = time_bound(at)
    fitting = [each for each in found if each.time <= bound]
    if not fitting:
        raise NodeNotFoundError(f"no snapshot of `{name}` is that old: the first one is `{found[0]}`")
    return fitting[-1]


def add_snapshot(refs: RefService, name: str, ref: NamedRoot) -> str:
    """Keep a ref as a snapshot of a name, under its time; return the name that it has.

    Nothing is replaced: it is numbered if there is one of the same second.
    """
    time = ref.time.replace(microsecond=0)
    number = 1
    while True:
        snapshot = str(Snapshot(time, number, check_name(name)))
        try:
            done = refs.set(snapshot, ref, expect=None)
        except UnsupportedError:
            # Somebody else within the same second, and the same moment, is all that this could miss.
            done = refs.get(snapshot) is None and refs.set(snapshot, ref)
        if done:
            return snapshot
        number += 1


def all_refs(stores: Composition, service: str) -> Iterator[tuple[str, RefService]]:
    """Yield all services of refs that have roots of what is in a blob service, each with its name.

    Those are all that are declared. Where none is, those are meant that keep refs beside blobs: *service* and
    `root`, and all that have something in common with it; where trees have a service of their own, all.
    """
    instances = list(stores.graph.all_in_order())
    declared = [each for each in instances if each.kind.contract is RefService]
    if declared:
        for each in sorted(declared, key=lambda each: each.name not in (service, "root")):
            yield each.name, stores.service(each)
        return
    apart = not any(each.kind.contract is DirectoryService for each in instances)
    blobs = [each for each in instances if each.kind.contract is BlobService]
    own = next((each for each in blobs if each.name == service), None)
    near = {each.id for each in stores.graph.reachable(own)} if own is not None else set()
    for each in sorted(blobs, key=lambda each: each.name not in (service, "root")):
        if apart and each.name != "root" and near.isdisjoint(one.id for one in stores.graph.reachable(each)):
            continue
        refs: RefService | None = stores.service(each).capability(RefService)
        if refs is not None:
            yield each.name, refs


def refs_of(stores: Composition, service: str = "root") -> RefService:
    """Return where refs are kept: in the instance of this name, or else `root`.

    Where no ref service is declared, in the blob service of this name. Raises `CompositionError` if that
    keeps none.
    """
    instances = stores.graph.instances.values()
    declared = {each.name for each in instances if each.kind.contract is RefService}
    if declared:
        return stores.refs(service if service in declared else "root")
    return stores.refs_of_blobs(service)
