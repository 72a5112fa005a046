"""Configuration of `lru`. At least one of the bounds must be set.

Example::

    [blobservices.root]
    type = "lru"
    inner = "&disk"
    max_bytes = "10 GiB"
    max_entries = 1_000_000
    max_age = "30 d"
    min_free = "5 GiB"
    low_watermark = 0.9

    [blobservices.disk]
    type = "objectstore"
    object_store_url = "file:./stores/disk"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import attrs

from castore import BlobService, Ref
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    ByteSize,
    Duration,
    Evicts,
    Plan,
    Problem,
    Traits,
    View,
)
from castore.contract.capabilities import EvictionEvents
from castore.contract.upkeep import Evictable, Pinning
from castore.text import size_text

# Written out, as bounds are more than a config needs.
_LOW_WATERMARK: Final = 0.9
_MOST: Final = 1 << 62


@attrs.frozen
class LruConfig:
    """A service kept within bounds, by evicting what was not used for longest. It has no URL form."""

    inner: Ref[BlobService]
    """What is kept within bounds; it must list and remove what it keeps. Nobody else writes to it."""
    max_bytes: Annotated[ByteSize, Between(1, _MOST)] | None = None
    """How many bytes its chunks and indexes take together, as they are stored."""
    max_entries: Annotated[int, Between(1, _MOST)] | None = None
    """How many chunks and indexes there are."""
    max_age: Annotated[Duration, Between(0.001, _MOST)] | None = None
    """How long something stays that is not used."""
    min_free: Annotated[ByteSize, Between(1, _MOST)] | None = None
    """How much of its file system is left free."""
    low_watermark: Annotated[float, Between(0, 1)] = _LOW_WATERMARK
    """Once something has to go, so much goes that this share of `max_bytes` and `max_entries` is left."""

    def __attrs_post_init__(self) -> None:
        if (self.max_bytes, self.max_entries, self.max_age, self.min_free) == (None,) * 4:
            raise ValueError("nothing is bounded: set `max_bytes`, `max_entries`, `max_age` or `min_free`")

    def traits(self, view: View) -> Traits:
        """Say what the service within can do, and that this one evicts."""
        return attrs.evolve(view.of(self.inner), evicts=Evicts(view.name))

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within, and two of its own; but nobody else evicts."""
        if kind in {EvictionEvents, Pinning}:
            return True
        return False if kind is Evictable else view.offers(self.inner, kind)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of a service that cannot be built."""
        if view.offers(self.inner, Evictable) is False:
            yield view.warning(
                "cannot-evict",
                self.inner,
                f"`{view.called(self.inner)}` cannot list and remove what it keeps, so this cannot be built",
                "put `lru` directly before a store: `memory`, `objectstore` or `sqlite`",
            )

    def explain(self, asking: Asking) -> Plan:
        """Say what is evicted, and what stays."""
        remarks = {
            "has": "",
            "get": "it is used by that; while it is read none of it is evicted",
            "put": f"room is made for it first: {self._words}",
        }
        return asking.passes(self.inner, remarks[asking.operation])

    @property
    def _words(self) -> str:
        words = [
            None if self.max_bytes is None else f"up to {size_text(self.max_bytes)}",
            None if self.max_entries is None else f"up to {self.max_entries} chunks and indexes",
            None if self.max_age is None else f"nothing unused for {self.max_age:.10g} s",
            None if self.min_free is None else f"{size_text(self.min_free)} left free",
        ]
        return ", ".join(filter(None, words))

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service; raise `UnsupportedError` around something that cannot be kept within bounds."""
        from castore_lru.bounds import Bounds  # noqa: PLC0415 - once it is named
        from castore_lru.service import LruBlobService  # noqa: PLC0415 - as above

        bounds = Bounds(
            max_bytes=self.max_bytes,
            max_entries=self.max_entries,
            max_age=self.max_age,
            min_free=self.min_free,
            low_watermark=self.low_watermark,
        )
        return LruBlobService(context.resolve(self.inner), bounds, name=name, pool=context.pool)
