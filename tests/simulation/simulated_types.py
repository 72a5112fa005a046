"""The types that simulations draw from: a line for each bundled composite, and the stores at the ends."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from random import Random
from typing import Any, Final

from simulated_rules import (
    BreakerRules,
    CacheRules,
    LimitRules,
    MirrorRules,
    ReadOnlyRules,
    RetryRules,
    VerifyRules,
)
from simulation import (
    Drawn,
    FixedRules,
    Kind,
    Kinds,
    Node,
    Shelf,
    Site,
    Store,
    StoreKind,
    Watcher,
)
from simulation.contents import CUTS
from simulation.graph import Settings
from simulation.rules import SeveralRules
from simulation.shelf import Look

from castore import B3Digest, BlobService
from castore.composites.hedging import Hedge
from castore.composites.members import Member
from castore.digest import EMPTY
from castore.threads.pool import Pool
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.error.service import StubService
from castore_wrappers.limit.service import LimitService
from castore_wrappers.read_only.service import ReadOnlyService
from castore_wrappers.retry.patience import Policy
from castore_wrappers.retry.service import RetryService
from castore_wrappers.verify.service import VerifyService


def seconds(dice: Random, least: float, most: float) -> float:
    """Such that no two deadlines fall together."""
    return round(dice.uniform(least, most), 3)


# -- settings --


def draw_retry(dice: Random, members: Sequence[str]) -> Drawn:
    return Drawn(
        {
            "attempts": dice.randint(1, 4),
            "first_delay": seconds(dice, 0.05, 1),
            "max_delay": seconds(dice, 1, 5),
            "deadline": seconds(dice, 20, 90),
            "replay": dice.choice((0, 100, 4096)),
        }
    )


def draw_breaker(dice: Random, members: Sequence[str]) -> Drawn:
    return Drawn({"failures": dice.randint(1, 3), "open_for": seconds(dice, 2, 40)})


def draw_limit(dice: Random, members: Sequence[str]) -> Drawn:
    settings = {
        "concurrency": dice.randint(1, 2),
        "operations_per_second": dice.randint(2, 50),
        "bytes_per_second": dice.randint(50, 5000),
    }
    return Drawn({name: settings[name] for name in dice.sample(list(settings), dice.randint(1, 3))})


def draw_cache(dice: Random, members: Sequence[str]) -> Drawn:
    settings = {
        "write": dice.choice(("near", "far", "both")),
        "fill": dice.choice(("none", "chunks", "blob")),
        "on_near_error": dice.choice(("ignore", "ignore", "fail")),
        "on_far_error": dice.choice(("fail", "fail", "miss")),
        "fill_wait": seconds(dice, 5, 60),
    }
    return Drawn(settings)


def draw_error(dice: Random, members: Sequence[str]) -> Drawn:
    return Drawn({"outcome": dice.choice(("unavailable", "absent", "corrupt"))})


def timeouts(dice: Random, members: Sequence[str]) -> list[dict[str, Any]]:
    return [{"timeout": seconds(dice, 1, 6)} if dice.random() < 0.3 else {} for _ in members]


def draw_fallback(dice: Random, members: Sequence[str]) -> Drawn:
    entries = timeouts(dice, members)
    for entry in entries:
        if dice.random() < 0.15:
            entry["on_error"] = "fail"
    settings = {}
    if dice.random() < 0.5:
        settings["write_to"] = dice.choice(members)
    if dice.random() < 0.5:
        settings["copy_to"] = dice.choice(members)
    return Drawn(settings, tuple(entries))


def draw_mirror(dice: Random, members: Sequence[str]) -> Drawn:
    count = len(members)
    writes = dice.randint(1, count)
    settings: dict[str, Any] = {
        "write_quorum": writes,
        "miss_quorum": dice.randint(count - writes + 1, count),
        "heal_interval": seconds(dice, 3, 20),
        "read_repair": dice.random() < 0.8,
    }
    if dice.random() < 0.3:
        settings["hedge_after"] = seconds(dice, 0.1, 1)
        settings["hedge_budget"] = dice.choice((0.05, 1.0))
    return Drawn(settings, tuple(timeouts(dice, members)))


# -- building --


def members_of(site: Site) -> list[Member]:
    return [
        Member(
            name,
            service,
            timeout=entry.get("timeout"),
            final=entry.get("on_error") == "fail",
            clock=site.clock,
        )
        for name, service, entry in zip(site.node.members, site.members, site.node.entries, strict=True)
    ]


def build_retry(site: Site) -> BlobService:
    settings = dict(site.node.settings)
    replay = settings.pop("replay")
    clock = site.clock
    return RetryService(
        *site.members,
        Policy(**settings),
        replay=replay,
        name=site.node.name,
        clock=clock.now,
        sleep=clock.sleep,
        dice=site.dice,
    )


def build_breaker(site: Site) -> BlobService:
    return BreakerService(*site.members, **site.node.settings, name=site.node.name, clock=site.clock.now)


def build_limit(site: Site) -> BlobService:
    clock = site.clock
    return LimitService(
        *site.members,
        **site.node.settings,
        name=site.node.name,
        clock=clock.now,
        sleep=clock.sleep,
        wait=lambda turn: clock.wait(turn, None),
    )


def build_verify(site: Site) -> BlobService:
    return VerifyService(*site.members, name=site.node.name, pool=Pool(0))


def build_read_only(site: Site) -> BlobService:
    return ReadOnlyService(*site.members, name=site.node.name)


def build_error(site: Site) -> BlobService:
    return StubService(site.node.settings["outcome"], name=site.node.name)


def build_cache(site: Site) -> BlobService:
    return CacheBlobService(*site.members, **site.node.settings, name=site.node.name, clock=site.clock)


def build_fallback(site: Site) -> BlobService:
    return FallbackBlobService(members_of(site), **site.node.settings, pool=Pool(0), name=site.node.name)


def build_mirror(site: Site) -> BlobService:
    settings = site.node.settings
    hedge = None
    if "hedge_after" in settings:
        hedge = Hedge(settings["hedge_after"], budget=settings["hedge_budget"], clock=site.clock)
    queue = HealingQueue(site.node.name, interval=settings["heal_interval"], clock=site.clock)
    return MirrorBlobService(
        members_of(site),
        write_quorum=settings["write_quorum"],
        miss_quorum=settings["miss_quorum"],
        hedge=hedge,
        queue=queue,
        read_repair=settings["read_repair"],
        pool=Pool(0),
        name=site.node.name,
    )


# -- rules --


def all_must_miss(node: Node) -> int:
    return len(node.members)


def one_is_written(node: Node) -> tuple[Sequence[str], int]:
    return [node.settings.get("write_to", node.members[0])], 1


def quorum_must_miss(node: Node) -> int:
    return int(node.settings["miss_quorum"])


def all_are_written(node: Node) -> tuple[Sequence[str], int]:
    return node.members, int(node.settings["write_quorum"])


ERROR_TABLE: Final = {
    "unavailable": dict.fromkeys(("open_read", "chunks", "open_write", "missing"), "unavailable"),
    "absent": {"missing": "miss", "open_read": "miss", "chunks": "miss", "open_write": "unsupported"},
    "corrupt": {"open_read": "corrupt", "chunks": "corrupt", "open_write": "unsupported"},
}
ERROR_OUTLOOKS: Final = {"unavailable": "unavailable", "absent": "none", "corrupt": "corrupt"}

# -- stores --


class SequentialMemory(MemoryBlobService):
    """The bundled `memory`, all of whose work is done by the thread that asks."""

    @property
    def pool(self) -> Pool:
        return NO_POOL


NO_POOL: Final = Pool(0)


class MemoryStore(Store):
    """The bundled `memory`, which trusts its memory."""

    def __init__(self, watcher: Watcher) -> None:
        self.service = self.memory = SequentialMemory()
        self._watcher = watcher

    def look(self, digest: B3Digest) -> Look:
        index = self.memory._indexes.get(digest)
        parts = [meta.digest for meta in index] if index else [digest]
        if all(part in self.memory._chunks or part == EMPTY for part in parts):
            return "data" if index is not None or digest in self.memory._chunks else "none"
        return "none" if index is None else "corrupt"

    def damage(self, digest: B3Digest, which: int) -> None:
        """Nothing: it would give wrong bytes, which its contract excludes."""

    def lose(self, digest: B3Digest, which: int | None = None) -> None:
        """All of it. Chunks that are parts of other blobs, too, stay as chunks."""
        self.memory._indexes.pop(digest, None)
        if not any(digest in map(attrgetter("digest"), index) for index in self.memory._indexes.values()):
            self.memory._chunks.pop(digest, None)
        self._watcher.gone(digest)


def draw_shelf(dice: Random) -> Settings:
    capabilities = dice.choice(
        (
            *[("list", "delete", "source", "store")] * 2,
            ("list", "source", "store"),
            ("source",),
            ("list", "delete"),
            (),
        )
    )
    return {"cut": dice.choice(CUTS), "capabilities": capabilities, "checks": dice.choice(("all", "chunks"))}


def draw_liar(dice: Random) -> Settings:
    return {**draw_shelf(dice), "checks": "nothing"}


def build_shelf(settings: Settings, watcher: Watcher) -> Store:
    return Shelf(**settings, watcher=watcher)


KINDS: Final = Kinds(
    composites=(
        Kind("retry", build_retry, RetryRules(), draw=draw_retry),
        Kind("breaker", build_breaker, BreakerRules(), draw=draw_breaker),
        Kind("limit", build_limit, LimitRules(), draw=draw_limit),
        Kind("verify", build_verify, VerifyRules()),
        Kind("read_only", build_read_only, ReadOnlyRules(), weight=0.3),
        Kind("error", build_error, FixedRules(ERROR_TABLE, ERROR_OUTLOOKS), (), draw_error, weight=0.3),
        Kind("cache", build_cache, CacheRules(), ("near", "far"), draw_cache, weight=2),
        Kind(
            "fallback",
            build_fallback,
            SeveralRules(all_must_miss, one_is_written),
            ("services",),
            draw_fallback,
            (1, 3),
            weight=2,
        ),
        Kind(
            "mirror",
            build_mirror,
            MirrorRules(quorum_must_miss, all_are_written),
            ("services",),
            draw_mirror,
            (2, 3),
            weight=2,
        ),
    ),
    stores=(
        StoreKind("shelf", build_shelf, draw_shelf, weight=4),
        StoreKind("shelf", build_shelf, draw_liar, weight=3, below="verify"),
        StoreKind("memory", lambda settings, watcher: MemoryStore(watcher)),
    ),
)
"""The table: a type that has a line here is simulated."""
