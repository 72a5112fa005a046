"""Configuration of `error`. It stands in for a service, to see what the others make of its failure.

Example::

    [blobservices.root]
    type = "cache"
    near = "memory:"
    far = "&down"

    [blobservices.down]
    type = "error"
    outcome = "unavailable"    # or "absent", or "corrupt"
"""

from __future__ import annotations

from typing import Literal

import attrs

from castore import BlobService
from castore.composition import Asking, BuildContext, Holding, Plan, Traits, View
from castore.contract.directories import DirectoryService


@attrs.frozen
class ErrorConfig:
    """A service whose every operation has one fixed outcome, for rehearsals. It has no URL form."""

    outcome: Literal["unavailable", "absent", "corrupt"] = "unavailable"
    """What comes of asking: an error, no blob, or a blob that is damaged."""

    def traits(self, view: View) -> Traits:  # noqa: ARG002 - all traits have it
        """Say that it takes nothing, and tells of absence only if that is its outcome."""
        return Traits(writable=False, answers=self.outcome == "absent")

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - as above
        """Have no capabilities."""
        return False

    def explain(self, asking: Asking) -> Plan:
        """Say what is rehearsed."""
        says = f"rehearses what is {self.outcome}"
        holding = Holding(self.outcome, listed=self.outcome == "corrupt", cause="it rehearses that")
        if self.outcome == "unavailable":
            return asking.plan("unavailable", says=says, holding=holding)
        if asking.operation == "put":
            return asking.plan("refused", says=says, holding=holding)
        there = self.outcome == "corrupt" and asking.operation == "has"
        return asking.plan("present" if there else self.outcome, says=says, holding=holding)

    def build(self, name: str, context: BuildContext) -> BlobService:  # noqa: ARG002 - all configs have them
        """Return the service."""
        from castore_wrappers.error.service import StubService  # noqa: PLC0415 - once it is named

        return StubService(self.outcome, name=name)


@attrs.frozen
class ErrorDirectoriesConfig(ErrorConfig):
    """A service of directories whose every operation has one fixed outcome. It has no URL form."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override]  # noqa: ARG002 - the same of another kind
        """Return the service."""
        from castore_wrappers.error.service import StubDirectoryService  # noqa: PLC0415 - once it is named

        return StubDirectoryService(self.outcome, name=name)
