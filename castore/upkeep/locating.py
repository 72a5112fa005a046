"""Who holds a blob: wholly, partly, verified or not."""

from __future__ import annotations

import attrs

from castore.composition.composition import Composition
from castore.composition.graph.traits import label
from castore.contract.blobs import BlobService
from castore.contract.plans import Holding, Plan, State
from castore.digest import B3Digest
from castore.errors import CorruptBlobError, describe
from castore.threads.deadlines import CLOCK, Clock
from castore.upkeep.explaining import Explainer
from castore.upkeep.surveying import TIMEOUT, Survey, is_asked


@attrs.frozen
class Location:
    """What one instance has of a blob.

    Attributes:
        instance: Its name, or of one that a URL made its place.
        type: The tag of its type.
        store: Whether it keeps blobs itself; else it has what is beneath it.
        holding: What it has.
        verified: Whether every byte of what it has was read and found right; `None` if that was not tried.
    """

    instance: str
    type: str
    store: bool
    holding: Holding
    verified: bool | None = None


def locate(
    composition: Composition,
    digest: B3Digest,
    *,
    name: str | None = None,
    verify: bool = False,
    timeout: float = TIMEOUT,
    clock: Clock = CLOCK,
) -> list[Location]:
    """Return who holds a blob: one entry for each blob service of a composition, in the order of its file.

    Each store is asked whether it has the blob, its index and its chunks, as `explain` does; what is made of
    others has what a read through it would find. Nothing is written.

    Arguments:
        composition: Its stores are built, and left open.
        digest: The blob, or a chunk.
        name: Only this instance, and what it needs.
        verify: Also read all that a store has, and check each byte.
        timeout: How long to wait for an answer, and for a piece that is read, in seconds.
        clock: What the waiting is done with.
    """
    graph = composition.graph
    chosen = graph.all_in_order() if name is None else graph.in_order(composition.instance(BlobService, name))
    ordered = [entry for entry in chosen if entry.kind.contract is BlobService]
    survey = Survey(composition, digest, ordered, timeout=timeout, clock=clock)
    explainer = Explainer(composition, survey, ordered)
    wanted = {entry.id for entry in ordered}
    locations = []
    for instance in graph.instances.values():
        if instance.id not in wanted:
            continue
        store = is_asked(instance)
        holding = survey.holding(instance) if store else _of_composite(explainer.plan(instance, "get"))
        verified = None
        if verify and store and (holding.state == "whole" or holding.present):
            fault = survey.verify(instance)
            verified = fault is None
            if fault is not None:
                state: State = "corrupt" if isinstance(fault, CorruptBlobError) else "unavailable"
                holding = attrs.evolve(holding, state=state, cause=describe(fault))
        locations.append(Location(label(instance), instance.type.tag, store, holding, verified))
    return locations


def _of_composite(plan: Plan) -> Holding:
    """Return what an instance has by what a read through it would find."""
    holding = plan.holding
    match plan.outcome:
        case "read":
            return attrs.evolve(holding, state="whole", cause="")
        case "absent":
            partly = holding.state == "partly"
            return attrs.evolve(holding, state="partly" if partly else "absent", cause="")
        case "corrupt":
            return attrs.evolve(holding, state="corrupt", cause=holding.cause or plan.says)
        case _:
            return attrs.evolve(holding, state="unavailable", cause=_cause(plan))


def _cause(plan: Plan) -> str:
    if plan.holding.state == "unavailable" and plan.holding.cause:
        return plan.holding.cause
    return plan.says
