"""Configuration of `breaker`.

Defaults: after 5 failures in a row the service is left alone for 30 s, and then tried with one request.

Example::

    [blobservices.root]
    type = "breaker"
    inner = "&remote"
    failures = 5
    open_for = "30 s"

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, Between, BuildContext, Duration, Plan, Traits, View
from castore.contract.directories import DirectoryService

_OPEN_FOR: Final = Duration(30.0)


@attrs.frozen
class BreakerConfig:
    """A service that is left alone while it fails, so that nobody waits for it. It has no URL form."""

    inner: Ref[BlobService]
    """The service that may fail."""
    failures: Annotated[int, Between(1, 1_000_000)] = 5
    """After so many failures in a row it is left alone. Absent and corrupt blobs are no failures."""
    open_for: Duration = _OPEN_FOR
    """How long it is left alone, before one request is let through to try it."""

    def traits(self, view: View) -> Traits:
        """Say what the service within can do."""
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def explain(self, asking: Asking) -> Plan:
        """Say whether an operation is let through now."""
        running = asking.running()
        state = "closed" if running is None else running.state
        if state == "open":
            return asking.plan(
                "unavailable",
                says="it is left alone, as it has failed too often",
                holding=asking.of(self.inner).holding,
            )
        remark = "one request is let through, to see whether it answers again" if state == "half-open" else ""
        return asking.passes(self.inner, remark)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.breaker.service import BreakerService  # noqa: PLC0415 - once it is named

        return BreakerService(
            context.resolve(self.inner), failures=self.failures, open_for=self.open_for, name=name
        )


@attrs.frozen(kw_only=True)
class BreakerDirectoriesConfig(BreakerConfig):
    """A service of directories that is left alone while it fails. It has no URL form."""

    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """The service that may fail."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.breaker.service import BreakerDirectoryService  # noqa: PLC0415 - once it is named

        return BreakerDirectoryService(
            context.resolve(self.inner), failures=self.failures, open_for=self.open_for, name=name
        )
