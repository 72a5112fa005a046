"""What a composite may say, by its documentation, of what its children said: written without its code.

A rule returns what is wrong, in words, or `None`. It is asked for each call of a node when that has ended,
with what the node asked of its children for it; and about the state of the whole graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from castore.digest import B3Digest
from simulation.calls import ITEM_BY_ITEM, QUESTIONS, WRITES, Call, Said
from simulation.graph import Node

Problem: TypeAlias = str | None

Outlook: TypeAlias = frozenset[str]
"""What reading a blob may come to while nothing fails: some of `data`, `none`, `corrupt`, `unavailable`."""

ERRORS: Final = frozenset({"corrupt", "unavailable", "unsupported"})
FAULTS: Final = frozenset({"unavailable", "unsupported", "pending", "error"})
"""What is no answer."""


class Scene(Protocol):
    """What rules may see of the graph beside a call."""

    def now(self) -> float:
        """Return the time."""

    def tainted(self, owner: str, node: str, digest: B3Digest) -> bool:
        """Tell whether *node* has ever given *owner* wrong bytes of a blob."""

    def stored(self, node: str, digest: B3Digest) -> bool:
        """Tell whether a blob is where a write through *node* must have put it."""

    def outlook(self, node: str, digest: B3Digest) -> Outlook:
        """Return what reading a blob at *node* may come to while nothing fails."""

    @property
    def endless(self) -> bool:
        """Whether something never succeeds, so that others may try for ever."""

    def takes(self, node: str) -> bool:
        """Tell whether a write through *node* can succeed while nothing fails."""

    def candid(self, node: str) -> bool:
        """Tell whether *node* calls nothing absent that it could not ask for."""

    def damaged(self, digest: B3Digest) -> bool:
        """Tell whether any store has a blob, but not right."""

    def hurried(self, node: str) -> bool:
        """Tell whether anything above *node* waits for it only so long."""


class Rules:
    """The rules of what passes everything on to its one child; other composites have others."""

    trusts = True
    """Whether wrong bytes of a child may come out of it, too."""

    def new_state(self, node: Node) -> object:
        """Return what the rules have to remember about a node."""
        return None

    # -- about calls --

    def begins(self, scene: Scene, node: Node, state: object, call: Call) -> None:
        """Hear of a call to a node that begins."""

    def asked(self, scene: Scene, node: Node, state: object, call: Call, sub: Call) -> Problem:
        """Judge that the node asks a child something, *sub*, for *call*."""
        return None

    def answered(self, scene: Scene, node: Node, state: object, call: Call, sub: Call) -> None:
        """Hear what came of that."""

    def judge(self, scene: Scene, node: Node, state: object, call: Call) -> Problem:
        """Judge what a node has said."""
        if call.said == "wrong":
            return self._judge_wrong(scene, node, call)
        return self.judge_answer(node, call, call.own)

    def judge_answer(
        self,
        node: Node,
        call: Call,
        subs: Sequence[Call],
    ) -> Problem:
        """Judge an answer whose bytes are right, by the answers to *subs*."""
        said = {sub.said for sub in subs}
        if call.said == "unavailable":
            # What is asked in parts is not asked on when a part has failed.
            said |= {sub.said for each in call.batch for sub in each.own}
        match call.said:
            case "unavailable" if not said & {"unavailable", "pending"}:
                return "is unavailable, and no child was"
            case "corrupt" if not self._may_be_corrupt(call, subs):
                return "is corrupt, and nothing that a child said was"
            case "unsupported" if "unsupported" not in said:
                return "does not support what its child was not even asked for, or has done"
            case "miss" if call.operation in QUESTIONS and not (subs and subs[-1].said == "miss"):
                return "is a miss, and the child did not say so"
            case "hit" if call.operation in ("missing", "find_chunks") and not said & {"hit", "wrong"}:
                return "is a hit, and the child did not say so"
            case "hit" if call.operation in QUESTIONS and subs and subs[-1].said == "miss":
                return "is a hit, and the child had said that it is absent"
        return None

    def _may_be_corrupt(self, call: Call, subs: Sequence[Call]) -> bool:
        # A chunk that is missing makes its blob corrupt.
        bad = {"corrupt", "wrong"} | ({"miss"} if call.operation == "reader.read" else set())
        # What was found once may be said again.
        return (call.operation == "reader.read" and not subs) or any(sub.said in bad for sub in subs)

    def _judge_wrong(self, scene: Scene, node: Node, call: Call) -> Problem:
        if call.digest is None:
            return None
        if self.trusts and any(scene.tainted(node.name, member, call.digest) for member in node.members):
            return None
        return "gives bytes that are not the blob's"

    # -- about capabilities and places --

    def capabilities(self, node: Node, having: Sequence[Collection[str]]) -> frozenset[str]:
        """Return the names of what a node must have, whose members have the capabilities in *having*."""
        return frozenset(having[0])

    def stored(self, scene: Scene, node: Node, digest: B3Digest) -> bool:
        """Tell whether a blob is where a write through the node must have put it."""
        return scene.stored(node.members[0], digest)

    def takes(self, scene: Scene, node: Node) -> bool:
        """Tell whether a write through the node can succeed while nothing fails."""
        return scene.takes(node.members[0])

    def candid(self, scene: Scene, node: Node) -> bool:
        """Tell whether a node calls nothing absent that it could not ask for; a policy may say otherwise."""
        return all(map(scene.candid, node.members))

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        """Return what reading a blob may come to while nothing fails."""
        return scene.outlook(node.members[0], digest)

    def at_rest(self, scene: Scene, node: Node, service: object, whole: Iterable[B3Digest]) -> Problem:
        """Judge a node when nothing fails and nothing is under way any more.

        *whole* are the blobs that were stored through it, and that nothing has befallen.
        """
        return None


class SeveralRules(Rules):
    """The rules of what asks several children: a hit wins; corrupt needs answers of all; then misses count.

    Arguments:
        misses: Returns, of a node, how many must call something absent.
        targets: Returns, of a node, the children that a write goes to, and how many of these must have it.
    """

    trusts = False

    def __init__(
        self,
        misses: Callable[[Node], int],
        targets: Callable[[Node], tuple[Sequence[str], int]],
    ) -> None:
        self._misses = misses
        self._targets = targets

    def judge_answer(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        """Judge a question by what the children said, a write by how many took it."""
        if call.operation in QUESTIONS:
            return self._judge_question(node, call, subs)
        if call.operation in ("writer.close", "open_write", "put_chunks", "put_indexes"):
            return self._judge_write(node, call, subs)
        if call.operation == "delete":
            return self._judge_delete(node, call, subs)
        return None

    def _judge_question(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        asked = [sub for sub in subs if sub.operation not in WRITES]
        if fails_together(call) and any(self._judge_alone(node, each) is None for each in call.batch):
            return None
        return self._judge_alone(node, call, asked)

    def _judge_alone(self, node: Node, call: Call, asked: Sequence[Call] | None = None) -> Problem:
        if asked is None:
            asked = [sub for sub in call.own if sub.operation not in WRITES]
        limits = [entry.get("timeout") for entry in node.entries]
        given_up = [
            limit is not None and was_given_up(call, member, limit)
            for member, limit in zip(node.members, limits, strict=True)
        ]
        if not asked and not any(given_up):
            at_hand = call.operation == "reader.read" and call.said in ("hit", "corrupt")
            return None if at_hand else "was answered without asking anyone"
        stances = [
            "unavailable" if lost else stance([sub for sub in asked if sub.node == member], limit)
            for member, limit, lost in zip(node.members, limits, given_up, strict=True)
        ]
        if (
            None not in limits
            and call.operation == "missing"
            and call.ended - call.began > sum(limits) + 1e-6
        ):  # type: ignore[arg-type]
            return f"took {call.ended - call.began:.2f} s, more than all the time limits together"
        final = [entry.get("on_error") == "fail" for entry in node.entries]
        allowed = self._settled(node, stances, final, limits, call.operation)
        if isinstance(allowed, str):
            return allowed
        if call.said in allowed:
            return None
        told = ", ".join(f"{member}: {said}" for member, said in zip(node.members, stances, strict=True))
        return f"must be {' or '.join(sorted(allowed))}, as its children said {told}"

    def _settled(
        self,
        node: Node,
        stances: Sequence[str],
        final: Sequence[bool],
        limits: Sequence[object],
        operation: str,
    ) -> set[str] | str:
        ends = {
            said if said == "corrupt" else "unavailable"
            for said, last in zip(stances, final, strict=True)
            if last and (said in FAULTS or said == "corrupt")
        }
        if ends:
            return ends
        if "hit" in stances:
            return {"hit"}
        for member, said, limit in zip(node.members, stances, limits, strict=True):
            # One that hangs too often is not asked for a while.
            if said == "unasked" and limit is None:
                return f"gave up without asking {member}"
        outcome = settle(
            ["unavailable" if said == "unasked" else said for said in stances], self._misses(node)
        )
        # A chunk that is missing makes its blob corrupt.
        return {"corrupt"} if outcome == "miss" and operation == "reader.read" else {outcome}

    def _judge_write(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        targets, quorum = self._targets(node)
        asked = [sub for sub in subs if sub.operation == call.operation]
        if not asked and call.operation == "open_write":
            return None  # It writes chunks, and has none yet.
        if not asked and call.operation == "writer.close":
            asked = [sub for sub in subs if sub.operation == "put_indexes"]
        if call.operation != "put_indexes" or call.digest is not None:
            # A put of no index is none of this one.
            asked = [sub for sub in asked if sub.operation != "put_indexes" or sub.digest is not None]
        strangers = {sub.node for sub in asked} - set(targets)
        if strangers:
            return f"wrote to {', '.join(sorted(strangers))}, which takes no new blobs"
        done = {sub.node: sub.ended - sub.began for sub in asked if sub.said in ("hit", "miss")}
        if call.said in ("hit", "miss") and len(done) < quorum:
            return f"was acknowledged, and only {len(done)} of {quorum} children had done it"
        limits = {name: entry.get("timeout") for name, entry in zip(node.members, node.entries, strict=True)}
        in_time = [name for name, taken in done.items() if (limits[name] or taken) >= taken]
        if call.said in ERRORS and len(in_time) >= quorum:
            return f"failed, though {len(in_time)} children had done it, and {quorum} are enough"
        return None

    def _judge_delete(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        done = {sub.node for sub in subs if sub.operation == "delete" and sub.said in ("hit", "miss")}
        if call.said in ("hit", "miss") and done != set(node.members):
            return "was acknowledged, and not all children had done it"
        return None

    def capabilities(self, node: Node, having: Sequence[Collection[str]]) -> frozenset[str]:
        """Return `source`; `store` if those that are written to have it; of the rest what all have."""
        common = frozenset.intersection(*map(frozenset, having)) & {"list", "delete"}
        targets, _ = self._targets(node)
        by_name = dict(zip(node.members, having, strict=True))
        stores = all("store" in by_name[name] for name in targets)
        return common | {"source"} | ({"store"} if stores else frozenset())

    def stored(self, scene: Scene, node: Node, digest: B3Digest) -> bool:
        """Tell whether enough of those that are written to have it."""
        targets, quorum = self._targets(node)
        return sum(scene.stored(name, digest) for name in targets) >= quorum

    def takes(self, scene: Scene, node: Node) -> bool:
        """Tell whether enough of those that are written to take it."""
        targets, quorum = self._targets(node)
        return sum(map(scene.takes, targets)) >= quorum

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        """Settle what the children's outlooks are; several that are corrupt may make up one that is not."""
        found: set[str] = set()
        for said in itertools.product(*(scene.outlook(name, digest) for name in node.members)):
            outcomes = self._outlook_of(node, said)
            found |= outcomes
        return frozenset(found)

    def _outlook_of(self, node: Node, said: Sequence[str]) -> set[str]:
        final = [entry.get("on_error") == "fail" for entry in node.entries]
        found: set[str] = set()
        for outcome, last in zip(said, final, strict=True):
            if outcome == "data":
                return found | {"data"}
            if last and outcome != "none":
                # Single chunks may be asked of the others first.
                found |= {outcome, "data"} if outcome == "corrupt" else {outcome}
                return found
        settled = settle([{"none": "miss"}.get(one, one) for one in said], self._misses(node))
        found.add({"miss": "none"}.get(settled, settled))
        if "corrupt" in said:
            # One chunk may be right here, another there; one that is missing need not be corrupt anywhere.
            found |= {"data", "corrupt"}
        return found


