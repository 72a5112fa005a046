"""Counting what there is beforehand, so that a bar can show how far it is: where that is quick."""

from __future__ import annotations

from collections.abc import Iterable

from castore.cli.progress import ProgressMeter
from castore.contract.blobs import BlobService
from castore.contract.capabilities import BlobLister, ChunkSource
from castore.contract.upkeep import Inventory
from castore.errors import CastoreError
from castore.upkeep import Scope


def count_blobs(service: BlobService, meter: ProgressMeter) -> int | None:
    """Return how many blobs a service lists; `None` where that takes requests that mostly wait."""
    lister = service.capability(BlobLister)
    if lister is None or _is_slow(service):
        return None
    return _count((True for _ in lister.list_blobs()), meter)


def count_items(service: BlobService, scope: Scope, meter: ProgressMeter) -> int | None:
    """Return how many indexes and chunks there are to be checked; `None` as above."""
    inventory = service.capability(Inventory)
    if inventory is None:
        return count_blobs(service, meter)
    if _is_slow(service):
        return None
    taken = (
        item.digest is not None and scope.takes(item.digest, item.modified) for item in inventory.list_items()
    )
    return _count(taken, meter)


def _is_slow(service: BlobService) -> bool:
    source = service.capability(ChunkSource)
    return service.high_latency or (source is not None and source.high_latency)


def _count(taken: Iterable[bool], meter: ProgressMeter) -> int | None:
    count = 0
    try:
        for each in taken:
            count += each
            meter.advance(0)
    except CastoreError:
        return None  # The work itself will say what is wrong.
    return count
