"""Configuration of `faulty`. All chances are 0, so that nothing goes wrong but what is asked for.

Example::

    allow_faults = true                # above the first table: without it this type is refused

    [blobservices.root]
    type = "faulty"
    inner = "memory:"
    seed = 7                           # decides when faults come; the same ones each time
    fail = 0.05                        # of 100 calls about 5 raise `UnavailableError`
    delay = 0.5                        # every second call waits first,
    latency = "20 ms"                  # this long on average
    operations = ["reads"]             # "reads", "writes", or names such as "open_read"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs

from castore import BlobService, Ref
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    Duration,
    InvalidValueError,
    Plan,
    Traits,
    View,
)
from castore.contract.directories import DirectoryService
from castore.problems import did_you_mean, escaped

if TYPE_CHECKING:
    from castore.faults import FaultPlan

_ANY_CHANCE: Final = Between(0, 1)
_LATENCY: Final = Duration(0.05)
_HANG_TIME: Final = Duration(30)
_MOST_WAITING: Final = Between(0, 24 * 3600)


@attrs.frozen
class FaultyConfig:
    """Another blob service, with faults made on purpose. It needs `allow_faults = true`."""

    inner: Ref[BlobService]
    """The service to make faults in front of."""
    seed: int = 0
    """Decides when faults come: the same seed and the same calls give the same faults."""
    delay: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that an operation waits first, for about `latency`."""
    fail: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that it is unavailable."""
    hang: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that it hangs for `hang_time`, and is unavailable then."""
    corrupt: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that what is read is found to be corrupt."""
    forget: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that what is there is called absent, or what is written acknowledged and dropped."""
    truncate: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that bytes are missing at the end, and nothing says so."""
    flip: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that a bit is wrong, and nothing says so."""
    partial: Annotated[float, _ANY_CHANCE] = 0.0
    """The chance that a listing lacks about half."""
    latency: Annotated[Duration, _MOST_WAITING] = _LATENCY
    """How long a delay is on average."""
    hang_time: Annotated[Duration, _MOST_WAITING] = _HANG_TIME
    """How long an operation hangs."""
    operations: list[str] = attrs.field(factory=lambda: ["reads", "writes"])
    """Where faults come: `"reads"`, `"writes"`, or names of operations, such as `"get_chunks"`."""

    @operations.validator
    def _check_operations(self, _: attrs.Attribute[Any], value: list[str]) -> None:
        groups = _groups()
        known = {*groups, *(name for names in groups.values() for name in names)}
        for name in value:
            if name not in known:
                hint = did_you_mean(name, known) or '`"reads"` and `"writes"` stand for all of them'
                raise InvalidValueError(f"there is no operation `{escaped(name)}`", hint, part=name)

    def traits(self, view: View) -> Traits:
        """Say what the service within can do."""
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def explain(self, asking: Asking) -> Plan:
        """Say which faults may come instead."""
        kinds = ("delay", "fail", "hang", "corrupt", "forget", "truncate", "flip", "partial")
        chances = [f"{kind} {getattr(self, kind):.3g}" for kind in kinds if getattr(self, kind)]
        return asking.passes(
            self.inner, f"may come to something else: {', '.join(chances)}" if chances else ""
        )

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.faulty.service import Rehearsal  # noqa: PLC0415 - once it is named

        return Rehearsal(context.resolve(self.inner), instance=name, plan=self.plan())

    def plan(self) -> FaultPlan:
        """Return the chances."""
        from castore.faults import FaultPlan  # noqa: PLC0415 - once it is named

        groups = _groups()
        return FaultPlan(
            seed=self.seed,
            delay=self.delay,
            fail=self.fail,
            hang=self.hang,
            corrupt=self.corrupt,
            forget=self.forget,
            truncate=self.truncate,
            flip=self.flip,
            partial=self.partial,
            latency=self.latency,
            hang_seconds=self.hang_time,
            operations=frozenset(one for entry in self.operations for one in groups.get(entry, (entry,))),
        )


def _groups() -> dict[str, frozenset[str]]:
    from castore.faults import READS, WRITES  # noqa: PLC0415 - only for compositions that name this type

    return {"reads": READS, "writes": WRITES}


@attrs.frozen(kw_only=True)
class FaultyDirectoriesConfig(FaultyConfig):
    """Another service of directories, with faults made on purpose. It needs `allow_faults = true`."""

    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """The service to make faults in front of."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.faulty.service import DirectoryRehearsal  # noqa: PLC0415 - once it is named

        return DirectoryRehearsal(context.resolve(self.inner), instance=name, plan=self.plan())
