"""Configuration of `limit`. At least one of the limits must be set; what is not set is not limited.

Example::

    [blobservices.root]
    type = "limit"
    inner = "&remote"
    concurrency = 8
    operations_per_second = 100
    bytes_per_second = "20 MB"

    [blobservices.remote]
    type = "memory"
"""

from __future__ import annotations

from typing import Annotated

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, Between, BuildContext, ByteSize, Plan, Traits, View
from castore.contract.directories import DirectoryService
from castore.text import size_text


@attrs.frozen
class LimitConfig:
    """A service of which not too much is asked. It has no URL form."""

    inner: Ref[BlobService]
    """The service to be spared."""
    concurrency: Annotated[int, Between(1, 1_000_000)] | None = None
    """How many operations may be under way at once; others wait for their turn."""
    operations_per_second: Annotated[float, Between(0.001, 1_000_000_000)] | None = None
    """How many operations may begin in a second."""
    bytes_per_second: Annotated[ByteSize, Between(1, 1 << 62)] | None = None
    """How many bytes may go there in a second, and how many come from there."""

    def __attrs_post_init__(self) -> None:
        if self.concurrency is self.operations_per_second is self.bytes_per_second is None:
            raise ValueError(
                "nothing is limited: set `concurrency`, `operations_per_second` or `bytes_per_second`"
            )

    def traits(self, view: View) -> Traits:
        """Say what the service within can do."""
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def explain(self, asking: Asking) -> Plan:
        """Say what an operation waits for."""
        rates = [
            None if self.concurrency is None else f"{self.concurrency} at once",
            None if self.operations_per_second is None else f"{self.operations_per_second:g} a second",
            None if self.bytes_per_second is None else f"{size_text(self.bytes_per_second)} a second",
        ]
        return asking.passes(self.inner, f"waits for its turn: no more than {', '.join(filter(None, rates))}")

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.limit.service import LimitService  # noqa: PLC0415 - once it is named

        return LimitService(
            context.resolve(self.inner),
            concurrency=self.concurrency,
            operations_per_second=self.operations_per_second,
            bytes_per_second=self.bytes_per_second,
            name=name,
        )


@attrs.frozen(kw_only=True)
class LimitDirectoriesConfig(LimitConfig):
    """A service of directories of which not too much is asked. It has no URL form."""

    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """The service to be spared."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.limit.service import LimitDirectoryService  # noqa: PLC0415 - once it is named

        return LimitDirectoryService(
            context.resolve(self.inner),
            concurrency=self.concurrency,
            operations_per_second=self.operations_per_second,
            bytes_per_second=self.bytes_per_second,
            name=name,
        )
