"""Configuration of `fallback`.

Defaults: a service that fails is passed over, none has a time limit, new blobs go to the first, nothing is
copied.

Example::

    [blobservices.root]
    type = "fallback"
    services = ["&local", { ref = "&upstream", timeout = "2 s", on_error = "next" }]
    write_to = "local"
    copy_to = "local"

    [blobservices.local]
    type = "memory"

    [blobservices.upstream]
    type = "memory"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import attrs

from castore import BlobService, Ref, RefService
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    Duration,
    Plan,
    Problem,
    Traits,
    View,
    at_least,
    one_of,
    ref_of,
    service_names,
)
from castore.contract.capabilities import BlobDeleter, BlobLister, ChunkSource, ChunkStore, Durable
from castore.contract.directories import DirectoryService


@attrs.frozen
class FallbackService:
    """One of the services, with settings of its own."""

    ref: Ref[BlobService]
    """The service."""
    timeout: Annotated[Duration, Between(0.001, 86400)] | None = None
    """How long one question, piece read or written, or end of a write may take; many together may take as
    long for each 64 of them, or each 4 MiB. Without it: no limit."""
    on_error: Literal["next", "fail"] = "next"
    """What follows its errors: the next service is asked, or the error is the answer."""


@attrs.frozen
class FallbackConfig:
    """Services that are asked in order until one has the blob. It has no URL form."""

    services: tuple[Ref[BlobService] | FallbackService, ...] = attrs.field(validator=at_least(1))
    """The services in order: references, or tables with a `ref` and more."""
    write_to: str | None = attrs.field(default=None, validator=one_of("services"))
    """The name of the service that new blobs go to. Without it: the first."""
    copy_to: str | None = attrs.field(default=None, validator=one_of("services"))
    """The name of the service that keeps what later ones had. Without it: none."""

    @property
    def target(self) -> Ref[BlobService]:
        """The service that new blobs go to."""
        names = service_names(self.services)
        return ref_of(self.services[0 if self.write_to is None else names.index(self.write_to)])

    def traits(self, view: View) -> Traits:
        """Say what its services can do together."""
        target = view.of(self.target)
        all_of = view.all_of(*map(ref_of, self.services))
        hint = "name a service in `write_to` that keeps what it has"
        evicts = view.kept_in(self.target, hint)
        return attrs.evolve(
            all_of,
            writable=target.writable,
            cuts=target.cuts,
            evicts=evicts,
            waits=bool(list(self._without_end(view))),
        )

    def _without_end(self, view: View) -> Iterator[Problem]:
        for entry in self.services:
            timeout = None if isinstance(entry, Ref) else entry.timeout
            if (problem := view.waiting(ref_of(entry), unless=timeout)) is not None:
                yield attrs.evolve(problem, hint="give it a `timeout`: write it as a table with a `ref`")

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that its services make possible."""
        if kind is ChunkSource:
            return True
        if kind in {ChunkStore, Durable}:
            return view.offers(self.target, kind)
        if kind in {BlobDeleter, BlobLister}:
            return view.all_offer(map(ref_of, self.services), kind)
        return False

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of writes and copies that end nowhere, and of services that may never answer."""
        yield from self._without_end(view)
        refs = dict(zip(service_names(self.services), map(ref_of, self.services), strict=True))
        better = [name for name, ref in refs.items() if view.of(ref).writable]
        # One whose services are all made for reading is meant for reading.
        if view.of(self.target).writable is False and (better or self.write_to is not None):
            hint = f'write `write_to = "{better[0]}"`' if better else "name a service that can be written"
            yield view.warning(
                "write-ends-nowhere",
                "services" if self.write_to is None else "write_to",
                f"new blobs go to `{view.called(self.target)}`, which cannot be written",
                hint,
            )
        if self.copy_to is not None and view.of(refs[self.copy_to]).writable is False:
            yield view.warning(
                "copy-ends-nowhere",
                "copy_to",
                f"`{view.called(refs[self.copy_to])}` cannot be written, so nothing is ever copied there",
                "name a service that can be written, or remove the key",
            )

    def explain(self, asking: Asking) -> Plan:
        """Say which services are asked, and which one has the blob."""
        if asking.operation == "put":
            return asking.passes(self.target)
        names = service_names(self.services)
        final = [n for n, entry in enumerate(self.services) if getattr(entry, "on_error", "next") == "fail"]
        turns = asking.in_turn([ref_of(entry) for entry in self.services], final=final)
        remarks = [turns.rest(names)]
        missed = [name for name, said in zip(names, turns.said, strict=False) if said == "absent"]
        if asking.operation == "get" and turns.found_at is not None and self.copy_to in missed:
            remarks.append(f"`{self.copy_to}` keeps a copy, if it is read from start to end")
        return asking.plan(turns.outcome, *turns.steps, *filter(None, remarks))

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore.composites.members import Member  # noqa: PLC0415 - once it is named
        from castore_fallback.service import FallbackBlobService  # noqa: PLC0415 - as above

        members = [
            Member(member, context.resolve(ref_of(entry)), **_settings(entry))
            for member, entry in zip(service_names(self.services), self.services, strict=True)
        ]
        return FallbackBlobService(
            members, write_to=self.write_to, copy_to=self.copy_to, pool=context.pool, name=name
        )


@attrs.frozen
class FallbackDirectory:
    """One of the services of directories, with settings of its own."""

    ref: Ref[DirectoryService]
    """The service."""
    timeout: Annotated[Duration, Between(0.001, 86400)] | None = None
    """How long one call may take; one for many, so long for each 64 directories. Without it: no limit."""
    on_error: Literal["next", "fail"] = "next"
    """What follows its errors: the next service is asked, or the error is the answer."""


@attrs.frozen
class FallbackDirectoriesConfig:
    """Services that are asked in order until one has the directory. It has no URL form."""

    services: tuple[Ref[DirectoryService] | FallbackDirectory, ...] = attrs.field(validator=at_least(1))
    """The services in order: references, or tables with a `ref` and more."""
    write_to: str | None = attrs.field(default=None, validator=one_of("services"))
    """The name of the service that new trees go to. Without it: the first."""

    def _target(self) -> Ref[DirectoryService]:
        names = service_names(self.services)
        return ref_of(self.services[0 if self.write_to is None else names.index(self.write_to)])

    def traits(self, view: View) -> Traits:
        """Say what its services can do together."""
        all_of = view.all_of(*map(ref_of, self.services))
        return attrs.evolve(all_of, writable=view.of(self._target()).writable)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that its services make possible."""
        if kind is Durable:
            return view.offers(self._target(), kind)
        return view.all_offer(map(ref_of, self.services), kind)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of writes that end nowhere."""
        refs = dict(zip(service_names(self.services), map(ref_of, self.services), strict=True))
        better = [name for name, ref in refs.items() if view.of(ref).writable]
        if view.of(self._target()).writable is False and (better or self.write_to is not None):
            yield view.warning(
                "write-ends-nowhere",
                "services" if self.write_to is None else "write_to",
                f"new trees go to `{view.called(self._target())}`, which cannot be written",
                f'write `write_to = "{better[0]}"`' if better else "name a service that can be written",
            )

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service."""
        from castore.composites.directories import DirectoryMember  # noqa: PLC0415 - once it is named
        from castore_fallback.directories import FallbackDirectoryService  # noqa: PLC0415 - as above

        members = [
            DirectoryMember(member, context.resolve(ref_of(entry)), **_settings(entry))
            for member, entry in zip(service_names(self.services), self.services, strict=True)
        ]
        return FallbackDirectoryService(members, write_to=self.write_to, name=name)


