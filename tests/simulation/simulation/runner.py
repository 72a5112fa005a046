"""Telling stories until one ends badly; then the shortest one that does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from random import Random

import attrs

from simulation.clock import StuckError
from simulation.graph import Graph, Kinds, draw_graph
from simulation.steps import Doer, Step, draw_steps
from simulation.world import Violation, World


@attrs.frozen(eq=False)
class Story:
    """A graph, and what happens with it; all by one seed."""

    seed: int
    graph: Graph
    steps: tuple[Step, ...]

    @property
    def operations(self) -> int:
        """How many operations of users it has."""
        return sum(step.count for step in self.steps)


def draw_story(seed: int, kinds: Kinds, *, steps: int = 40, depth: int = 4) -> Story:
    """Return the story of a seed: the same one each time. The graph is up to *depth* composites deep."""
    dice = Random(seed)
    graph = draw_graph(dice, kinds, depth=depth)
    return Story(seed, graph, tuple(draw_steps(dice, graph, kinds, steps)))


def tell(story: Story, kinds: Kinds, *, trace: list[str] | None = None) -> Violation | None:
    """Let a story happen; return the first promise that was not kept, `None` if all were.

    Each call between two services, and what came of each step, is appended to *trace*.
    """
    with _quietly():
        world = World(story.graph, kinds, story.seed, traced=trace is not None)
        try:
            _go_through(world, story.steps)
        finally:
            world.close()
            if trace is not None:
                trace += world.trace or ()
        return world.violations[0] if world.violations else None


def _go_through(world: World, steps: Sequence[Step]) -> None:
    doer = Doer(world)
    for step in steps:
        if world.violations:
            return
        try:
            doer.do(step)
        except StuckError as error:
            world.report("all", "waiting", f"for each other, without end: {error}")
        except Exception as error:
            world.report("all", step.verb, f"raised {error!r}")
        for mistake in world.clock.mistakes:
            world.report("all", "a thread", f"raised {mistake!r}")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    # What composites log of faults is of interest where faults are not made by the thousand.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@attrs.frozen(eq=False)
class Finding:
    """A story that ends badly, as short as it could be made."""

    story: Story
    violation: Violation
    command: str = ""
    """What tells it again."""

    def __str__(self) -> str:
        steps = "\n".join(f"{number:3} {step}" for number, step in enumerate(self.story.steps, 1))
        again = f"\nAgain:\n  {self.command}\n" if self.command else ""
        return (
            f"seed {self.story.seed}: {self.violation}\n\n{self.story.graph.toml()}\n"
            f"Steps that lead there:\n{steps}\n{again}"
        )


@attrs.frozen
class Summary:
    """What came of many stories."""

    stories: int
    operations: int
    finding: Finding | None = attrs.field(eq=False)


def simulate(
    kinds: Kinds,
    *,
    operations: int,
    seed: int = 0,
    depth: int = 4,
    command: Callable[[int], str] = lambda _: "",
    progress: Callable[[int], object] | None = None,
) -> Summary:
    """Tell stories, of one seed after the other, until users have done so many *operations*.

    It ends with the first story that ends badly, which is then made shorter. *command* returns what to call
    to tell the story of a seed again. *progress* is told how many operations have been done.
    """
    done = stories = 0
    while done < operations:
        story = draw_story(seed + stories, kinds, depth=depth)
        violation = tell(story, kinds)
        stories += 1
        done += story.operations
        if violation is not None:
            found = shorten(story, kinds, violation)
            return Summary(stories, done, attrs.evolve(found, command=command(story.seed)))
        if progress is not None:
            progress(done)
    return Summary(stories, done, None)


def shorten(story: Story, kinds: Kinds, violation: Violation, *, attempts: int = 400) -> Finding:
    """Leave out steps as long as the same promise of a node of the same type is not kept."""
    steps = list(story.steps)
    size = max(len(steps) // 2, 1)
    while size and attempts > 0:
        start = 0
        while start < len(steps) and attempts > 0:
            fewer = steps[:start] + steps[start + size :]
            found = tell(attrs.evolve(story, steps=tuple(fewer)), kinds)
            attempts -= 1
            if found is not None and found.rule == violation.rule and found.node == violation.node:
                steps, violation = fewer, found
            else:
                start += size
        size //= 2
    return Finding(attrs.evolve(story, steps=tuple(steps)), violation)
