"""Configuration of `verify`.

Defaults: what is corrupt is reported, and left where it is.

Example::

    [blobservices.root]
    type = "verify"
    inner = "&bucket"
    on_corrupt = "quarantine"     # or "report"

    [blobservices.bucket]
    type = "objectstore"
    object_store_url = "file:./stores/bucket"
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, BuildContext, Plan, Problem, Traits, View
from castore.contract.capabilities import FrameStore
from castore.contract.upkeep import Inventory


@attrs.frozen
class VerifyConfig:
    """A service that hands out nothing unchecked. It has no URL form."""

    inner: Ref[BlobService]
    """The service that is not trusted."""
    on_corrupt: Literal["report", "quarantine"] = "report"
    """Whether what is corrupt is only reported, or also moved out of the way, so that it is absent."""

    def traits(self, view: View) -> Traits:
        """Say what the service within can do."""
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have what can be checked of the service within; of frames it is known when they are seen."""
        from castore_wrappers.verify.checking import is_checkable  # noqa: PLC0415 - once somebody asks

        if not is_checkable(kind):
            return False
        return None if kind is FrameStore else view.offers(self.inner, kind)

    def lints(self, view: View) -> Iterator[Problem]:
        """Warn of a service that cannot be built."""
        if self.on_corrupt == "quarantine" and view.offers(self.inner, Inventory) is False:
            yield view.warning(
                "cannot-quarantine",
                "on_corrupt",
                f"`{view.called(self.inner)}` cannot set anything aside, so this cannot be built",
                'write `on_corrupt = "report"`, or put `verify` directly before a store',
            )

    def explain(self, asking: Asking) -> Plan:
        """Say what is checked."""
        remark = ""
        if asking.operation == "get":
            remark = "each byte is checked before it is handed out"
            if self.on_corrupt == "quarantine":
                remark += "; what is corrupt is moved into quarantine"
        return asking.passes(self.inner, remark)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service; raise `UnsupportedError` if there is no way to set anything aside."""
        from castore_wrappers.verify.service import VerifyService  # noqa: PLC0415 - once it is named

        return VerifyService(
            context.resolve(self.inner), on_corrupt=self.on_corrupt, name=name, pool=context.pool
        )
