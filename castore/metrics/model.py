"""What was measured of the instances of a composition: plain numbers, as they were at one moment.

Every instance is measured at its door: what others ask of it, whoever they are, and not what it asks of
itself. `Composition.metrics` returns a `Metrics`::

    near = stores.metrics()["near"]
    print(near.hits, near.misses, near.bytes_out, near.errors.get("unavailable", 0))
    print(near.operations["has"].calls, near.operations["has"].latency.quantile(0.99))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias, runtime_checkable

import attrs

from castore.errors import (
    BlobNotFoundError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)

ErrorKind: TypeAlias = Literal["corrupt", "unavailable", "unsupported", "other"]

ERROR_KINDS: Final[tuple[ErrorKind, ...]] = ("corrupt", "unavailable", "unsupported", "other")
"""What an error can be. That something is absent is none."""

_LEAST_BITS: Final = 10
_MOST_BITS: Final = 36

BOUNDS: Final[tuple[float, ...]] = tuple(2**bits / 1e9 for bits in range(_LEAST_BITS, _MOST_BITS + 1))
"""The upper bounds of the buckets of a `Histogram` in seconds, about 1 µs to 69 s, each twice the last one.
Behind these is one bucket more, for what took longer."""


@runtime_checkable
class Gauges(Protocol):
    """A service that tells how it stands, in numbers. Any service with this method is one."""

    def gauges(self) -> Mapping[str, float]:
        """Return numbers by their names, such as `to_heal`; what is cheap to tell, and never waits.

        Sizes end in `_bytes`, times in `_seconds`. A name that begins with `is_` says yes or no, by 1 or 0.
        """
        ...


def gauges_of(service: object) -> dict[str, float]:
    """Return what a service tells of itself, not of those that it is made of; nothing if that fails."""
    if not isinstance(service, Gauges):
        return {}
    try:
        return {str(name): float(value) for name, value in service.gauges().items()}
    except Exception:  # noqa: BLE001 - who asks how things stand is not to be a victim of that
        return {}


def gauge_words(gauges: Mapping[str, float]) -> list[str]:
    """Return what gauges say in a few words for people, without what is 0, such as `open` or `to_heal 3`."""
    words = []
    for name, value in gauges.items():
        if name.startswith("is_"):
            words += [name.removeprefix("is_").replace("_", " ")] if value else []
        elif value:
            words.append(f"{name} {value:.6g}" if value % 1 else f"{name} {value:.0f}")
    return words


def error_kind(error: BaseException) -> ErrorKind | None:
    """Return which kind of error it is; `None` for a blob that is absent."""
    if isinstance(error, BlobNotFoundError):
        return None
    if isinstance(error, CorruptBlobError):
        return "corrupt"
    if isinstance(error, UnavailableError):
        return "unavailable"
    return "unsupported" if isinstance(error, UnsupportedError) else "other"


def bucket_of(bits: int) -> int:
    """Return the number of the bucket for a time in ns that has so many bits."""
    return min(max(bits - _LEAST_BITS, 0), len(BOUNDS))


@attrs.frozen
class Histogram:
    """How often an operation took how long: for each of `BOUNDS` how many took no longer, and the rest."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the seconds that *share*, 0 to 1, of the operations took at most; 0 if there were none.

        It is the bound of a bucket, so up to twice the true value; infinite beyond the last one.
        """
        wanted = share * self.total
        reached = 0
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            reached += count
            if count and reached >= wanted:
                return bound
        return 0.0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(tuple(map(sum, zip(self.counts, other.counts, strict=True))))


@attrs.frozen
class OperationMetrics:
    """What one operation of an instance has done.

    Attributes:
        calls: How many calls have ended, well or not.
        items: How many things they were about; a call that is not for many is about one.
        under_way: How many have not ended yet, among them those that hang.
        hits: How often what was asked for was there.
        misses: How often it was absent, which is no error.
        errors: How many calls failed, or of a call for many that was done in part how many items, by the
            kind of the error; kinds that did not happen are left out.
        bytes_in: How much was written.
        bytes_out: How much was read.
        seconds: How long all calls took together.
        latency: How long each took.
    """

    calls: int = 0
    items: int = 0
    under_way: int = 0
    hits: int = 0
    misses: int = 0
    errors: Mapping[ErrorKind, int] = attrs.field(factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    latency: Histogram = attrs.field(factory=Histogram)

    def __add__(self, other: OperationMetrics) -> OperationMetrics:
        kinds = [kind for kind in ERROR_KINDS if kind in self.errors or kind in other.errors]
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in attrs.fields(OperationMetrics)
            if field.name != "errors"
        }
        errors = {kind: self.errors.get(kind, 0) + other.errors.get(kind, 0) for kind in kinds}
        return OperationMetrics(errors=errors, **sums)


@attrs.frozen
class InstanceMetrics:
    """What one instance has done, and how it stands.

    Attributes:
        name: That of the instance; for one that is made by a URL, the place of the URL, such as `root.far`.
        type: The type tag, such as `cache`.
        kind: The kind of service in words, such as `blob service`.
        operations: By name, those that were called (`castore.contract.operations`): methods of the service
            and of its capabilities, `reader.read`, a piece of a blob, `writer.write`, `writer.fill` and
            `writer.close`.
        gauges: What the service tells of itself (`Gauges`).
    """

    name: str
    type: str
    kind: str
    operations: Mapping[str, OperationMetrics]
    gauges: Mapping[str, float]

    @property
    def total(self) -> OperationMetrics:
        """All operations together."""
        return sum(self.operations.values(), OperationMetrics())

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return sum(entry.calls for entry in self.operations.values())

    @property
    def items(self) -> int:
        """How many things they were about."""
        return sum(entry.items for entry in self.operations.values())

    @property
    def under_way(self) -> int:
        """How many calls have not ended yet."""
        return sum(entry.under_way for entry in self.operations.values())

    @property
    def hits(self) -> int:
        """How often what was asked for was there."""
        return sum(entry.hits for entry in self.operations.values())

    @property
    def misses(self) -> int:
        """How often it was absent."""
        return sum(entry.misses for entry in self.operations.values())

    @property
    def bytes_in(self) -> int:
        """How much was written."""
        return sum(entry.bytes_in for entry in self.operations.values())

    @property
    def bytes_out(self) -> int:
        """How much was read."""
        return sum(entry.bytes_out for entry in self.operations.values())

    @property
    def errors(self) -> Mapping[ErrorKind, int]:
        """How many calls failed, by the kind of the error."""
        return self.total.errors

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with the sums beside the operations."""
        total = self.total
        return {
            "name": self.name,
            "type": self.type,
            "kind": self.kind,
            **_as_dict(total),
            "gauges": dict(self.gauges),
            "operations": {name: _as_dict(entry) for name, entry in self.operations.items()},
        }


