"""What operations would do, said beforehand: the words in which types explain themselves.

A config class may have a method that says what an operation of its service would do with one blob::

    def explain(self, asking: Asking) -> Plan:
        if asking.operation == "put":
            return asking.plan("refused", says="nothing is stored here")
        return asking.passes(self.inner, "each byte of it is checked")

It is given what the services it refers to would do, and touches nothing itself. Of a type without that method
the service is asked whether it has the blob.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from castore.contract.chunk_sets import ChunkSet
from castore.text import count_text, listed, size_text

if TYPE_CHECKING:
    from castore.composition.config.refs import Ref
    from castore.contract.blobs import ChunkMeta
    from castore.digest import B3Digest

Operation = Literal["has", "get", "put"]
Outcome = Literal["present", "read", "stored", "absent", "corrupt", "refused", "unavailable"]
State = Literal["whole", "partly", "absent", "corrupt", "unavailable"]

OPERATIONS: Final[tuple[Operation, ...]] = ("has", "get", "put")

_SAYS: Final[dict[Outcome, str]] = {
    "present": "it is there",
    "read": "it is read",
    "stored": "it is stored",
    "absent": "it is absent",
    "corrupt": "it is corrupt",
    "refused": "it is refused",
    "unavailable": "it is unavailable",
}
FOUND: Final = frozenset({"present", "read"})


@attrs.frozen
class Holding:
    """What a service has of a blob.

    Attributes:
        state: `whole`; `partly`: some of its chunks, or its index without all of them; `absent`; `corrupt`:
            its index cannot be right; `unavailable`: that is not known.
        chunks: The chunks that the blob is made of, in order, as the service itself says, or else as another
            one that has the blob does; empty if it has no finer chunks, or nobody knows them.
        present: The chunks that are there, of all that the blob is made of anywhere.
        listed: Whether the service itself has the index of the blob.
        cause: Why it is corrupt or unavailable.
        distinct: The different ones of `chunks`.
    """

    state: State
    chunks: Sequence[ChunkMeta] = attrs.field(default=(), repr=False, hash=False)
    present: ChunkSet = attrs.field(factory=ChunkSet, repr=False)
    listed: bool = False
    cause: str = ""
    distinct: ChunkSet = attrs.field(factory=ChunkSet, repr=False)

    @property
    def here(self) -> ChunkSet:
        """The different chunks that are there."""
        return self.distinct & self.present

    @property
    def words(self) -> str:
        """What it has, as the end of a sentence."""
        if self.state == "corrupt":
            return f"has it, but corrupt: {self.cause}"
        if self.state == "unavailable":
            return f"is unavailable: {self.cause}"
        if self.state == "absent":
            return "lacks it"
        if not self.chunks:
            return "has it in one piece" if self.state == "whole" else "has its name, and not its bytes"
        if self.state == "whole":
            return f"has it: {self.share}"
        return f"has its index, and {self.share}" if self.listed else f"lacks it, but has {self.share}"

    @property
    def in_short(self) -> str:
        """What it has, for a table."""
        match self.state:
            case "whole":
                return f"all: {self.share}" if self.chunks else "all, in one piece"
            case "partly":
                return f"a part: {self.share}" + ("" if self.listed else ", and no index")
            case "absent":
                return "nothing"
            case _:
                return f"{self.state}: {self.cause}".replace("\n", " ")

    @property
    def share(self) -> str:
        """How much of it is there, as `8 chunks, 575.1 KiB`, or `2 of 8 chunks, 162.0 KiB of 575.1 KiB`."""
        here, count, total = self.here, len(self.distinct), size_text(self.distinct.size)
        if len(here) == count:
            return f"{count_text(count, 'chunk')}, {total}"
        return f"{len(here)} of {count_text(count, 'chunk')}, {size_text(here.size)} of {total}"


def together(holdings: Sequence[Holding]) -> Holding:
    """Return what several services have of a blob between them."""
    for holding in holdings:
        if holding.state == "whole":
            return holding
    present = reduce(or_, (holding.present for holding in holdings), ChunkSet())
    for holding in holdings:
        if holding.listed and holding.chunks and present >= holding.distinct:
            return attrs.evolve(holding, state="whole", present=present)
    order: tuple[State, ...] = ("unavailable", "corrupt", "partly", "absent")
    worst = min(holdings, key=lambda holding: order.index(holding.state))
    parts = [holding for holding in holdings if holding.state == "partly"]
    best = max(parts, key=lambda holding: holding.listed, default=worst)
    return attrs.evolve(best, state=worst.state, present=present, cause=worst.cause)


@attrs.frozen
class Step:
    """One line of a plan: what another instance would do, or a remark."""

    says: str = ""
    """The remark; empty where it is another instance."""
    label: str = ""
    """The field by which the instance is referred to."""
    plan: Plan | None = None


@attrs.frozen
class Plan:
    """What an operation of one instance would do with a blob.

    Attributes:
        instance: Its name, or of one that a URL made its place.
        type: The tag of its type.
        operation: `has`, `get` or `put`.
        outcome: What would come of it.
        says: That in words, for people.
        steps: What would be done for it, in order.
        holding: What the instance has of the blob, alone or by what is beneath it.
    """

    instance: str
    type: str
    operation: Operation
    outcome: Outcome
    says: str
    steps: tuple[Step, ...]
    holding: Holding

    @property
    def found(self) -> bool:
        """Whether the blob is there, or is read."""
        return self.outcome in FOUND


class Asking(ABC):
    """What a type is given to explain one operation of one of its instances."""

    operation: Operation
    digest: B3Digest
    name: str
    """The name of the instance."""
    type: str
    """The tag of its type."""

    @abstractmethod
    def of(self, ref: Ref[Any], operation: Operation | None = None) -> Plan:
        """Return what an instance that the config refers to would do; by default the same operation."""

    @abstractmethod
    def step(self, ref: Ref[Any], operation: Operation | None = None) -> Step:
        """Return the line for that."""

    @abstractmethod
    def own(self) -> Holding:
        """Return what the service says that it has; only for instances that refer to no other."""

    @abstractmethod
    def running(self) -> Any:
        """Return the service if it is built already, for its state; else `None`."""

    def plan(
        self, outcome: Outcome, *steps: Step | str, says: str = "", holding: Holding | None = None
    ) -> Plan:
        """Return a plan of this operation.

        Arguments:
            outcome: What would come of it.
            *steps: What would be done: lines for others, and remarks.
            says: The outcome in words, if there are better ones.
            holding: What the instance has; by default what those in the steps have together.
        """
        lines = tuple(Step(step) if isinstance(step, str) else step for step in steps)
        if holding is None:
            parts = [step.plan.holding for step in lines if step.plan is not None]
            holding = together(parts) if parts else Holding("absent")
        return Plan(self.name, self.type, self.operation, outcome, says or _SAYS[outcome], lines, holding)

    def passes(self, ref: Ref[Any], *remarks: str) -> Plan:
        """Return the plan of one that does what another does, and something besides."""
        return self.plan(self.of(ref).outcome, self.step(ref), *filter(None, remarks))

    def in_turn(
        self, refs: Sequence[Ref[Any]], *, misses: int | None = None, final: Collection[int] = ()
    ) -> Turns:
        """Ask several in turn until one has the blob, by the rule of `castore.composites.members`.

        *misses* is how many must say that it is absent, by default all; the error of one in *final*, by its
        number, is the answer.
        """
        needed = len(refs) if misses is None else misses
        asked: list[Step] = []
        said: list[Outcome] = []
        for number, ref in enumerate(refs):
            asked.append(self.step(ref))
            outcome = self.of(ref).outcome
            said.append(outcome)
            if outcome in FOUND or (number in final and outcome != "absent"):
                return Turns(outcome, tuple(asked), tuple(said))
        # A chunk that one lacks is read from the next.
        if self.operation == "get" and together([self.of(ref).holding for ref in refs]).state == "whole":
            return Turns("read", tuple(asked), tuple(said))
        unknown = "unavailable" in said
        if "corrupt" in said:
            outcome = "unavailable" if unknown else "corrupt"
        else:
            outcome = "absent" if said.count("absent") >= needed else "unavailable"
        return Turns(outcome, tuple(asked), tuple(said))


@attrs.frozen
class Turns:
    """What comes of asking several in turn: the outcome, the lines, and what each that is asked has said."""

    outcome: Outcome
    steps: tuple[Step, ...]
    said: tuple[Outcome, ...]

    @property
    def found_at(self) -> int | None:
        """The number of the one that has the blob; `None` if none alone does."""
        return len(self.said) - 1 if self.said and self.said[-1] in FOUND else None

    def rest(self, names: Sequence[str]) -> str:
        """Return the remark on those that are not asked, of all by their *names*; empty if all are."""
        rest = names[len(self.said) :]
        return f"{listed(rest)} {'is' if len(rest) == 1 else 'are'} not asked" if rest else ""
