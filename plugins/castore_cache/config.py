"""Configuration of `cache`.

Defaults: new blobs are written to near, as the reference does; what is read from far stays in near chunk by
chunk; a near that fails is passed over, and an error of far is an error.

Example::

    [blobservices.root]
    type = "cache"
    near = "&local"
    far = "&upstream"
    write = "near"            # or "far", "both", "behind"
    fill = "chunks"           # or "blob", "none"
    has = "present"           # or "durable"
    on_near_error = "ignore"  # or "fail"
    on_far_error = "fail"     # or "miss"
    fill_wait = "60 s"

    [blobservices.local]
    type = "memory"

    [blobservices.upstream]   # its far gets new blobs from a queue that lasts
    type = "cache"
    near = "&disk"
    far = "&remote"
    write = "behind"
    queue = "./queue"
    queue_limit = 10_000
    on_full = "block"         # or "fail"
    full_wait = "60 s"
    retry_after = "5 s"
    drain = "10 s"
    create = "parent"         # of the queue; or "path": the folders above it, too; false: nothing is made

    [blobservices.disk]
    type = "objectstore"
    object_store_url = "file:./stores/disk"

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import attrs

from castore import BlobService, Ref, UnsupportedError
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    Duration,
    InvalidValueError,
    Plan,
    Problem,
    ServiceUrl,
    Traits,
    View,
    formerly,
    read_query,
)
from castore.contract.directories import Complete, DirectoryService
from castore.places import Create, locate
from castore.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from castore_cache.behind import Behind
    from castore_cache.near import Near

_FILL_WAIT: Final = Duration(60)
_FULL_WAIT: Final = Duration(60)
_RETRY_AFTER: Final = Duration(5)
_DRAIN: Final = Duration(10)


def _that_can_hold(config: CacheConfig, _: Any, has: str) -> None:
    if has == "durable" and config.write == "near":
        raise InvalidValueError(
            'nothing that is written would be found: with `write = "near"` it never gets to far',
            'choose `has = "present"`, or another `write`',
        )


def _that_has_a_queue(config: CacheConfig, _: Any, write: str) -> None:
    if write == "behind" and config.queue is None:
        raise InvalidValueError(
            '`write = "behind"` needs a `queue`, which keeps what far is still to get',
            'name a folder for it, such as `queue = "./queue"`',
        )


def _for_behind(config: CacheConfig, _: Any, queue: Path | None) -> None:
    if config.write != "behind" and queue is not None:
        raise InvalidValueError(
            f'with `write = "{config.write}"` nothing is queued', 'remove it, or write `write = "behind"`'
        )
    if queue is not None and "\0" in str(queue):
        raise InvalidValueError("the path has a NUL byte", "name a folder")


@attrs.frozen
class CacheConfig:
    """A near service in front of a far one: what is read from far is kept in near. It has no URL form."""

    near: Ref[BlobService] = attrs.field(metadata=formerly("local"))
    """Asked first, and filled with what far has to give."""
    far: Ref[BlobService] = attrs.field(metadata=formerly("remote"))
    """Asked for what near lacks."""
    write: Literal["near", "far", "both", "behind"] = attrs.field(default="near", validator=_that_has_a_queue)
    """Where new blobs go. With `both`, far must have them; with `behind`, far gets them later."""
    fill: Literal["none", "chunks", "blob"] = "chunks"
    """What of a blob stays in near when some of it is read: nothing, the chunks that were, or all of it."""
    has: Literal["present", "durable"] = attrs.field(default="present", validator=_that_can_hold)
    """What is found: what can be read here (`present`), or what far has, or is sure to get (`durable`)."""
    on_near_error: Literal["ignore", "fail"] = "ignore"
    """Whether a near that is unavailable is passed over, and counted, or fails what was asked."""
    on_far_error: Literal["fail", "miss"] = "fail"
    """Whether a blob that far cannot be asked for is an error, or counts as one that far lacks."""
    fill_wait: Annotated[Duration, Between(0, 86400)] = _FILL_WAIT
    """How long a reader waits for another one that brings the same from far, before it does so itself."""
    queue: Path | None = attrs.field(default=None, validator=_for_behind)
    """The folder of what far is still to get; a relative path starts at the composition's folder."""
    create: Create = "parent"
    """What is made of the queue's folder if it is not there: that folder, all of its path, or nothing."""
    queue_limit: Annotated[int, Between(1, 10_000_000)] = 10_000
    """How many blobs may wait for far."""
    on_full: Literal["block", "fail"] = "block"
    """Whether a writer waits when as many do, or fails at once."""
    full_wait: Annotated[Duration, Between(0, 86400)] = _FULL_WAIT
    """How long it waits, before it fails."""
    retry_after: Annotated[Duration, Between(0.001, 86400)] = _RETRY_AFTER
    """How long far is left alone after it could not take what waits."""
    drain: Annotated[Duration, Between(0, 86400)] = _DRAIN
    """How long closing waits for far to get what waits; the rest waits for the next time."""

    def traits(self, view: View) -> Traits:
        """Say what near and far can do together."""
        from castore_cache import linting  # noqa: PLC0415 - only when the composition is read

        return linting.traits(self, view)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that near and far make possible."""
        from castore_cache import linting  # noqa: PLC0415 - as above

        return linting.offers(self, kind, view)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of a near that is never filled, and of writes that end nowhere."""
        from castore_cache import linting  # noqa: PLC0415 - as above

        return linting.lints(self, view)

    def explain(self, asking: Asking) -> Plan:
        """Say which of near and far is asked, and what near keeps."""
        from castore_cache import explaining  # noqa: PLC0415 - once somebody asks

        return explaining.explain(self, asking)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore.wrapping.wrapper import WrapperService  # noqa: PLC0415 - once it is named
        from castore_cache.service import CacheBlobService  # noqa: PLC0415 - as above

        near, far = context.resolve(self.near), context.resolve(self.far)
        if near is far and self.queue is None:
            # To ask it twice says nothing new, and in a row of such caches is no end of questions.
            return WrapperService(far, name=name)
        return CacheBlobService(
            near,
            far,
            write=self.write,
            fill=self.fill,
            has=self.has,
            on_near_error=self.on_near_error,
            on_far_error=self.on_far_error,
            fill_wait=self.fill_wait,
            behind=None if self.queue is None else self._behind(near, far, self.queue, name, context),
            pool=context.pool,
            name=name,
        )

    def _behind(
        self, near: BlobService, far: BlobService, queue: Path, name: str, context: BuildContext
    ) -> Callable[[Near], Behind]:
        from castore.contract.capabilities import Durable  # noqa: PLC0415 - once it is needed
        from castore_cache.backlog import Backlog  # noqa: PLC0415 - as above
        from castore_cache.behind import Behind  # noqa: PLC0415 - as above

        if near.capability(Durable) is None:
            raise UnsupportedError(
                'with `write = "behind"` near must keep what it has acknowledged, which this one does not'
                " promise; take an `objectstore` in a folder, or a `sqlite`"
            )
        found = locate(context.base, queue, self.create)
        backlog = Backlog(
            found.path,
            makes=found.makes,
            name=name,
            limit=self.queue_limit,
            on_full=self.on_full,
            full_wait=self.full_wait,
        )
        return lambda asked: Behind(
            asked,
            far,
            backlog,
            retry_after=self.retry_after,
            drain=self.drain,
            pool=context.pool,
            name=name,
        )


