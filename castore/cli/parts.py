"""Naming the parts of a composite service, where a command needs one of these instead."""

from __future__ import annotations

from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.problems import listing


def named_parts(stores: Composition, name: str) -> list[str]:
    """Return the names of the services that the service *name* is made of; none if it stands alone."""
    instance = stores.instance(BlobService, name)
    return [
        part.name for part in stores.graph.reachable(instance) if not part.anonymous and part is not instance
    ]


def is_composite(stores: Composition, name: str) -> bool:
    """Tell whether a service is made of others, named or not."""
    return bool(stores.instance(BlobService, name).edges)


def without_capability(stores: Composition, name: str, what: str, *, option: str = "--service") -> str:
    """Return the message for a service that cannot do *what*, with the parts to try instead."""
    parts = named_parts(stores, name)
    hint = f"; of its parts, try `{option} NAME` with {listing(parts)}" if parts else ""
    return f"`{name}`, a `{stores.instance(BlobService, name).type.tag}`, cannot {what}{hint}"
