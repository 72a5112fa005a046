"""What an operation of a cache would do: which of near and far is asked, and what near keeps.

The policies are read by name, with what they are where a config does not have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from castore.composition import Asking, Holding, Plan, together
from castore.composition.plans import Outcome, amount
from castore.wording import count_text, size_text
from castore_cache.linting import policy, targets

if TYPE_CHECKING:
    from castore import ChunkMeta
    from castore_cache.config import CacheConfig

_FILLS = {
    "none": "near keeps nothing of it",
    "chunks": "near keeps what is read from far, and the index once it has all",
    "blob": "near keeps all of it, also what is not read",
}


def explain(config: CacheConfig, asking: Asking) -> Plan:
    """Return the plan of an operation."""
    return _put(config, asking) if asking.operation == "put" else _find(config, asking)


def _find(config: CacheConfig, asking: Asking) -> Plan:
    near, far = asking.of(config.near), asking.of(config.far)
    step = asking.step(config.near)
    if asking.operation == "has" and getattr(config, "has", "present") == "durable":
        remark = "near is not asked, as only what far has counts"
        return asking.plan(_of_far(config, far), asking.step(config.far), remark)
    if near.found:
        return asking.plan(near.outcome, step, "far is not asked")
    if near.outcome != "absent" and getattr(config, "on_near_error", "ignore") == "fail":
        return asking.plan(near.outcome, step, "the failure of near is the answer")
    # Chunk by chunk from the two, by the index of near, or of far if near has none that can be right.
    by = next((one for one in (near.holding, far.holding) if one.listed and one.state != "corrupt"), None)
    if asking.operation == "get" and by is not None and by.chunks:
        both = near.holding.present | far.holding.present
        if by.sizes.keys() <= both:
            return asking.plan(
                "read", step, asking.step(config.far), *_sources(config, by.chunks, near.holding)
            )
        if by is near.holding:
            lost = count_text(len(by.sizes.keys() - both), "chunk")
            outcome: Outcome = "unavailable" if far.outcome == "unavailable" else "corrupt"
            remark = f"{lost} of near's index can be had neither from near nor from far"
            return asking.plan(outcome, step, asking.step(config.far), remark)
    return _from_far(config, asking, near, far)


def _from_far(config: CacheConfig, asking: Asking, near: Plan, far: Plan) -> Plan:
    outcome, remarks = _of_far(config, far), []
    if far.found and asking.operation == "get":
        remarks = _sources(config, far.holding.chunks, near.holding)
    elif outcome != far.outcome:
        remarks = ["what far does not answer counts as absent"]
    elif _lacks(far) and near.outcome not in {"absent", "read"} and policy(config) in {"near", "behind"}:
        outcome = near.outcome
        remarks = ["near may have what far lacks, as new blobs go there: its failure is the answer"]
    return asking.plan(outcome, asking.step(config.near), asking.step(config.far), *remarks)


def _of_far(config: CacheConfig, far: Plan) -> Outcome:
    """Return what an answer of far, or that there is none, counts for."""
    missed = far.outcome == "unavailable" and getattr(config, "on_far_error", "fail") == "miss"
    return "absent" if missed else far.outcome


def _lacks(far: Plan) -> bool:
    """Tell whether far has nothing of the blob, or an index some of whose chunks it has not."""
    return far.outcome == "absent" or (far.outcome == "corrupt" and far.holding.state == "partly")


def _sources(config: CacheConfig, chunks: tuple[ChunkMeta, ...], near: Holding) -> list[str]:
    """Return where the bytes come from, and what becomes of them."""
    fill = _FILLS.get(getattr(config, "fill", "chunks"), "")
    if not chunks:
        return ["all of it is read from far", fill]
    sizes = {meta.digest: meta.size for meta in chunks}
    wanted = sizes.keys() - near.present
    there = sizes.keys() & near.present
    read = f"{count_text(len(wanted), 'chunk')}, {size_text(amount(chunks, wanted))}, from far"
    if there:
        read = f"{count_text(len(there), 'chunk')}, {size_text(amount(chunks, there))}, from near; {read}"
    return [f"reads {read}", fill]


def _put(config: CacheConfig, asking: Asking) -> Plan:
    refs = targets(config)
    holding = together([asking.of(config.near, "get").holding, asking.of(config.far, "get").holding])
    if refs is None:
        both = (asking.step(config.near), asking.step(config.far))
        return asking.plan("stored", *both, f'as `write = "{policy(config)}"` says', holding=holding)
    behind = policy(config) == "behind"
    now = refs[:1] if behind else refs
    remarks = ["it is stored when both have it"] if len(now) > 1 else []
    if behind:
        remarks = ["it is stored when near has it; far gets it later, in the background"]
    failed = (asking.of(ref).outcome for ref in now if asking.of(ref).outcome != "stored")
    return asking.plan(next(failed, "stored"), *map(asking.step, refs), *remarks, holding=holding)
