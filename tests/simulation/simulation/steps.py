"""The steps of a story, drawn before it is told, so that some can be left out."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any, Final

import attrs

from castore.contract.blobs import BlobReader, BlobService, ChunkMeta
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptBlobError, UnavailableError, UnsupportedError
from simulation.contents import CONTENTS, CUTS, NOWHERE, Content, pieces_of
from simulation.graph import Graph, Kinds
from simulation.world import MOODS, USER, World

REST: Final = 1000.0
"""After so many seconds without a fault all is as it was meant to be."""

_PLAIN: Final = {
    "put": 22,
    "read": 22,
    "read ranges": 8,
    "read through": 8,
    "has": 8,
    "has nothing": 3,
    "chunks": 4,
    "missing": 4,
    "get chunks": 4,
    "put chunks": 6,
    "abort": 2,
    "list": 2,
    "delete": 3,
}
"""What users do, and how often."""

_EVENTS: Final = {"mood": 14, "advance": 8, "damage": 6, "lose": 3, "lose chunk": 2}
"""What happens beside."""

_RARE: Final = {"together": 5, "reopen": 1, "rest": 2}


@attrs.frozen
class Step:
    """One step, with all that it needs to be done."""

    verb: str
    at: str = "root"
    """The name of an instance."""
    content: Content = CONTENTS[0]
    more: tuple[Any, ...] = ()
    steps: tuple[Step, ...] = ()
    """What happens in its middle, or at the same time."""

    @property
    def count(self) -> int:
        """How many operations of users it is."""
        inner = sum(step.count for step in self.steps)
        return inner + (self.verb in _PLAIN)

    def __str__(self) -> str:
        about = (
            f" {self.content}" if self.verb not in ("mood", "advance", "reopen", "rest", "together") else ""
        )
        more = f" {', '.join(map(_shown, self.more))}" if self.more else ""
        inner = f" [{'; '.join(map(str, self.steps))}]" if self.steps else ""
        return f"{self.verb} {self.at}{about}{more}{inner}"


def _shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


# -- drawing --


def draw_steps(dice: Random, graph: Graph, kinds: Kinds, count: int) -> list[Step]:
    """Return a story of so many steps, which ends in a rest."""
    drawing = _Drawing(dice, graph, kinds)
    return [*(drawing.step() for _ in range(count)), Step("rest")]


class _Drawing:
    def __init__(self, dice: Random, graph: Graph, kinds: Kinds) -> None:
        self._dice = dice
        self._stores = [node.name for node in graph.nodes.values() if kinds.composite(node.tag) is None]
        self._composites = [node.name for node in graph.nodes.values() if kinds.composite(node.tag)]
        # A few blobs, so that most steps are about what others have been about.
        self._contents = dice.sample(CONTENTS, 5)

    def step(self) -> Step:
        """Return any step."""
        verb = self._weighted({**_PLAIN, **_EVENTS, **_RARE})
        if verb == "together":
            several = range(self._dice.randint(2, 4))
            return Step(verb, steps=tuple(self._of(self._weighted(_PLAIN)) for _ in several))
        return self._of(verb)

    def _weighted(self, weights: dict[str, int]) -> str:
        return self._dice.choices(list(weights), list(weights.values()))[0]

    def _of(self, verb: str) -> Step:
        dice = self._dice
        content = dice.choice(self._contents)
        at = "root" if dice.random() < 0.8 else dice.choice(self._composites)
        match verb:
            case "put":
                return Step(verb, at, content, (dice.choice(("whole", "pieces", "file")),))
            case "put chunks":
                return Step(verb, at, content, (dice.choice(CUTS),))
            case "read ranges":
                size = len(content.data)
                ranges = ((dice.randint(0, size), dice.randint(0, size)) for _ in range(dice.randint(1, 4)))
                return Step(verb, at, content, tuple(ranges))
            case "read through":
                events = tuple(self._of(self._weighted(_EVENTS)) for _ in range(dice.randint(1, 3)))
                return Step(verb, at, content, steps=events)
            case "get chunks":
                return Step(verb, at, content, (dice.choice(CUTS), dice.randint(1, 4), dice.random() < 0.5))
            case "missing":
                others = dice.sample(self._contents, dice.randint(0, 3))
                return Step(verb, at, content, tuple(other.number for other in others))
            case "mood":
                mood = dice.choice(tuple(MOODS)) if dice.random() < 0.6 else "up"
                return Step(verb, dice.choice(self._stores), more=(mood,))
            case "advance":
                return Step(verb, more=(dice.choice((0.5, 3.0, 12.0, 60.0)) * dice.uniform(0.5, 1.5),))
            case "damage" | "lose" | "lose chunk":
                return Step(verb, dice.choice(self._stores), content, (dice.randint(0, 9),))
        return Step(verb, at, content)


# -- doing --


class Doer:
    """Does steps in a world, and compares what comes of them with the model: a dict of what was stored."""

    def __init__(self, world: World) -> None:
        self._world = world

    def do(self, step: Step) -> None:
        """Do a step; what is wrong is told to the world."""
        method: Callable[[Step], object] = getattr(self, f"_{step.verb.replace(' ', '_')}")
        try:
            said = method(step)
        except CorruptBlobError:
            said = "corrupt"
        except UnavailableError:
            said = "unavailable"
        except UnsupportedError:
            said = "unsupported"
        if self._world.trace is not None:
            self._world.trace.append(f"{self._world.now():.4f} {step} -> {said}")

    # -- what users do --

    def _service(self, step: Step) -> BlobService:
        return self._world.tap(step.at)

    def _put(self, step: Step) -> str:
        service, data = self._service(step), step.content.data
        touches = self._attempt(step.content)
        match step.more[0]:
            case "whole":
                found = service.write(data)
            case "file":
                found = service.put_file(io.BytesIO(data))
            case _:
                with service.open_write() as writer:
                    for piece in pieces_of(data, 61):
                        writer.write(piece)
                    found = writer.close()
        return self._acknowledged(step, found, touches)

    def _attempt(self, content: Content) -> int:
        self._world.attempted |= content.parts
        return self._world.touches(content.digest)

    def _acknowledged(self, step: Step, found: B3Digest, touches: int) -> str:
        if found != step.content.digest:
            self._world.report(step.at, "put", f"named {step.content} {found}")
            return "wrong"
        self._world.acknowledge(step.at, found, touches)
        return "stored"

    def _put_chunks(self, step: Step) -> str:
        store = self._service(step).capability(ChunkStore)
        if store is None:
            return "nothing"
        touches = self._attempt(step.content)
        pieces = pieces_of(step.content.data, step.more[0]) or [b""]
        metas = [ChunkMeta(B3Digest.of(piece), len(piece)) for piece in pieces]
        chunks = {meta.digest: piece for meta, piece in zip(metas, pieces, strict=True)}
        with store.lease() as leased:
            there = leased.claim(chunks)
            new = {digest: piece for digest, piece in chunks.items() if digest not in there}
            if new:
                leased.put_chunks(new)
            leased.put_indexes({step.content.digest: metas if len(metas) > 1 else ()})
        return self._acknowledged(step, step.content.digest, touches)

    def _abort(self, step: Step) -> str:
        self._attempt(step.content)
        writer = self._service(step).open_write()
        try:
            writer.write(step.content.data)
        finally:
            writer.abort()
        return "aborted"

    def _read(self, step: Step) -> str:
        reader = self._open(step)
        if reader is None:
            return "absent"
        with reader:
            return self._compare(step, reader.read(), step.content.data)

    def _open(self, step: Step) -> BlobReader | None:
        sure = self._sure(step, [step.content])
        reader = self._service(step).open_read(step.content.digest)
        if reader is None:
            self._absent(step, sure)
        return reader

    def _sure(self, step: Step, contents: Iterable[Content]) -> list[Content]:
        """Return those that were stored, and that nothing has befallen: to be asked before and after."""
        return [content for content in contents if self._world.is_sure(step.at, content.digest)]

    def _absent(self, step: Step, contents: Iterable[Content]) -> None:
        """Take note that contents were called absent that were sure before."""
        if not self._world.candid(step.at):
            return
        for content in self._sure(step, contents):
            self._world.report(step.at, step.verb, f"calls {content} absent, which it has acknowledged")

    def _compare(self, step: Step, found: bytes, expected: bytes) -> str:
        if found == expected:
            return "data"
        if not self._world.tainted(USER, step.at, step.content.digest):
            self._world.report(step.at, step.verb, f"gives {found!r} of {step.content}, not {expected!r}")
        return "wrong"

    def _read_ranges(self, step: Step) -> str:
        reader = self._open(step)
        if reader is None:
            return "absent"
        with reader:
            for start, size in step.more:
                reader.seek(start)
                self._compare(step, reader.read(size), step.content.data[start : start + size])
        return "data"

    def _read_through(self, step: Step) -> str:
        """Read some, let something happen, and read on."""
        reader = self._open(step)
        if reader is None:
            return "absent"
        data = step.content.data
        part = len(data) // (len(step.steps) + 1) + 1
        position = 0
        with reader:
            for event in (*step.steps, None):
                self._compare(step, reader.read(part), data[position : position + part])
                position += part
                if event is not None:
                    self.do(event)
        return "data"

    def _has(self, step: Step) -> str:
        sure = self._sure(step, [step.content])
        there = self._service(step).has(step.content.digest)
        if not there:
            self._absent(step, sure)
        return str(there)

    def _has_nothing(self, step: Step) -> str:
        found = self._service(step).has(NOWHERE[step.content.number % len(NOWHERE)])
        return str(found)

    def _chunks(self, step: Step) -> str:
        sure = self._sure(step, [step.content])
        found = self._service(step).chunks(step.content.digest)
        if found is None:
            self._absent(step, sure)
        return "absent" if found is None else str(len(found))

    def _missing(self, step: Step) -> str:
        contents = [step.content, *(CONTENTS[number] for number in step.more)]
        wanted = {content.digest for content in contents} | {NOWHERE[0]}
        sure = self._sure(step, contents)
        found = self._service(step).missing(wanted)
        if not found <= wanted:
            self._world.report(step.at, step.verb, "has what was not asked for")
        self._absent(step, [content for content in sure if content.digest in found])
        return str(len(found))

    def _get_chunks(self, step: Step) -> str:
        source = self._service(step).capability(ChunkSource)
        if source is None:
            return "nothing"
        cut, count, sized = step.more
        pieces = {B3Digest.of(piece): piece for piece in pieces_of(step.content.data, cut)[:count]}
        found = source.get_chunks({name: len(piece) if sized else None for name, piece in pieces.items()})
        said = [
            data.code if isinstance(data, CastoreError) else self._compare(step, data, pieces[name])
            for name, data in sorted(found.items())
        ]
        return ", ".join(said) or "absent"

    def _list(self, step: Step) -> str:
        lister = self._service(step).capability(BlobLister)
        if lister is None:
            return "nothing"
        sure = self._sure(step, CONTENTS)
        listed = list(lister.list_blobs())
        if len(listed) != len(set(listed)):
            self._world.report(step.at, "list", "has a blob twice")
        self._absent(step, [content for content in sure if content.digest not in listed])
        return str(len(listed))

    def _delete(self, step: Step) -> str:
        deleter = self._service(step).capability(BlobDeleter)
        if deleter is None:
            return "nothing"
        return str(deleter.delete(step.content.digest))

    # -- what befalls them --

    def _mood(self, step: Step) -> str:
        self._world.set_mood(step.at, step.more[0])
        return "done"

    def _advance(self, step: Step) -> str:
        self._world.clock.sleep(step.more[0])
        return "done"

    def _damage(self, step: Step) -> str:
        self._world.stores[step.at].damage(step.content.digest, step.more[0])
        return "done"

    def _lose(self, step: Step) -> str:
        self._world.stores[step.at].lose(step.content.digest)
        return "done"

    def _lose_chunk(self, step: Step) -> str:
        self._world.stores[step.at].lose(step.content.digest, step.more[0])
        return "done"

    def _together(self, step: Step) -> str:
        """Do several steps at once."""
        ends = [threading.Event() for _ in step.steps]
        for inner, end in zip(step.steps, ends, strict=True):
            self._world.clock.start(partial(self._do_and_tell, inner, end), str(inner))
        for end in ends:
            self._world.clock.wait(end, None)
        return "done"

    def _do_and_tell(self, step: Step, end: threading.Event) -> None:
        try:
            self.do(step)
        finally:
            end.set()

    def _reopen(self, step: Step) -> str:
        """Close all services and build them anew over what is stored."""
        self._world.close_services()
        self._world.clock.sleep(REST)
        self._require_quiet()
        self._world.build()
        return "done"

    def _require_quiet(self) -> None:
        if self._world.clock.others:
            words = f"{', '.join(sorted(set(self._world.clock.others)))} still waits"
            self._world.report("all", "rest", words)

    def _rest(self, step: Step) -> str:
        """Let nothing fail until all is quiet: then nothing may be unavailable or amiss that need not be."""
        world = self._world
        for name in world.stores:
            world.set_mood(name, "up")
        world.clock.sleep(REST)
        if not world.endless:
            self._require_quiet()
        world.judge_rest()
        for content in CONTENTS:
            if content.digest in world.attempted:
                self._read_at_rest(content)
        return "done"

    def _read_at_rest(self, content: Content) -> None:
        world = self._world
        expected = world.outlook("root", content.digest)
        try:
            found = self._read(Step("rest", content=content))
        except CorruptBlobError:
            found = "corrupt"
        except UnavailableError:
            found = "unavailable"
            # A breaker opens by what is never available: it is to be asked again in a while.
            world.clock.sleep(REST)
        # Wrong bytes come only out of what does not check them.
        found = {"absent": "none", "wrong": "corrupt"}.get(found, found)
        if found not in expected:
            words = f"{content} is {found}, and must be {' or '.join(sorted(expected))}, as nothing fails"
            world.report("root", "rest", words)
