"""What the bundled composites promise, written from their documentation; they are not imported here."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import attrs
from simulation import Call, Node, Outlook, Problem, Rules, Scene, SeveralRules, fails_together, stance
from simulation.calls import QUESTIONS, REPEATED, WRITES
from simulation.rules import ERRORS, FAULTS

from castore import B3Digest


class RetryRules(Rules):
    """Only what is unavailable is tried again, no more often than `attempts`, and no less."""

    def judge_answer(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        failed = [sub for sub in subs if sub.said in ("unavailable", "pending")]
        attempts = node.settings["attempts"]
        if call.operation in REPEATED:
            if len(subs) > attempts:
                return f"was tried {len(subs)} times, and {attempts} are allowed"
            if any(sub not in failed for sub in subs[:-1]) and not fails_together(subs[0]):
                return "was tried again after an answer"
            if subs and subs[-1].said != call.said and subs[-1].said != "wrong":
                return f"is not what the last attempt said: {subs[-1].said}"
        late = call.ended - call.began + 2 * node.settings["max_delay"] >= node.settings["deadline"]
        if call.said == "unavailable" and call.operation in {*REPEATED, "reader.read"} and not late:
            # That a blob went away while it was read is a reason to try again, too.
            misses = sum(sub.said == "miss" for sub in subs)
            if len(failed) + misses < attempts:
                return f"gave up after {len(failed)} of {attempts} attempts"
        if call.said == "unavailable" and call.operation == "reader.read" and failed:
            return None
        if call.operation == "reader.read" and call.said == "unavailable" and not subs:
            return "is unavailable, and nobody was asked"
        return super().judge_answer(node, call, subs)


@attrs.define
class Circuit:
    """A breaker as its documentation has it."""

    closed: bool = True
    in_a_row: int = 0
    quiet_until: float = 0.0
    era: int = 0
    probe: Call | None = None


class BreakerRules(Rules):
    """Closed, open, half open: exactly what may go through goes through."""

    BUFFERED = frozenset({"open_write", "writer.write", "writer.fill"})

    def new_state(self, node: Node) -> Circuit:
        return Circuit()

    def asked(self, scene: Scene, node: Node, state: Any, call: Call, sub: Call) -> Problem:
        if call.batch and call.batch[0].note is not None:
            call.note = call.batch[0].note
        if call.note is not None:
            return None  # It has gone through already, or what it came with has.
        if not state.closed:
            if scene.now() < state.quiet_until:
                probing = state.probe is not None and state.probe.said == "pending"
                return "asks its child while " + ("another is probing" if probing else "it is open")
            state.era += 1
            state.probe = call
            state.quiet_until = scene.now() + node.settings["open_for"]
        for each in call.batch or [call]:
            each.note = state.era
        return None

    def judge(self, scene: Scene, node: Node, state: Any, call: Call) -> Problem:
        if call.note is None:
            if call.said != "unavailable":
                return super().judge(scene, node, state, call)
            if state.closed:
                return "was refused, and the breaker is closed"
            if scene.now() >= state.quiet_until:
                return "was refused, and it is time for a probe"
            return None
        if call.note == state.era and call.leads:
            self._leave(scene, node, state, call)
        return super().judge(scene, node, state, call)

    def _leave(self, scene: Scene, node: Node, state: Circuit, call: Call) -> None:
        # A batch has failed if none of it was answered.
        failed = all(each.said == "unavailable" for each in call.batch or [call])
        answered = call.said in ERRORS or call.operation not in self.BUFFERED
        if state.closed:
            state.in_a_row = state.in_a_row + 1 if failed else 0 if answered else state.in_a_row
            if state.in_a_row >= node.settings["failures"]:
                state.closed = False
                state.era += 1
                state.quiet_until = scene.now() + node.settings["open_for"]
        elif failed:
            state.quiet_until = scene.now() + node.settings["open_for"]
        elif answered:
            state.closed, state.in_a_row = True, 0
            state.era += 1
        else:
            state.quiet_until = scene.now()


@attrs.define
class Load:
    """What is under way, and how much has begun since when."""

    under_way: int = 0
    begun: int = 0
    since: float | None = None


class LimitRules(Rules):
    """No more at once, and no more in a second, than is allowed."""

    def new_state(self, node: Node) -> Load:
        return Load()

    def asked(self, scene: Scene, node: Node, state: Any, call: Call, sub: Call) -> Problem:
        state.under_way += 1
        most = node.settings.get("concurrency")
        if most is not None and state.under_way > most:
            return f"asks its child {state.under_way} things at once, and {most} are allowed"
        per_second = node.settings.get("operations_per_second")
        if per_second is not None and sub.operation not in ("writer.write", "writer.fill"):
            # What comes together begins when all of it may.
            state.since = call.began if state.since is None else state.since
            state.begun += 1
            allowed = max(per_second * 0.1, 1.0) + per_second * (scene.now() - state.since)
            if state.begun > allowed + 1e-6:
                return f"began {state.begun} operations, and {allowed:.2f} are allowed by now"
        return None

    def answered(self, scene: Scene, node: Node, state: Any, call: Call, sub: Call) -> None:
        state.under_way -= 1

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        # What must wait for its turn comes too late for a timeout above, also while nothing fails.
        slow = {"operations_per_second", "bytes_per_second"} & set(node.settings) and scene.hurried(node.name)
        return super().outlook(scene, node, digest) | ({"unavailable"} if slow else set())


class VerifyRules(Rules):
    """Nothing unchecked comes out."""

    trusts = False

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        # It asks for chunks by their digests: of several stores one may have a blob whole, but cut elsewhere.
        outlook = super().outlook(scene, node, digest)
        return outlook | {"corrupt"} if scene.damaged(digest) else outlook


class ReadOnlyRules(Rules):
    """Nothing that writes goes through."""

    def judge_answer(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        if any(sub.operation in WRITES for sub in subs):
            return "let a write through"
        if call.operation == "open_write":
            return None if call.said == "unsupported" else "must be unsupported"
        return super().judge_answer(node, call, subs)

    def capabilities(self, node: Node, having: Sequence[Collection[str]]) -> frozenset[str]:
        return frozenset(having[0]) & {"list", "source"}

    def stored(self, scene: Scene, node: Node, digest: B3Digest) -> bool:
        return False

    def takes(self, scene: Scene, node: Node) -> bool:
        return False


class MirrorRules(SeveralRules):
    """Quorums, and healing."""

    def new_state(self, node: Node) -> object:
        return None

    def at_rest(self, scene: Scene, node: Node, service: Any, whole: Iterable[B3Digest]) -> Problem:
        if scene.endless:
            return None
        waiting = sum(member.to_heal for member in service.health())
        if waiting:
            return f"{waiting} blobs still wait to be healed"
        if service.queue.dropped:
            return None
        for digest, member in itertools.product(whole, node.members):
            if scene.outlook(member, digest) == {"none"}:
                return f"{digest.hex()[:6]} was never healed at {member}"
        return None


@attrs.define
class Readers:
    """The calls that are under way: one may have its answer from what another has asked."""

    calls: list[Call] = attrs.field(factory=list)
    sizes: dict[B3Digest | None, set[int]] = attrs.field(factory=dict)
    """What near or far has ever said how long a blob is."""
    by_position: set[B3Digest | None] = attrs.field(factory=set)
    """Blobs that were opened while they were read: what neither has as a chunk comes out of them."""
    doubted: set[B3Digest | None] = attrs.field(factory=set)
    """Blobs that were read to their end and found to be wrong: far is asked for them before near."""


class CacheRules(Rules):
    """Near first, then far, each with a policy for its failure; and who must have what is written."""

    def new_state(self, node: Node) -> Readers:
        return Readers()

    def begins(self, scene: Scene, node: Node, state: Any, call: Call) -> None:
        state.calls = [other for other in state.calls if other.said == "pending"]
        state.calls.append(call)
        if len(state.calls) > 1:
            for other in state.calls:
                other.note = "beside others"

    def answered(self, scene: Scene, node: Node, state: Any, call: Call, sub: Call) -> None:
        if sub.operation == "open_read" and sub.value is not None:
            state.sizes.setdefault(sub.digest, set()).add(sub.value.size)
            if call.operation == "reader.read":
                state.by_position.add(call.digest)

    def judge(self, scene: Scene, node: Node, state: Any, call: Call) -> Problem:
        if call.operation == "reader.read" and call.said == "corrupt":
            state.doubted.add(call.digest)
        if call.operation == "reader.read" and call.said == "hit" and call.digest in state.by_position:
            return None
        if call.operation == "open_read" and call.digest in state.doubted and call.note is None:
            call.note = "near is doubted"
        # Who reads has been told near's size: when far has another, reading on there would give other bytes.
        if (
            call.operation == "reader.read"
            and call.said == "corrupt"
            and len(state.sizes.get(call.digest, ())) > 1
        ):
            return None
        return super().judge(scene, node, state, call)

    def judge_answer(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        if call.operation in ("writer.close", "open_write", "put_chunks", "put_indexes"):
            return self._judge_write(node, call, subs)
        if call.note is not None:
            return None
        return self._judge_question(node, call, subs) if call.operation in QUESTIONS else None

    def _judge_question(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        asked = [sub for sub in subs if sub.operation not in WRITES]
        if not asked:
            return None  # It is at hand.
        first_of_far = next((sub.began for sub in asked if sub.node == node.members[1]), None)
        far = stance(self._telling(call, [sub for sub in asked if sub.node == node.members[1]]))
        before_far = itertools.takewhile(lambda sub: sub.node == node.members[0], asked)
        near = stance(list(before_far))
        operation: str = call.operation
        if operation == "get_chunks" and call.argument.get(call.digest) is None:
            operation = "find_chunks"  # Without a size it is not known that there is a blob that needs it.
        allowed = self._settled(node, operation, near, far)
        if allowed is None and call.said == "corrupt" and any(sub.said == "wrong" for sub in asked):
            return None  # Of a blob in one piece that is found out at its end.
        if allowed is None:
            return f"was answered without asking far, as near said {near}"
        if call.said in allowed:
            return None
        when = "" if first_of_far is None else f" at {first_of_far:.2f}"
        return f"must be {' or '.join(sorted(allowed))}, as near said {near}, far {far}{when}"

    @staticmethod
    def _telling(call: Call, subs: Sequence[Call]) -> Sequence[Call]:
        """Return the calls that tell of bytes: after one that lacks some a list of chunks tells nothing."""
        if call.operation != "reader.read":
            return subs
        return [sub for sub in subs if sub.operation != "chunks"] or subs

    def _settled(self, node: Node, operation: str, near: str, far: str) -> set[str] | None:
        policy = node.settings
        if near == "hit":
            return {"hit"}
        if near in FAULTS and policy["on_near_error"] == "fail":
            return {"unavailable"}
        if far == "unasked":
            return None
        if (
            far in FAULTS
            and policy["on_far_error"] == "miss"
            and operation in ("missing", "open_read", "chunks", "find_chunks")
        ):
            far = "miss"
        if far != "miss":
            return {"unavailable"} if far in FAULTS else {far}
        if near == "corrupt":
            return {"corrupt"}
        if near in FAULTS and (policy["write"] == "near" or operation == "reader.read"):
            # In the middle of a blob far is known to have had it, or near was: both are no absence.
            return {"unavailable", "corrupt"} if operation == "reader.read" else {"unavailable"}
        return {"corrupt"} if operation == "reader.read" else {"miss"}

    def targets(self, node: Node) -> list[str]:
        """Those that must have what is written."""
        near, far = node.members
        both = [far, near] if node.settings["on_near_error"] == "fail" else [far]
        return {"near": [near], "far": [far], "both": both}[node.settings["write"]]

    def _judge_write(self, node: Node, call: Call, subs: Sequence[Call]) -> Problem:
        if call.operation == "open_write" and not subs:
            return None  # Where chunks are written nobody is asked until there are some.
        same = {call.operation, "put_indexes"} if call.operation == "writer.close" else {call.operation}
        done = {sub.node for sub in subs if sub.operation in same and sub.said in ("hit", "miss")}
        lacking = set(self.targets(node)) - done
        if call.said in ("hit", "miss") and lacking:
            return f"was acknowledged, and {', '.join(sorted(lacking))} had not done it"
        if call.said in ERRORS and not lacking:
            return "failed, and all that must have it had done it"
        return None

    def capabilities(self, node: Node, having: Sequence[Collection[str]]) -> frozenset[str]:
        near, far = map(frozenset, having)
        found = {"source"} | near & far & {"list", "delete"}
        written = {"near": near, "far": far, "both": near & far}[node.settings["write"]]
        return frozenset(found) | written & {"store"}

    def stored(self, scene: Scene, node: Node, digest: B3Digest) -> bool:
        return all(scene.stored(name, digest) for name in self.targets(node))

    def takes(self, scene: Scene, node: Node) -> bool:
        return all(map(scene.takes, self.targets(node)))

    def candid(self, scene: Scene, node: Node) -> bool:
        return node.settings["on_far_error"] == "fail" and super().candid(scene, node)

    def outlook(self, scene: Scene, node: Node, digest: B3Digest) -> Outlook:
        near, far = (scene.outlook(member, digest) for member in node.members)
        # A chunk that is damaged in near is asked of far as a chunk, which far need not have.
        found = {"corrupt", *((near | far) & {"unavailable"})} if scene.damaged(digest) else set()
        said = {"data": "hit", "none": "miss"}
        for here, there in itertools.product(near, far):
            settled = self._settled(node, "open_read", said.get(here, here), said.get(there, there))
            found |= {{"hit": "data", "miss": "none"}.get(one, one) for one in settled or ()}
            if "corrupt" in (here, there):
                found |= {"data", "corrupt"}
        return frozenset(found)
