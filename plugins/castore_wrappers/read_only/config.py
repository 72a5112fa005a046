"""Configuration of `read_only`. Nothing can be written through it, whatever is within.

Example::

    [blobservices.root]
    type = "cache"          # writes to near
    near = "memory:"
    far = "&archive"

    [blobservices.archive]
    type = "read_only"
    inner = "objectstore+file:./archive"
"""

from __future__ import annotations

import attrs

from castore import BlobService, Ref, RefService
from castore.composition import Asking, BuildContext, Plan, Traits, View
from castore.contract.directories import DirectoryService


@attrs.frozen
class ReadOnlyConfig:
    """A service that can be read, and nothing else. It has no URL form."""

    inner: Ref[BlobService]
    """What is read. No write ever reaches it."""

    def traits(self, view: View) -> Traits:
        """Say that nothing can be written."""
        return attrs.evolve(view.of(self.inner), writable=False, evicts=None)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have those capabilities of the service within that change nothing."""
        from castore_wrappers.read_only.service import KEPT  # noqa: PLC0415 - once somebody asks

        return view.offers(self.inner, kind) if kind in KEPT else False

    def explain(self, asking: Asking) -> Plan:
        """Refuse what is put."""
        if asking.operation == "put":
            return asking.plan("refused", says="is read-only", holding=asking.of(self.inner, "get").holding)
        return asking.passes(self.inner)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service."""
        from castore_wrappers.read_only.service import ReadOnlyService  # noqa: PLC0415 - once it is named

        return ReadOnlyService(context.resolve(self.inner), name=name)


@attrs.frozen(kw_only=True)
class ReadOnlyDirectoriesConfig(ReadOnlyConfig):
    """A service of directories that can be read, and nothing else. It has no URL form."""

    inner: Ref[DirectoryService]  # type: ignore[assignment] # the same of another kind
    """What is read. No write ever reaches it."""

    def offers(self, kind: type, view: View) -> bool | None:
        """Have those capabilities of the service within that change nothing."""
        from castore_wrappers.read_only.service import KEPT_OF_DIRECTORIES  # noqa: PLC0415 - once somebody asks

        return view.offers(self.inner, kind) if kind in KEPT_OF_DIRECTORIES else False

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.read_only.service import ReadOnlyDirectoryService  # noqa: PLC0415 - as above

        return ReadOnlyDirectoryService(context.resolve(self.inner), name=name)


@attrs.frozen(kw_only=True)
class ReadOnlyRefsConfig(ReadOnlyConfig):
    """A service of refs that can be read, and nothing else. It has no URL form."""

    inner: Ref[RefService]  # type: ignore[assignment] # the same of another kind
    """What is read. No name is ever set or deleted in it."""

    def offers(self, kind: type, view: View) -> bool | None:  # noqa: ARG002 - refs have no capabilities
        """Have no capabilities."""
        return False

    def build(self, name: str, context: BuildContext) -> RefService:  # type: ignore[override] # as above
        """Return the service."""
        from castore_wrappers.read_only.refs import ReadOnlyRefService  # noqa: PLC0415 - as above

        return ReadOnlyRefService(context.resolve(self.inner), name=name)
