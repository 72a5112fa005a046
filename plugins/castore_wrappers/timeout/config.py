"""Configuration of `timeout`.

Defaults: 30 s for each call, and for each further 64 items or 4 MiB of one.

Example::

    [blobservices.root]
    type = "timeout"
    inner = "&remote"
    timeout = "30 s"
    calls_at_once = 64      # those among them that never return are the most that can hang

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, Between, BuildContext, Duration, Plan, Traits, View
from castore.contract.directories import DirectoryService

_TIMEOUT: Final = Duration(30.0)


@attrs.frozen
class TimeoutConfig:
    """A service that is unavailable when it does not answer in time. It has no URL form."""

    inner: Ref[BlobService]
    """The service that may hang."""
    timeout: Annotated[Duration, Between(0.001, 86400)] = _TIMEOUT
    """How long one call may take; one for many, so long for each 64 items, or 4 MiB, that it begins."""
    calls_at_once: Annotated[int, Between(1, 4096)] = 64
    """How many calls there may be at once, those among them that were given up and have not returned."""

    def traits(self, view: View) -> Traits:
        """Say what the service within can do; nobody waits for it without end."""
        return attrs.evolve(view.of(self.inner), waits=False)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def explain(self, asking: Asking) -> Plan:
        """Say how long is waited for an answer."""
        return asking.passes(self.inner, f"it is unavailable if it does not answer within {self.timeout:g} s")

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.timeout.service import TimeoutService  # noqa: PLC0415 - once it is named

        inner = context.resolve(self.inner)
        return TimeoutService(inner, timeout=self.timeout, calls_at_once=self.calls_at_once, name=name)


@attrs.frozen(kw_only=True)
class TimeoutDirectoriesConfig(TimeoutConfig):
    """A service of directories that is unavailable when it does not answer in time. It has no URL form."""

    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """The service that may hang."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.timeout.service import TimeoutDirectoryService  # noqa: PLC0415 - once it is named

        inner = context.resolve(self.inner)
        return TimeoutDirectoryService(
            inner, timeout=self.timeout, calls_at_once=self.calls_at_once, name=name
        )
