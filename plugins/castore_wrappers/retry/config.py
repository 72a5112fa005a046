"""Configuration of `retry`.

Defaults: 5 attempts, with waits of about 0.1, 0.2, 0.4 and 0.8 s between them.

Example::

    [blobservices.root]
    type = "retry"
    inner = "&remote"
    attempts = 5
    first_delay = "100 ms"    # doubled each time
    max_delay = "10 s"
    jitter = 0.5              # a wait is up to so much shorter
    deadline = "60 s"         # for all attempts together
    replay = "4 MiB"          # blobs up to this size are written again

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import attrs

from castore import BlobService, Ref, RefService
from castore.composition import (
    Asking,
    Between,
    BuildContext,
    ByteSize,
    Duration,
    Plan,
    Problem,
    Traits,
    View,
)
from castore.contract.directories import DirectoryService

if TYPE_CHECKING:
    from castore_wrappers.retry.patience import Policy

_FIRST: Final = Duration(0.1)
_MAX: Final = Duration(10.0)
_DEADLINE: Final = Duration(60.0)
_REPLAY: Final = ByteSize(4 << 20)


@attrs.frozen
class RetryConfig:
    """A service that is asked again when it was unavailable. It has no URL form."""

    inner: Ref[BlobService]
    """The service to ask."""
    attempts: Annotated[int, Between(1, 1000)] = 5
    """How often to try in all."""
    first_delay: Duration = _FIRST
    """The wait before the second attempt; each one after it is twice as long."""
    max_delay: Duration = _MAX
    """No wait is longer."""
    jitter: Annotated[float, Between(0, 1)] = 0.5
    """Which part of each wait is left to chance: so much shorter it may be."""
    deadline: Duration = _DEADLINE
    """No attempt begins later than this after the first."""
    replay: ByteSize = _REPLAY
    """So much of a blob is kept while it is written, to begin again; a longer one is not begun again."""

    def traits(self, view: View) -> Traits:
        """Say what the service within can do, and how often it is asked."""
        inner = view.of(self.inner)
        if self.attempts == 1:
            return inner
        return attrs.evolve(inner, attempts=self.attempts * inner.attempts, repeater=view.name)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of attempts that multiply."""
        inner = view.of(self.inner)
        if self.attempts > 1 and inner.attempts > 1:
            times = f"{self.attempts} times {inner.attempts}"
            yield view.warning(
                "retry-around-retry",
                self.inner,
                f"`{inner.repeater}`, beneath it, tries again as well: {times} attempts at what is down",
                f"keep one of `{view.name}` and `{inner.repeater}`, or give one of them `attempts = 1`",
            )

    def explain(self, asking: Asking) -> Plan:
        """Say how often an operation is tried."""
        tries = f"is tried {self.attempts} times in all, the last within {self.deadline:g} s of the first"
        if asking.of(self.inner).outcome != "unavailable":
            tries = f"if it is unavailable, {tries}"
        return asking.passes(self.inner, tries if self.attempts > 1 else "")

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.retry.service import RetryService  # noqa: PLC0415 - once it is named

        return RetryService(context.resolve(self.inner), self.policy(), replay=self.replay, name=name)

    def policy(self) -> Policy:
        """Return the attempts, and the waits between them."""
        from castore_wrappers.retry.patience import Policy  # noqa: PLC0415 - once it is named

        return Policy(self.attempts, self.first_delay, self.max_delay, self.jitter, self.deadline)


@attrs.frozen(kw_only=True)
class RetryDirectoriesConfig(RetryConfig):
    """A service of directories that is asked again when it was unavailable. It has no URL form."""

    replay: ByteSize = attrs.field(default=_REPLAY, init=False)
    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """The service to ask."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.retry.service import RetryDirectoryService  # noqa: PLC0415 - once it is named

        return RetryDirectoryService(context.resolve(self.inner), self.policy(), name=name)


@attrs.frozen(kw_only=True)
class RetryRefsConfig(RetryConfig):
    """A service of refs that is asked again when it was unavailable. It has no URL form.

    To set or to delete a name is not tried again: it may have been done.
    """

    replay: ByteSize = attrs.field(default=_REPLAY, init=False)
    inner: Ref[RefService]  # type: ignore[assignment] # the same of another kind
    """The service to ask."""

    def build(self, name: str, context: BuildContext) -> RefService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.retry.service import RetryRefService  # noqa: PLC0415 - once it is named

        return RetryRefService(context.resolve(self.inner), self.policy(), name=name)