@attrs.frozen
class PriorityConfig:
    """The `fallback` of the reference: services by their numbers, the least first. It has no URL form.

    The error of one is the answer.
    """

    services: dict[int, Ref[DirectoryService]] = attrs.field()
    """The services by number. New trees go to the first."""

    @services.validator
    def _check_services(self, _: attrs.Attribute[Any], services: dict[int, Ref[DirectoryService]]) -> None:
        if not services:
            raise ValueError('at least one service must be listed; write `{ 0 = "&name", ... }`')

    def _in_order(self) -> list[Ref[DirectoryService]]:
        return [self.services[number] for number in sorted(self.services)]

    def traits(self, view: View) -> Traits:
        """Say what its services can do together."""
        refs = self._in_order()
        return attrs.evolve(view.all_of(*refs), writable=view.of(refs[0]).writable)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities that its services make possible."""
        refs = self._in_order()
        return view.offers(refs[0], kind) if kind is Durable else view.all_offer(refs, kind)

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service."""
        from castore.composites.directories import DirectoryMember  # noqa: PLC0415 - once it is named
        from castore_fallback.directories import FallbackDirectoryService  # noqa: PLC0415 - as above

        members = [
            DirectoryMember(ref.name or f"services[{number}]", context.resolve(ref), final=True)
            for number, ref in sorted(self.services.items())
        ]
        return FallbackDirectoryService(members, name=name)


@attrs.frozen
class FallbackRefsConfig:
    """Services of refs that are asked in order until one has the name. It has no URL form."""

    services: tuple[Ref[RefService], ...] = attrs.field(validator=at_least(1))
    """The services in order."""
    write_to: str | None = attrs.field(default=None, validator=one_of("services"))
    """The name of the service that names are set in. Without it: the first."""

    def _target(self) -> Ref[RefService]:
        names = service_names(self.services)
        return self.services[0 if self.write_to is None else names.index(self.write_to)]

    def traits(self, view: View) -> Traits:
        """Say what its services can do together."""
        return attrs.evolve(view.all_of(*self.services), writable=view.of(self._target()).writable)

    def offers(self, kind: type, view: View) -> bool | None:  # noqa: ARG002 - refs have no capabilities
        """Have no capabilities."""
        return False

    def build(self, name: str, context: BuildContext) -> RefService:
        """Return the service."""
        from castore_fallback.refs import FallbackRefService  # noqa: PLC0415 - once it is named

        members = [
            (member, context.resolve(ref))
            for member, ref in zip(service_names(self.services), self.services, strict=True)
        ]
        return FallbackRefService(members, write_to=self.write_to, name=name)


def _settings(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Ref):
        return {}
    return {"timeout": entry.timeout, "final": entry.on_error == "fail"}
