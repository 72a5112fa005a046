"""A graph that was built, with all that the simulation knows about it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import attrs

from castore.contract.blobs import BlobService
from castore.digest import B3Digest
from castore.faults import READS, WRITES, FaultPlan, FaultyService
from simulation.calls import Call, Tap
from simulation.clock import VirtualClock
from simulation.contents import NOWHERE, SHARING, TRUTH
from simulation.graph import Graph, Kinds, Node, Site
from simulation.rules import Outlook
from simulation.shelf import CAPABILITIES, Store, Watcher

_OPERATIONS: Final = READS | WRITES

CALM: Final = FaultPlan(operations=frozenset())
"""The plan by which nothing goes wrong."""

MOODS: Final[dict[str, FaultPlan]] = {
    "up": CALM,
    "down": CALM,
    "flaky": FaultPlan(fail=0.3, operations=_OPERATIONS),
    "slow": FaultPlan(delay=1.0, latency=0.3, operations=_OPERATIONS),
    "hanging": FaultPlan(hang=1.0, hang_seconds=30.0, operations=_OPERATIONS),
    "stalling": FaultPlan(hang=0.3, hang_seconds=20.0, delay=0.3, latency=0.1, operations=_OPERATIONS),
}
"""How a store may be doing."""

USER: Final = ""

_PIECE: Final = 64
"""So many bytes a store gives at once: most blobs come in several pieces."""

FINDS: Final = frozenset({"missing", "find_chunks", "open_read", "get_chunks"})


@attrs.frozen
class Violation:
    """A promise that was not kept."""

    node: str
    rule: str
    """The operation, or the fact, that it is about."""
    words: str

    def __str__(self) -> str:
        return f"{self.node}: {self.rule}: {self.words}"


class World(Watcher):
    """The services of a graph over stores that stay, listened to on every edge, and judged.

    Attributes:
        clock: The time.
        violations: What was found.
        trace: Each call that has ended, in words, if it is to be kept.
    """

    def __init__(self, graph: Graph, kinds: Kinds, seed: int, *, traced: bool = False) -> None:
        self.graph = graph
        self.clock = VirtualClock(Random(f"{seed}/clock"))
        self.violations: list[Violation] = []
        self.trace: list[str] | None = [] if traced else None
        self.attempted: set[B3Digest] = set()
        """All that was ever given to a writer."""
        self.stores: dict[str, Store] = {}
        self.faulty: dict[str, FaultyService] = {}
        self._kinds = kinds
        self._seed = seed
        self._built = 0
        self._services: dict[str, BlobService] = {}
        self._taps: dict[tuple[str, str], Tap] = {}
        self._state: dict[str, Any] = {}
        self._tainted: set[tuple[str, str, B3Digest]] = set()
        self._acknowledged: dict[tuple[str, B3Digest], tuple[int, int]] = {}
        self._touches: dict[B3Digest, int] = {}
        for node in graph.nodes.values():
            if self.kind(node) is None:
                self._add_store(node)
        self.build()

    def kind(self, node: Node) -> Any:
        """Return the kind of a composite, `None` for a store."""
        return self._kinds.composite(node.tag)

    @property
    def composites(self) -> Iterator[Node]:
        """The nodes that are no stores."""
        return (node for node in self.graph.nodes.values() if node.name in self._services)

    @property
    def endless(self) -> bool:
        """Whether something never succeeds, so that others may try for ever."""
        return not all(
            self.takes(name) and "unavailable" not in self.outlook(name, NOWHERE[0])
            for name in self._services
        )

    # -- building --

    def _add_store(self, node: Node) -> None:
        store = self._kinds.store(node.tag).build(node.settings, self)
        self.stores[node.name] = store
        self.faulty[node.name] = FaultyService(
            store.service, instance=node.name, plan=CALM, sleep=self.clock.sleep, piece=_PIECE
        )

    def build(self) -> None:
        """Build all composites, new and without a memory of their own."""
        self._built += 1
        self._taps.clear()
        self._services.clear()
        for node in self.graph.nodes.values():
            kind = self.kind(node)
            if kind is None:
                continue
            members = tuple(self.tap(member, node.name) for member in node.members)
            dice = Random(f"{self._seed}/{node.name}/{self._built}")
            self._services[node.name] = kind.build(Site(node, members, self.clock, dice))
            self._state[node.name] = kind.rules.new_state(node)
        self._check_capabilities()

    def _check_capabilities(self) -> None:
        having: dict[str, frozenset[str]] = {}
        for node in self.graph.nodes.values():
            service = self._services.get(node.name) or self.faulty[node.name]
            found = frozenset(
                name for name, kind in CAPABILITIES.items() if service.capability(kind) is not None
            )
            having[node.name] = found
            if node.name not in self._services:
                continue
            expected = self.kind(node).rules.capabilities(node, [having[member] for member in node.members])
            if found != expected:
                words = f"are {_listed(found)}, and must be {_listed(expected)}"
                self.report(node.name, "capabilities", words)

    def tap(self, name: str, owner: str = USER) -> Tap:
        """Return a service as its *owner*, or the user, sees it."""
        key = owner, name
        if key not in self._taps:
            inner = self._services.get(name) or self.faulty[name]
            self._taps[key] = Tap(inner, owner, name, self)
        return self._taps[key]

    def close_services(self) -> None:
        """Close the composites, dependants first."""
        for name in reversed(list(self.graph.nodes)):
            if name in self._services:
                self._services[name].close()

    def close(self) -> None:
        """End everything."""
        self.clock.close()

    # -- the weather --

    def set_mood(self, name: str, mood: str) -> None:
        """Let a store do well or ill from now on."""
        faulty = self.faulty[name]
        faulty.failing = set(_OPERATIONS) if mood == "down" else set()
        faulty.faults.plan = attrs.evolve(MOODS[mood], seed=self._seed)

    def report(self, node: str, rule: str, words: str) -> None:
        """Note that a promise was not kept."""
        self.violations.append(Violation(node, rule, words))

    # -- what is known about blobs --

    def gone(self, digest: B3Digest) -> None:
        """Hear that a chunk or blob was lost or damaged somewhere."""
        for blob in SHARING.get(digest, frozenset()) | {digest}:
            self._touches[blob] = self._touches.get(blob, 0) + 1

    def mismatch(self, words: str) -> None:
        """Hear that something was stored that must not be."""
        self.report("a store", "what it was given", words)

    def touches(self, digest: B3Digest) -> int:
        """Return how often something has befallen a blob."""
        return self._touches.get(digest, 0)

    def acknowledge(self, node: str, digest: B3Digest, touches: int) -> None:
        """Note that a blob was stored through a node, before which *touches* had befallen it."""
        if touches != self.touches(digest):
            return
        if self.stored(node, digest):
            self._acknowledged[node, digest] = touches, self._built
        elif not touches:
            self.report(node, "put", f"acknowledged {digest.hex()[:6]}, which is not where it must be")

    def is_sure(self, node: str, digest: B3Digest) -> bool:
        """Tell whether a blob was stored through a node, and nothing has befallen it since."""
        return self._acknowledged.get((node, digest), (-1, 0))[0] == self.touches(digest)

    def stored(self, node: str, digest: B3Digest) -> bool:
        """Tell whether a blob is where a write through the node must have put it."""
        if node in self.stores:
            return self.stores[node].look(digest) == "data"
        entry = self.graph.nodes[node]
        found: bool = self.kind(entry).rules.stored(self, entry, digest)
        return found

    def outlook(self, node: str, digest: B3Digest) -> Outlook:
        """Return what reading a blob there may come to while nothing fails."""
        if node in self.stores:
            return frozenset({self.stores[node].look(digest)})
        entry = self.graph.nodes[node]
        found: Outlook = self.kind(entry).rules.outlook(self, entry, digest)
        return found

    def takes(self, node: str) -> bool:
        """Tell whether a write through a node can succeed while nothing fails."""
        if node in self.stores:
            return True
        entry = self.graph.nodes[node]
        found: bool = self.kind(entry).rules.takes(self, entry)
        return found

    def candid(self, node: str) -> bool:
        """Tell whether a node calls nothing absent that it could not ask for."""
        if node in self.stores:
            return True
        entry = self.graph.nodes[node]
        found: bool = self.kind(entry).rules.candid(self, entry)
        return found

    def damaged(self, digest: B3Digest) -> bool:
        """Tell whether any store has a blob, but not right."""
        return any(store.look(digest) == "corrupt" for store in self.stores.values())

    def hurried(self, node: str) -> bool:
        """Tell whether anything above *node* waits for it only so long."""
        return any(
            member == node and ("timeout" in entry or self.hurried(above.name))
            for above in self.graph.nodes.values()
            for member, entry in zip(above.members, above.entries, strict=True)
        )

    def judge_rest(self) -> None:
        """Judge all composites, when nothing fails and nothing is under way."""
        for node in self.composites:
            # Of what was acknowledged before all was closed, what was to be done may have been forgotten.
            sure = [
                digest
                for (name, digest), (touches, built) in self._acknowledged.items()
                if name == node.name and touches == self.touches(digest) and built == self._built
            ]
            words = self.kind(node).rules.at_rest(self, node, self._services[node.name], sure)
            if words is not None:
                self.report(node.name, "at rest", words)

    # -- listening --

    def now(self) -> float:
        """Return the time."""
        return self.clock.now()

    def tainted(self, owner: str, node: str, digest: B3Digest) -> bool:
        """Tell whether *node* has ever given *owner* wrong bytes of a blob."""
        return (owner, node, digest) in self._tainted

    def begins(self, call: Call, above: Call | None) -> None:
        """Let the rules of both ends hear of a call that begins."""
        if call.node in self._services:
            node = self.graph.nodes[call.node]
            self.kind(node).rules.begins(self, node, self._state[call.node], call)
        if above is not None and above.node == call.owner:
            node = self.graph.nodes[call.owner]
            words = self.kind(node).rules.asked(self, node, self._state[call.owner], above, call)
            if words is not None:
                self.report(call.owner, above.operation, words)

    def ends(self, call: Call, above: Call | None) -> None:
        """Let the rules of both ends judge what came of a call."""
        if self.trace is not None:
            self.trace.append(f"{call.ended:.4f} {call}")
        if call.operation == "writer.close" and call.said == "hit" and call.value not in TRUTH:
            self.report(call.node, call.operation, "stored a blob that nobody has written")
        if call.operation == "put_indexes" and call.said == "hit" and call.node in self.stores:
            self._judge_index(call)
        if call.said == "wrong" and call.digest is not None:
            self._tainted.add((call.owner, call.node, call.digest))
        if call.said == "hit" and call.operation in FINDS and call.digest not in self.attempted:
            self._judge_find(call)
        if above is not None and above.node == call.owner:
            node = self.graph.nodes[call.owner]
            self.kind(node).rules.answered(self, node, self._state[call.owner], above, call)
        if call.node in self._services and call.said != "error":
            node = self.graph.nodes[call.node]
            words = self.kind(node).rules.judge(self, node, self._state[call.node], call)
            if words is not None:
                self.report(call.node, call.operation, f"{call.said} {words}")

    def _judge_index(self, call: Call) -> None:
        blob = call.digest
        if blob is not None and not self.touches(blob) and self.stores[call.node].look(blob) != "data":
            words = f"made a blob visible in {call.node} whose chunks are not there"
            self.report(call.owner, call.operation, words)

    def _judge_find(self, call: Call) -> None:
        # There may be something that claims to have everything.
        if call.digest is not None and "corrupt" not in self.outlook(call.node, call.digest):
            self.report(call.node, call.operation, "finds what nobody has ever stored")


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
