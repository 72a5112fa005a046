"""Configuration of `mirror`.

Defaults: a write needs more than half of the services, and absence as many as then must have been told of it;
what a service missed is healed in the background; no service has a time limit, and reads are not hedged.

Example::

    [blobservices.root]
    type = "mirror"
    services = ["&one", { ref = "&two", timeout = "2 s" }, "&three"]
    write_quorum = 2
    miss_quorum = 2
    hedge_after = "200 ms"

    [blobservices.one]
    type = "memory"

    [blobservices.two]
    type = "memory"

    [blobservices.three]
    type = "memory"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import attrs

from castore import BlobService, Ref
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    Duration,
    Evicts,
    InvalidValueError,
    Plan,
    Problem,
    Traits,
    View,
    at_least,
    ref_of,
    service_names,
)
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.contract.directories import DirectoryService
from castore.text import count_text, listed

_HEAL_INTERVAL: Final = Duration(10)
_DRAIN: Final = Duration(5)


@attrs.frozen
class MirrorService:
    """One of the services, with settings of its own."""

    ref: Ref[BlobService]
    """The service."""
    timeout: Annotated[Duration, Between(0.001, 86400)] | None = None
    """How long one question, piece read or written, or end of a write may take; many together may take as
    long for each 64 of them, or each 4 MiB. Without it: no limit."""


def _up_to_all(config: MirrorConfig, _: Any, quorum: int | None) -> None:
    count = len(config.services)
    if quorum is not None and not 1 <= quorum <= count:
        raise InvalidValueError(f"expected 1 to {count}, as there are {count} services, found {quorum}")


def _that_overlaps(config: MirrorConfig, field: Any, quorum: int | None) -> None:
    _up_to_all(config, field, quorum)
    count, misses = len(config.services), config.miss_quorum
    if quorum is not None and misses is not None and quorum + misses <= count:
        told = f"a write may reach {quorum} of {count} services, and {misses} others would call it absent"
        hint = f"`write_quorum` and `miss_quorum` must add up to more than {count}"
        raise InvalidValueError(told, hint)


@attrs.frozen
class MirrorConfig:
    """Services that hold the same blobs, so that some of them may fail. It has no URL form."""

    services: tuple[Ref[BlobService] | MirrorService, ...] = attrs.field(validator=at_least(2))
    """The services, read in this order: references, or tables with a `ref` and more."""
    write_quorum: int | None = attrs.field(default=None, validator=_that_overlaps)
    """How many must have a blob for it to be stored. Without it: more than half, or as `miss_quorum` asks."""
    miss_quorum: int | None = attrs.field(default=None, validator=_up_to_all)
    """How many must say that a blob is absent. Without it: as few as cannot be wrong."""
    hedge_after: Annotated[Duration, Between(0.001, 3600)] | None = None
    """After this time without an answer the next service is asked as well. Without it: never."""
    hedge_budget: Annotated[float, Between(0, 1)] = 0.05
    """How many things of all that are asked for may be asked for twice so, as a share."""
    read_repair: bool = True
    """Whether what a service is found to lack, or to have corrupt, is copied to it."""
    heal_queue: Annotated[int, Between(0, 10_000_000)] = 10_000
    """How many blobs may wait to be copied; with more, the oldest is forgotten."""
    heal_interval: Annotated[Duration, Between(0.001, 86400)] = _HEAL_INTERVAL
    """How long a service is left alone after a copy to it has failed."""
    drain: Annotated[Duration, Between(0, 86400)] = _DRAIN
    """How long closing waits for copies that are due."""

    @property
    def quorums(self) -> tuple[int, int]:
        """How many it takes for a write and for absence."""
        count = len(self.services)
        writes, misses = self.write_quorum, self.miss_quorum
        if writes is None:
            writes = count // 2 + 1 if misses is None else max(count // 2 + 1, count - misses + 1)
        return writes, count - writes + 1 if misses is None else misses

    def traits(self, view: View) -> Traits:
        """Say what enough of its services can do."""
        writes, misses = self.quorums
        each = [view.of(ref_of(entry)) for entry in self.services]
        return attrs.evolve(
            view.all_of(*map(ref_of, self.services)),
            writable=_enough((entry.writable for entry in each), writes),
            answers=_enough((entry.answers for entry in each), misses),
            evicts=self._evicts(view, writes),
            waits=bool(list(self._without_end(view))),
        )

    def _evicts(self, view: View, writes: int) -> Evicts | None:
        """Return who may drop the last copy, if all that make up a quorum may be dropped."""
        keeping = len(self.services) - writes + 1
        hint = f"list at least {count_text(keeping, 'service')} that keep what they have"
        found = [view.kept_in(ref_of(entry), hint) for entry in self.services]
        evicting = [entry for entry in found if entry is not None]
        return evicting[0] if len(evicting) >= writes else None

    def _without_end(self, view: View) -> Iterator[Problem]:
        for entry in self.services:
            timeout = None if isinstance(entry, Ref) else entry.timeout
            if (problem := view.waiting(ref_of(entry), unless=timeout)) is not None:
                yield attrs.evolve(problem, hint="give it a `timeout`: write it as a table with a `ref`")

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that its services make possible; how long a write lasts is not known yet."""
        if kind is ChunkSource:
            return True
        if kind in {BlobDeleter, BlobLister, ChunkStore}:
            return view.all_offer(map(ref_of, self.services), kind)
        return None if kind is Durable else False

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of quorums that can never be reached, and of services that do not go together."""
        yield from self._without_end(view)
        writes, misses = self.quorums
        refs = [ref_of(entry) for entry in self.services]
        mute = [view.called(ref) for ref in refs if view.of(ref).answers is False]
        if len(refs) - len(mute) < misses:
            told = (
                f"{misses} of {len(refs)} services must say that a blob is absent, and {listed(mute)} cannot:"
            )
            yield view.warning(
                "quorum-cannot-hold",
                "services" if self.miss_quorum is None else "miss_quorum",
                f"{told} whatever is absent is unavailable",
                "list services that answer",
            )
        yield from self._counted_twice(view, refs)
        yield from self._cut_otherwise(view, refs)
        closed = [view.called(ref) for ref in refs if view.of(ref).writable is False]
        # One whose services are all made for reading is meant for reading.
        if len(refs) - len(closed) < writes and (len(closed) < len(refs) or self.write_quorum is not None):
            told = f"{writes} of {len(refs)} services must take a blob, and {listed(closed)} cannot:"
            yield view.warning(
                "quorum-cannot-hold",
                "services" if self.write_quorum is None else "write_quorum",
                f"{told} nothing is ever stored",
                "list services that can be written, or ask for fewer",
            )

    def _counted_twice(self, view: View, refs: Sequence[Ref[BlobService]]) -> Iterator[Problem]:
        """Warn of two services that are one store, which counts twice in the quorums."""
        seen: dict[frozenset[str], str] = {}
        for number, ref in enumerate(refs):
            stores = view.stores(ref)
            if len(stores) == 1 and stores in seen:
                yield view.warning(
                    "counted-twice",
                    ref,
                    f"it ends in {listed(list(stores))}, as `{seen[stores]}` does: one store counts twice",
                    "list services that keep blobs in different places",
                )
            seen.setdefault(stores, service_names(self.services)[number])

    def _cut_otherwise(self, view: View, refs: Sequence[Ref[BlobService]]) -> Iterator[Problem]:
        """Warn of services that cut otherwise than the first, as which new blobs are cut."""
        first = refs[0]
        for ref in refs[1:]:
            if view.of(first).cuts and view.of(ref).cuts not in {"", view.of(first).cuts}:
                told = f"new blobs are cut as `{view.called(first)}` does"
                yield view.warning(
                    "cuts-otherwise",
                    ref,
                    f"{told}, and `{view.called(ref)}` does otherwise: they share no chunks with its own",
                    "give all services the same `chunker` and `avg_chunk_size`",
                )

    def explain(self, asking: Asking) -> Plan:
        """Say which services are asked, and what becomes of those that lack the blob."""
        refs = [ref_of(entry) for entry in self.services]
        writes, misses = self.quorums
        if asking.operation == "put":
            return self._explain_put(asking, refs, writes)
        turns = asking.in_turn(refs, misses=misses)
        names = service_names(self.services)
        remarks = [turns.rest(names)]
        if asking.operation == "get" and self.read_repair and turns.outcome == "read":
            behind = [n for n, said in zip(names, turns.said, strict=False) if said in {"absent", "corrupt"}]
            if behind:
                remarks.append(f"it is copied to {listed(behind)} in the background")
        if turns.outcome == "unavailable" and "corrupt" not in turns.said:
            remarks.append(f"it would be absent if {misses} of {len(refs)} said so")
        return asking.plan(turns.outcome, *turns.steps, *filter(None, remarks))

    def _explain_put(self, asking: Asking, refs: Sequence[Ref[BlobService]], writes: int) -> Plan:
        names = service_names(self.services)
        behind = [n for n, ref in zip(names, refs, strict=True) if asking.of(ref).outcome != "stored"]
        remarks = [f"{writes} of {len(refs)} must take it"]
        if len(refs) - len(behind) < writes:
            return asking.plan("unavailable", *map(asking.step, refs), *remarks)
        if behind and self.heal_queue:
            remarks.append(f"it is copied to {listed(behind)} later, in the background")
        return asking.plan("stored", *map(asking.step, refs), *remarks)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore.composites.members import Member  # noqa: PLC0415 - once it is named
        from castore_mirror.service import MirrorBlobService  # noqa: PLC0415 - as above

        members = [
            Member(
                member,
                context.resolve(ref_of(entry)),
                timeout=entry.timeout if isinstance(entry, MirrorService) else None,
            )
            for member, entry in zip(service_names(self.services), self.services, strict=True)
        ]
        return MirrorBlobService(members, **self._as_built(name, context))

    def _as_built(self, name: str, context: BuildContext) -> dict[str, Any]:
        """Return what a service of blobs and one of directories are made with alike."""
        from castore.composites.hedging import Hedge  # noqa: PLC0415 - once it is named
        from castore_mirror.healing import HealingQueue  # noqa: PLC0415 - as above

        writes, misses = self.quorums
        return {
            "write_quorum": writes,
            "miss_quorum": misses,
            "hedge": None if self.hedge_after is None else Hedge(self.hedge_after, budget=self.hedge_budget),
            "queue": HealingQueue(name, limit=self.heal_queue, interval=self.heal_interval, drain=self.drain),
            "read_repair": self.read_repair,
            "pool": context.pool,
            "name": name,
        }


@attrs.frozen
class MirrorDirectory:
    """One of the services of directories, with settings of its own."""

    ref: Ref[DirectoryService]
    """The service."""
    timeout: Annotated[Duration, Between(0.001, 86400)] | None = None
    """How long one call may take; one for many, so long for each 64 directories. Without it: no limit."""


@attrs.frozen(kw_only=True)
class MirrorDirectoriesConfig(MirrorConfig):
    """Services that hold the same directories, so that some of them may fail. It has no URL form."""

    services: tuple[Ref[DirectoryService] | MirrorDirectory, ...] = attrs.field(  # type: ignore[assignment] # the same of another kind
        validator=at_least(2)
    )
    """The services, read in this order: references, or tables with a `ref` and more."""

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that its services make possible; how long a write lasts is not known yet."""
        return None if kind is Durable else view.all_offer(map(ref_of, self.services), kind)

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore.composites.directories import DirectoryMember  # noqa: PLC0415 - once it is named
        from castore_mirror.directories import MirrorDirectoryService  # noqa: PLC0415 - as above

        members = [
            DirectoryMember(
                member,
                context.resolve(ref_of(entry)),
                timeout=entry.timeout if isinstance(entry, MirrorDirectory) else None,
            )
            for member, entry in zip(service_names(self.services), self.services, strict=True)
        ]
        return MirrorDirectoryService(members, **self._as_built(name, context))


def _enough(answers: Iterable[bool | None], needed: int) -> bool | None:
    """Tell whether so many of *answers* are true; `None` if that is not known."""
    found = list(answers)
    if len(found) - found.count(False) < needed:
        return False
    return True if found.count(True) >= needed else None
