"""What a composition that is read anew keeps of the one that runs, and what it builds anew.

An instance is kept, with its connections and all that it knows, if its type and its config are the same, and
all that it refers to is kept. Nothing is built or closed to find that out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import attrs

from castore.composition.config.refs import Ref
from castore.composition.graph.graph import Graph, Instance

if TYPE_CHECKING:
    from types import TracebackType

Fate: TypeAlias = Literal["kept", "changed", "added", "removed"]


@attrs.frozen
class InstanceChange:
    """What becomes of an instance.

    Attributes:
        id: Its path in the composition, such as `blobservices.root`.
        fate: `kept` as it is; `changed`: built anew; `added`; or `removed`.
        reasons: Why it is built anew, without the values, which may be secret.
    """

    id: str
    fate: Fate
    reasons: tuple[str, ...] = ()


@attrs.frozen
class ReloadPlan:
    """What becomes of each instance: those of the new composition in its order, then those that go."""

    changes: tuple[InstanceChange, ...]

    def of(self, fate: Fate) -> list[str]:
        """Return the ids of those with this fate."""
        return [change.id for change in self.changes if change.fate == fate]

    @property
    def changes_nothing(self) -> bool:
        """Whether all are kept."""
        return all(change.fate == "kept" for change in self.changes)


def plan_reload(old: Graph, new: Graph, *, same_folder: bool = True) -> ReloadPlan:
    """Return what becomes of the instances of *old* where *new* takes its place.

    *same_folder*: whether relative paths start from the same folder; nothing is kept otherwise.
    """
    found: dict[str, InstanceChange] = {}
    for instance in new.all_in_order():
        before = old.instances.get(instance.id)
        if before is None:
            found[instance.id] = InstanceChange(instance.id, "added")
            continue
        reasons = tuple(_differences(before, instance, found, same_folder=same_folder))
        found[instance.id] = InstanceChange(instance.id, "changed" if reasons else "kept", reasons)
    gone = [InstanceChange(key, "removed") for key in old.instances if key not in new.instances]
    return ReloadPlan((*(found[key] for key in new.instances), *gone))


def _differences(
    before: Instance, instance: Instance, found: dict[str, InstanceChange], *, same_folder: bool
) -> Iterator[str]:
    if before.type.config is not instance.type.config:
        yield f"the type was `{before.type.tag}`"
        return
    if not same_folder:
        yield "relative paths start from another folder"
    for field in attrs.fields(type(instance.config)):
        if getattr(before.config, field.name) != getattr(instance.config, field.name):
            yield f"`{field.alias}` differs"
    for edge in instance.edges:
        target = found[edge.target]
        if target.fate == "changed" or (target.fate == "added" and _refers_as_before(before, edge.ref)):
            yield f"`{edge.label}` is built anew"


def _refers_as_before(before: Instance, ref: Ref[Any]) -> bool:
    return any(edge.ref == ref for edge in before.edges)


class Reloaded:
    """A composition has been read anew: what was kept, and how to let the rest end.

    What the old composition alone had goes on for those who use it, until this is closed, or the composition.
    Close it when they have come to an end.

    Attributes:
        plan: What became of each instance.
    """

    def __init__(self, plan: ReloadPlan, end: Callable[[], None]) -> None:
        self.plan = plan
        self._end = end

    def close(self) -> None:
        """Close what only the old composition had; closing again does nothing. Raises what these raise.

        What was there before an earlier reload comes first: until that is closed, too, nothing is.
        """
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