def _as_dict(entry: OperationMetrics) -> dict[str, Any]:
    latency = entry.latency
    bounds = [round(bound, 9) for bound in BOUNDS]
    counts = [[bound, count] for bound, count in zip([*bounds, None], latency.counts, strict=True) if count]
    return {
        "calls": entry.calls,
        "items": entry.items,
        "under_way": entry.under_way,
        "hits": entry.hits,
        "misses": entry.misses,
        "errors": dict(entry.errors),
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
        "seconds": round(entry.seconds, 9),
        "latency": counts,
    }


@attrs.frozen
class Metrics:
    """All instances of a composition, in the order of the file; one that was not built has done nothing."""

    instances: tuple[InstanceMetrics, ...]

    def __getitem__(self, name: str) -> InstanceMetrics:
        """Return the instance of a name; where kinds share it, that of the kind that comes first."""
        for entry in self.instances:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def __iter__(self) -> Iterator[InstanceMetrics]:
        return iter(self.instances)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: `{"instances": [...]}`.

        The `latency` of an operation is a list of the buckets that are not empty, each its upper bound in
        seconds, `null` for the last one, and its count.
        """
        return {"instances": [entry.to_dict() for entry in self.instances]}

    def to_json(self) -> str:
        """Return `to_dict` as JSON in one line."""
        return json.dumps(self.to_dict())
