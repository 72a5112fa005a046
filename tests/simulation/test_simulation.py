"""Random graphs of the bundled composites, simulated: see docs/explanation/simulation.md.

`CASTORE_SIM_OPERATIONS=1000000` for a long run; `CASTORE_SIM_SEED=7` for the story of one seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import attrs
import pytest
from simulated_mutants import MUTANTS
from simulated_types import KINDS
from simulation import Finding, Kinds, Node, Story, draw_story, shorten, simulate, tell

from castore import BlobService, Composition, Registry

SEED: Final = os.environ.get("CASTORE_SIM_SEED")
OPERATIONS: Final = int(os.environ.get("CASTORE_SIM_OPERATIONS", "30000" if SEED is None else "1"))
COMMAND: Final = "CASTORE_SIM_SEED={} .venv/bin/pytest tests/simulation -k stories"

ENOUGH: Final = 20_000
"""Within so many operations each mutant is found, where its type is drawn more often than others."""

NOT_SIMULATED: Final = {
    "faulty": "the simulation makes its own faults",
    "lru": "not yet: what it evicts is gone without that anything has befallen it",
    "timeout": "its time is that of threads, and the simulation has one of its own",
    "blobs": "it keeps directories, and the stories are of blobs",
}
"""Types with other services beneath them that have no line in the table, each with the reason."""


@pytest.mark.timeout(120 + OPERATIONS // 200)
def test_stories_end_well() -> None:
    """Whatever users do and whatever befalls them, each composite keeps what its documentation promises."""
    summary = simulate(KINDS, operations=OPERATIONS, seed=int(SEED or 0), command=COMMAND.format)
    print(f"{summary.operations} operations in {summary.stories} stories")
    assert summary.finding is None, f"\n{summary.finding}"


def favoured(name: str) -> Kinds:
    """The kinds, of which the one that a mutant is about comes often."""
    tag = next(kind.tag for kind in KINDS.composites if name.startswith(kind.tag.replace("_", "-")))
    return KINDS.favouring(tag, 20)


def first_bad_story(kinds: Kinds, most: int) -> Story | None:
    done = seed = 0
    while done < most:
        story = draw_story(seed, kinds, depth=2)
        if tell(story, kinds) is not None:
            return story
        done += story.operations
        seed += 1
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_found(name: str) -> None:
    """Each way to get a composite wrong is noticed; without it the same story ends well."""
    kinds = favoured(name)
    with MUTANTS[name]():
        story = first_bad_story(kinds, ENOUGH)
    assert story is not None
    assert tell(story, kinds) is None


def test_there_are_mutants_of_each_type() -> None:
    assert {name.partition("-")[0] for name in MUTANTS} == {
        kind.tag.partition("_")[0] for kind in KINDS.composites if kind.roles
    }
    assert len(MUTANTS) >= 15


def test_all_bundled_types_are_simulated() -> None:
    """Each type of blob service with other services beneath it has a line in the table."""
    with_children = {
        entry.tag
        for entry in Registry.default().all_types()
        if entry.kind.contract is BlobService
        and any("Ref" in str(field.type) for field in attrs.fields(entry.config))
    }
    assert {"cache", "mirror", "retry"} <= with_children
    assert with_children - {kind.tag for kind in KINDS.composites} <= set(NOT_SIMULATED)


def traced(seed: int) -> str:
    trace: list[str] = []
    violation = tell(draw_story(seed, KINDS), KINDS, trace=trace)
    assert violation is None
    return "\n".join(trace)


def test_a_seed_has_one_story() -> None:
    """Told again, each call is made at the same time, and comes to the same."""
    lengths = []
    for seed in range(10, 20):
        lengths.append(len(once := traced(seed)))
        assert once == traced(seed)
    assert min(lengths) > 1000


def test_the_story_is_the_same_in_another_process() -> None:
    """Also if that has another order of sets."""
    program = "import test_simulation; print(test_simulation.traced(13))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONHASHSEED": "77",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.rstrip("\n") == traced(13)


def test_a_finding_says_all_that_is_needed() -> None:
    """The seed, the graph, the fewest steps that lead there, what must have been, and how to see it again."""
    kinds = favoured("breaker")
    with MUTANTS["breaker-never-opens"]():
        summary = simulate(kinds, operations=ENOUGH, depth=2, command=COMMAND.format)
        finding = summary.finding
        assert finding is not None
        assert tell(finding.story, kinds) == finding.violation
    told = draw_story(finding.story.seed, kinds, depth=2)
    assert len(finding.story.steps) < len(told.steps) / 4
    shown = str(finding)
    assert shown.startswith(f"seed {finding.story.seed}: {finding.violation.node}: ")
    assert "asks its child while it is open" in shown
    assert "[blobservices.root]" in shown
    assert 'type = "breaker"' in shown
    assert "\n  1 " in shown
    assert f"CASTORE_SIM_SEED={finding.story.seed} .venv/bin/pytest" in shown


def test_the_shorter_story_ends_in_the_same_way() -> None:
    kinds = favoured("retry")
    with MUTANTS["retry-tries-again-when-a-blob-is-absent"]():
        story = first_bad_story(kinds, ENOUGH)
        assert story is not None
        violation = tell(story, kinds)
        assert violation is not None
        found = shorten(story, kinds, violation)
        assert isinstance(found, Finding)
        assert (found.violation.node, found.violation.rule) == (violation.node, violation.rule)
        assert len(found.story.steps) <= 2


def test_graphs_are_compositions() -> None:
    """What a finding shows can be loaded, if shelves are taken for memory: all settings are of the types."""

    def as_memory(node: Node) -> Node:
        return Node(node.name, "memory") if node.tag == "shelf" else node

    for seed in range(60):
        graph = draw_story(seed, KINDS).graph
        loadable = type(graph)({name: as_memory(node) for name, node in graph.nodes.items()})
        with Composition.from_mapping(tomllib.loads(loadable.toml())) as stores:
            assert len(stores.graph.instances) == len(graph.nodes)
            stores.blobs()
