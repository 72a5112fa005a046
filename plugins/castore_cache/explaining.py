"""What an operation of a cache would do: which of near and far is asked, and what near keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castore.composition import Asking, Holding, Plan, together
from castore.contract.plans import Outcome
from castore.text import count_text, size_text
from castore_cache.linting import sure_of, targets

if TYPE_CHECKING:
    from castore_cache.config import CacheConfig

_FILLS = {
    "none": "near keeps nothing of it",
    "chunks": "near keeps what is read from far, and the index once it has all",
    "blob": "near keeps all of it, also what is not read",
}
_FILLS_NOTHING = "near keeps nothing of it, as what is put there is refused"


_STORED = {
    "both": ["it is stored when both have it"],
    "behind": ["it is stored when near has it; far gets it later, in the background"],
}


def explain(config: CacheConfig, asking: Asking) -> Plan:
    """Return the plan of an operation."""
    return _put(config, asking) if asking.operation == "put" else _find(config, asking)


def _find(config: CacheConfig, asking: Asking) -> Plan:
    near, far = asking.of(config.near), asking.of(config.far)
    step = asking.step(config.near)
    if asking.operation == "has" and config.has == "durable":
        remark = "near is not asked, as only what far has counts"
        return asking.plan(_of_far(config, far), asking.step(config.far), remark)
    if near.found:
        return asking.plan(near.outcome, step, "far is not asked")
    if near.outcome != "absent" and config.on_near_error == "fail":
        return asking.plan(near.outcome, step, "the failure of near is the answer")
    # Chunk by chunk from the two, by the index of near, or of far if near has none that can be right.
    by = next((one for one in (near.holding, far.holding) if one.listed and one.state != "corrupt"), None)
    if asking.operation == "get" and by is not None and by.chunks:
        lost = by.distinct - near.holding.present - far.holding.present
        if not lost or by is near.holding:
            return _from_both(config, asking, by, len(lost))
    return _from_far(config, asking, near, far)


def _from_both(config: CacheConfig, asking: Asking, by: Holding, lost: int) -> Plan:
    """Return the plan of reading by the index of one of the two, some chunks of which neither may have."""
    near, far = asking.of(config.near), asking.of(config.far)
    outcome: Outcome = "read"
    remarks = _sources(config, asking, by, near.holding)
    chunks = count_text(lost, "chunk")
    if lost and far.found:
        remarks.append(f"{chunks} of these by the place in the blob, which far has in other pieces")
    elif lost:
        outcome = "unavailable" if far.outcome == "unavailable" else "corrupt"
        remarks = [f"{chunks} of near's index can be had neither from near nor from far"]
    return asking.plan(outcome, asking.step(config.near), asking.step(config.far), *remarks)


def _from_far(config: CacheConfig, asking: Asking, near: Plan, far: Plan) -> Plan:
    outcome, remarks = _of_far(config, far), []
    if far.found and asking.operation == "get":
        remarks = _sources(config, asking, far.holding, near.holding)
    elif (_lacks(far) or outcome != far.outcome) and _near_decides(config, near):
        outcome = near.outcome
        remarks = ["what far lacks is in near, or may be, as new blobs go there: its failure is the answer"]
    elif outcome != far.outcome:
        remarks = ["what far does not answer counts as absent"]
    return asking.plan(outcome, asking.step(config.near), asking.step(config.far), *remarks)


def _near_decides(config: CacheConfig, near: Plan) -> bool:
    """Tell whether a failure of near is the answer if far has none: what is corrupt is there."""
    alone = config.write in {"near", "behind"} and near.outcome not in {"absent", "read"}
    return alone or near.outcome == "corrupt"


def _of_far(config: CacheConfig, far: Plan) -> Outcome:
    """Return what an answer of far, or that there is none, counts for."""
    missed = far.outcome == "unavailable" and config.on_far_error == "miss"
    return "absent" if missed else far.outcome


def _lacks(far: Plan) -> bool:
    """Tell whether far has nothing of the blob, or an index some of whose chunks it has not."""
    return far.outcome == "absent" or (far.outcome == "corrupt" and far.holding.state == "partly")


def _sources(config: CacheConfig, asking: Asking, by: Holding, near: Holding) -> list[str]:
    """Return where the bytes come from, and what becomes of them."""
    refused = asking.of(config.near, "put").outcome == "refused"
    fill = _FILLS_NOTHING if refused else _FILLS[config.fill]
    if not by.chunks:
        return ["all of it is read from far", fill]
    wanted, there = by.distinct - near.present, by.distinct & near.present
    read = f"{count_text(len(wanted), 'chunk')}, {size_text(wanted.size)}, from far"
    if there:
        read = f"{count_text(len(there), 'chunk')}, {size_text(there.size)}, from near; {read}"
    return [f"reads {read}", fill]


def _put(config: CacheConfig, asking: Asking) -> Plan:
    holding = together([asking.of(config.near, "get").holding, asking.of(config.far, "get").holding])
    remarks = _STORED.get(config.write, [])
    if config.write == "both" and config.on_near_error == "ignore":
        remarks = ["it is stored when far has it; near gets it, too, unless it fails"]
    failed = (asking.of(ref).outcome for ref in sure_of(config) if asking.of(ref).outcome != "stored")
    steps = map(asking.step, targets(config))
    return asking.plan(next(failed, "stored"), *steps, *remarks, holding=holding)