def fails_together(call: Call) -> bool:
    """Tell whether one of many that could not be told has failed all of them."""
    return call.said in ERRORS and call.operation not in ITEM_BY_ITEM and len(call.batch) > 1


def was_given_up(call: Call, member: str, limit: float) -> bool:
    """Tell whether *call* was one of several that a child did not answer, together, in *limit* seconds.

    Then nothing is known of any of them, whatever it has said by then of some.
    """
    subs = [
        sub for each in call.batch for sub in each.own if sub.node == member and sub.operation not in WRITES
    ]
    if len(call.batch) < 2 or not subs:
        return False
    if any(sub.said == "pending" for sub in subs):
        return True
    return max(sub.ended for sub in subs) - min(sub.began for sub in subs) > limit


def stance(calls: Sequence[Call], limit: float | None = None) -> str:
    """Return what a child has said in the end, in *limit* seconds; wrong bytes are to be found corrupt."""
    if not calls:
        return "unasked"
    if limit is not None and calls[-1].ended - calls[0].began > limit:
        return "unavailable"
    said: Said = calls[-1].said
    if said in FAULTS or said == "corrupt":
        return "unavailable" if said in FAULTS else said
    return "corrupt" if any(call.said == "wrong" for call in calls) else said


def settle(stances: Sequence[str], misses: int) -> str:
    """Return what children say together: `hit`, `corrupt`, `miss` or `unavailable`."""
    if "hit" in stances or "data" in stances:
        return "hit"
    silent = any(said in FAULTS for said in stances)
    if "corrupt" in stances:
        return "unavailable" if silent else "corrupt"
    return "miss" if stances.count("miss") >= misses else "unavailable"


class FixedRules(Rules):
    """The rules of what has one outcome, whatever is asked: a table by operation, for each setting."""

    def __init__(self, table: Mapping[str, Mapping[str, str]], outlooks: Mapping[str, str]) -> None:
        self._table = table
        self._outlooks = outlooks

    def judge_answer(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        """Compare with the table."""
        expected = self._table[node.settings["outcome"]].get(call.operation)
        return None if expected in (None, call.said) else f"must be {expected}"

    def capabilities(self, node: Node, having: Sequence[Collection[str]]) -> frozenset[str]:
        """Return none."""
        return frozenset()

    def stored(self, scene: Scene, node: Node, digest: B3Digest) -> bool:
        """Return False: it keeps nothing."""
        return False

    def takes(self, scene: Scene, node: Node) -> bool:
        """Return False."""
        return False

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        """Return what the setting says."""
        return frozenset({self._outlooks[node.settings["outcome"]]})
