"""What is known of a cache before it is built, and what looks wrong about it.

The policies are read by name, so that a value which is not known here says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from castore import Ref
from castore.capabilities import BlobLister, ChunkSource, ChunkStore
from castore.composition import Problem, Traits, View

if TYPE_CHECKING:
    from castore_cache.config import CacheConfig


def policy(config: CacheConfig) -> str:
    """Return where new blobs go, by name."""
    return config.write


def targets(config: CacheConfig) -> tuple[Ref[Any], ...] | None:
    """Return the services that new blobs go to, at once or later; `None` if the policy is not known."""
    both = (config.near, config.far)
    known: dict[str, tuple[Ref[Any], ...]] = {
        "near": (config.near,), "far": (config.far,), "both": both, "behind": both,
    }  # fmt: skip
    return known.get(policy(config))


def traits(config: CacheConfig, view: View) -> Traits:
    """Return what near and far can do together."""
    written = targets(config)
    return attrs.evolve(
        view.all_of(config.near, config.far),
        writable=None if written is None else view.all_of(*written).writable,
        answers=view.of(config.far).answers,
    )


def offers(config: CacheConfig, power: type, view: View) -> bool | None:
    """Tell whether the cache will have a power, as far as that is known."""
    written = targets(config)
    if power is ChunkSource:
        return True
    if power is ChunkStore and written is not None:
        return view.all_offer(written, power)
    return view.all_offer((config.near, config.far), power) if power is BlobLister else None


def lints(config: CacheConfig, view: View) -> Iterator[Problem]:
    """Yield a warning if near cannot be filled, or new blobs go where nothing can be written."""
    near, far = view.called(config.near), view.called(config.far)
    if view.of(config.near).writable is False:
        yield view.warning(
            "near-not-writable",
            config.near,
            f"`{near}` cannot be written, so nothing is ever cached there",
            "choose a near service that can be written; to only ask one after the other, use `fallback`",
        )
    if config.far in (targets(config) or ()) and view.of(config.far).writable is False:
        yield view.warning(
            "write-ends-nowhere",
            "write",
            f"new blobs go to `{far}`, which cannot be written, so nothing can be stored",
            'write `write = "near"`, or choose a far service that can be written',
        )