@attrs.frozen
class CacheDirectoriesConfig:
    """A near service of directories in front of a far one. URL form: `cache:?near=<url>&far=<url>`."""

    near: Ref[DirectoryService] = attrs.field(metadata=formerly("local"))
    """Asked first, and filled with what far has to give."""
    far: Ref[DirectoryService] = attrs.field(metadata=formerly("remote"))
    """Asked for what near lacks; what is written goes there, and then to near."""
    fill_wait: Annotated[Duration, Between(0, 86400)] = _FILL_WAIT
    """How long a reader waits for another one that brings the same from far, before it does so itself."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `cache:` and `cache://`, with the fields as a query."""
        parsed = ServiceUrl.parse(url)
        if parsed.scheme or parsed.authority or parsed.path:
            raise ValueError("a cache has no address; write `cache:?near=...&far=...`")
        return read_query(cls, parsed, {})

    def traits(self, view: View) -> Traits:
        """Say what far can do: what is stored is there."""
        far = view.of(self.far)
        return attrs.evolve(view.all_of(self.near, self.far), writable=far.writable, answers=far.answers)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of far, and trees are whole if they are in both."""
        return (
            view.all_offer((self.near, self.far), kind) if kind is Complete else view.offers(self.far, kind)
        )

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of a near that cannot be filled, and of two that are one store."""
        stores = view.stores(self.near)
        if stores and stores == view.stores(self.far):
            yield view.warning(
                "near-is-far",
                self.far,
                f"near and far both end in {listed(sorted(stores))}: what the one lacks the other lacks, too",
                "let them keep directories in different places, or use the one of them without a cache",
            )
        if (problem := view.waiting(self.far)) is not None:
            yield problem
        if view.of(self.near).writable is False:
            yield view.warning(
                "near-not-writable",
                self.near,
                f"`{view.called(self.near)}` cannot be written, so nothing is ever cached there",
                "choose a near service that can be written; to only ask one after the other, use `fallback`",
            )

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service."""
        from castore.wrapping.directories import WrapperDirectoryService  # noqa: PLC0415 - once it is named
        from castore_cache.directories import CacheDirectoryService  # noqa: PLC0415 - as above

        near, far = context.resolve(self.near), context.resolve(self.far)
        if near is far:
            return WrapperDirectoryService(far, name=name)
        return CacheDirectoryService(near, far, fill_wait=self.fill_wait, name=name)
