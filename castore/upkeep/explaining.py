"""What `has`, `get` and `put` of a blob would do, step by step, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from castore.composition.composition import Composition
from castore.composition.config.refs import Ref
from castore.composition.graph.graph import Instance
from castore.composition.graph.lints import traits_of
from castore.composition.graph.traits import Traits, label
from castore.composition.probing import route_of
from castore.contract.blobs import BlobService
from castore.contract.plans import OPERATIONS, Asking, Holding, Operation, Outcome, Plan, Step
from castore.digest import B3Digest
from castore.errors import describe
from castore.threads.deadlines import CLOCK, Clock
from castore.upkeep.surveying import TIMEOUT, Survey, is_asked


def explain(
    composition: Composition,
    digest: B3Digest,
    *,
    name: str = "root",
    operations: Sequence[Operation] = OPERATIONS,
    timeout: float = TIMEOUT,
    clock: Clock = CLOCK,
) -> list[Plan]:
    """Return what each operation of a blob service would do with a blob.

    The stores beneath it are asked whether they have the blob, its index and its chunks; no bytes of it are
    read, and nothing is written. Each is waited for no longer than twice *timeout* seconds; one that fails
    or hangs is unavailable in the plans. A `put` is explained for the very blob.

    Raises `CompositionError` if no blob service has this name.
    """
    start = composition.instance(BlobService, name)
    chosen = list(composition.graph.in_order(start))
    survey = Survey(composition, digest, _blob_services(chosen), timeout=timeout, clock=clock)
    explainer = Explainer(composition, survey, chosen)
    return [explainer.plan(start, operation) for operation in operations]


def _blob_services(instances: Iterable[Instance]) -> list[Instance]:
    return [entry for entry in instances if entry.kind.contract is BlobService]


class Explainer:
    """The plans of instances, made from the far ends on: *instances* come after all that they need."""

    def __init__(self, composition: Composition, survey: Survey, instances: Sequence[Instance]) -> None:
        self.composition = composition
        self.survey = survey
        self.traits = traits_of(composition.graph, composition.base)
        self._plans: dict[tuple[str, Operation], Plan] = {}
        for instance in _blob_services(instances):
            for operation in OPERATIONS:
                self._plans[instance.id, operation] = self._explain(instance, operation)

    def plan(self, instance: Instance, operation: Operation) -> Plan:
        """Return the plan of an operation of an instance."""
        return self._plans[instance.id, operation]

    def _explain(self, instance: Instance, operation: Operation) -> Plan:
        asking = _AskingFor(self, instance, operation)
        say = getattr(instance.config, "explain", None)
        if say is None:
            known = store_plan(asking, asking.own(), self.traits[instance.id])
            route = "" if known.outcome == "unavailable" else route_of(asking.running())
            return attrs.evolve(known, says=f"{known.says}, by {route}") if route else known
        try:
            plan = say(asking)
        except Exception as error:  # noqa: BLE001 - a plugin's mistake concerns its type alone
            plan = None
            reason = f"`{instance.type.tag}` cannot explain itself: {describe(error)}"
        else:
            reason = f"`{instance.type.tag}` did not explain itself"
        if isinstance(plan, Plan):
            return plan
        return asking.plan("unavailable", says=reason, holding=Holding("unavailable", cause=reason))


class _AskingFor(Asking):
    def __init__(self, explainer: Explainer, instance: Instance, operation: Operation) -> None:
        self.operation = operation
        self.digest = explainer.survey.digest
        self.name = label(instance)
        self.type = instance.type.tag
        self._explainer = explainer
        self._instance = instance

    def of(self, ref: Ref[Any], operation: Operation | None = None) -> Plan:
        return self._explainer.plan(self._target(ref)[1], operation or self.operation)

    def step(self, ref: Ref[Any], operation: Operation | None = None) -> Step:
        return Step(label=self._target(ref)[0], plan=self.of(ref, operation))

    def _target(self, ref: Ref[Any]) -> tuple[str, Instance]:
        edges = self._instance.edges
        held = [edge for edge in edges if edge.ref is ref] or [edge for edge in edges if edge.ref == ref]
        return held[0].label, self._explainer.composition.graph.instances[held[0].target]

    def own(self) -> Holding:
        if not is_asked(self._instance):
            raise ValueError(f"`{self.type}` explains itself by what it refers to")
        return self._explainer.survey.holding(self._instance)

    def running(self) -> Any:
        return self._explainer.composition.running(self._instance)


def store_plan(asking: Asking, holding: Holding, traits: Traits) -> Plan:
    """Return the plan of a service of which no more is known than what it *has*."""
    outcome: Outcome
    if asking.operation == "put":
        outcome, says = _put(holding, traits)
        return asking.plan(outcome, says=says, holding=holding)
    if holding.state == "unavailable":
        outcome = "unavailable"
    elif asking.operation == "has":
        outcome = "present" if holding.listed else "absent"
    elif holding.state == "whole":
        outcome = "read"
    else:
        outcome = "corrupt" if holding.listed else "absent"
    return asking.plan(outcome, says=holding.words, holding=holding)


def _put(holding: Holding, traits: Traits) -> tuple[Outcome, str]:
    if traits.writable is False:
        return "refused", "cannot be written"
    match holding.state:
        case "unavailable":
            return "unavailable", holding.words
        case "whole":
            return "stored", "has it already, and keeps it as it is"
        case "partly":
            return "stored", f"stores what it lacks: it has {holding.share}"
        case "corrupt":
            return "stored", "stores it anew: what is there is corrupt"
        case _:
            return "stored", "stores it"
