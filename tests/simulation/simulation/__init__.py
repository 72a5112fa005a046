"""Whole graphs of services, simulated: random, with faults, and the same each time.

A *story* has a graph of composites over stores, drawn by a seed, and steps: what users do, and what befalls
them. It is told on a clock that stands still, with threads that take turns. Every call between two services
is listened to, and compared with rules that are written from the documentation; what users see is compared
with a dict.

Put a composite of yours into it: a `Kind` with a function that builds it and `Rules` for what it may say.
"""

from __future__ import annotations

from simulation.calls import Call
from simulation.clock import StuckError, VirtualClock
from simulation.graph import Drawn, Graph, Kind, Kinds, Node, Site, StoreKind, draw_graph
from simulation.rules import (
    FixedRules,
    Outlook,
    Problem,
    Rules,
    Scene,
    SeveralRules,
    fails_together,
    settle,
    stance,
)
from simulation.runner import Finding, Story, Summary, draw_story, shorten, simulate, tell
from simulation.shelf import Shelf, Store, Watcher
from simulation.steps import Step
from simulation.world import Violation, World

__all__ = [
    "Call",
    "Drawn",
    "Finding",
    "FixedRules",
    "Graph",
    "Kind",
    "Kinds",
    "Node",
    "Outlook",
    "Problem",
    "Rules",
    "Scene",
    "SeveralRules",
    "Shelf",
    "Site",
    "Step",
    "Store",
    "StoreKind",
    "Story",
    "StuckError",
    "Summary",
    "Violation",
    "VirtualClock",
    "Watcher",
    "World",
    "draw_graph",
    "draw_story",
    "fails_together",
    "settle",
    "shorten",
    "simulate",
    "stance",
    "tell",
]
