"""What is known of a cache before it is built, and what looks wrong about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from castore import Ref
from castore.composition import Evicts, Problem, Traits, View
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.places import locate
from castore.text import listed

if TYPE_CHECKING:
    from castore_cache.config import CacheConfig


def targets(config: CacheConfig) -> tuple[Ref[Any], ...]:
    """Return the services that new blobs go to, at once or later."""
    both = (config.near, config.far)
    return {"near": (config.near,), "far": (config.far,), "both": both, "behind": both}[config.write]


def sure_of(config: CacheConfig) -> tuple[Ref[Any], ...]:
    """Return the services that are sure to have a blob once it is stored."""
    if config.write == "both":
        return (config.far,) if config.on_near_error == "ignore" else (config.far, config.near)
    return (config.far,) if config.write == "far" else (config.near,)


def traits(config: CacheConfig, view: View) -> Traits:
    """Return what near and far can do together; the queue is a place of its own."""
    queue = config.queue
    return attrs.evolve(
        view.all_of(config.near, config.far),
        writable=view.all_of(*targets(config)).writable,
        answers=view.of(config.far).answers,
        cuts=view.of(config.far).cuts,
        evicts=evicts(config, view),
        place=_place_of(config, view),
        place_field="" if queue is None else "queue",
    )


def evicts(config: CacheConfig, view: View) -> Evicts | None:
    """Return who may drop what is stored, if it is nowhere else."""
    hint = 'write `write = "far"`, `"both"` or `"behind"`, or choose a near service that keeps what it has'
    near = view.kept_in(config.near, hint)
    far = view.kept_in(config.far, "choose a far service that keeps what it has")
    if config.write == "near":
        return near
    # A near that fails may be without it, unless that is an error; what waits for far is pinned in near.
    both_have_it = config.write == "behind" or (config.write == "both" and config.on_near_error == "fail")
    return None if both_have_it and near is None else far


def offers(config: CacheConfig, kind: type, view: View) -> bool | None:
    """Tell whether the cache will have a capability, as far as that is known."""
    both = (config.near, config.far)
    if kind is ChunkSource:
        return True
    if kind is ChunkStore:
        return view.all_offer(both if config.write == "both" else sure_of(config), kind)
    if kind is Durable:
        answers = {view.offers(ref, kind) for ref in sure_of(config)}
        return True if True in answers else None if None in answers else False
    return view.all_offer(both, kind) if kind in {BlobDeleter, BlobLister} else None


def lints(config: CacheConfig, view: View) -> Iterator[Problem]:
    """Yield a warning if near cannot be filled, forgets or cuts otherwise, or far takes nothing, or hangs."""
    near, far = view.called(config.near), view.called(config.far)
    stores = view.stores(config.near)
    if stores and stores == view.stores(config.far):
        yield view.warning(
            "near-is-far",
            config.far,
            f"near and far both end in {listed(sorted(stores))}: what the one lacks the other lacks, too",
            "let them keep blobs in different places, or use the one of them without a cache",
        )
    if (problem := view.waiting(config.far)) is not None:
        yield problem
    if view.of(config.near).writable is False and (config.fill != "none" or config.near in targets(config)):
        yield view.warning(
            "near-not-writable",
            config.near,
            f"`{near}` cannot be written, so nothing is ever cached there",
            "choose a near service that can be written; to only ask one after the other, use `fallback`",
        )
    cuts = {view.of(config.near).cuts, view.of(config.far).cuts} - {""}
    # What goes to far is cut as far does, wherever else it goes.
    if config.write == "near" and len(cuts) > 1:
        yield view.warning(
            "cuts-otherwise",
            config.near,
            f"`{far}` cuts blobs otherwise than `{near}`: what comes from there shares no chunks with it",
            "give both the same `chunker` and `avg_chunk_size`",
        )
    if config.write == "behind" and view.offers(config.near, Durable) is False:
        yield view.warning(
            "near-forgets",
            config.near,
            f'`{near}` does not keep what it has acknowledged, which `write = "behind"` needs',
            "choose an `objectstore` in a folder, or a `sqlite`",
        )
    if config.far in targets(config) and view.of(config.far).writable is False:
        yield view.warning(
            "write-ends-nowhere",
            "write",
            f"new blobs go to `{far}`, which cannot be written, so nothing can be stored",
            'write `write = "near"`, or choose a far service that can be written',
        )


def _place_of(config: CacheConfig, view: View) -> Path | None:
    # Where nobody knows the home that it names, that is told to who builds it.
    with contextlib.suppress(OSError):
        return None if config.queue is None else locate(view.base, config.queue, config.create).path
    return None
