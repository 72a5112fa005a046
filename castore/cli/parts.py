"""Naming the parts of a composite service, where a command needs one of these instead."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from castore.cli.output import complain
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.metrics.shell import bare
from castore.problems import escaped, listing


@runtime_checkable
class Beginning(Protocol):
    """A service that can tell an empty store from one that nobody has begun; any with this method is one."""

    def lacks_store(self) -> str | None:
        """Return the place of the store, if none was begun there yet."""
        ...


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


def has_no_store(stores: Composition, name: str, settings: Settings) -> bool:
    """Tell whether none of the stores beneath a service was ever begun; if so, say which and where.

    What is not there has no blobs, and nothing wrong; but it may be a disk that is not mounted.
    """
    reached = stores.graph.reachable(stores.instance(BlobService, name))
    ends = [part for part in reached if part.kind.contract is BlobService and not part.edges]
    lacking = []
    for part in ends:
        service = bare(stores.running(part))
        place = service.lacks_store() if isinstance(service, Beginning) else None
        if place is None:
            return False
        lacking.append(
            f"castore: `{escaped(part.name)}` has no store yet: nothing was begun in {escaped(place)}"
        )
    for said in lacking:
        complain(settings.scrubbed(said))
    return bool(lacking)
