"""Looking after services: checking, mending and copying what they keep, through their powers alone."""

from __future__ import annotations

from castore.maintenance.collecting import Collected, MissingRootsError, collect

__all__ = [
    "Collected",
    "MissingRootsError",
    "collect",
]
