"""Configuration of `verify`.

Defaults: chunks are checked when they are read, and a whole blob when all of it is; what is corrupt is
reported, and left where it is.

Example::

    [blobservices.root]
    type = "verify"
    inner = "&bucket"
    check = "blob"                # or "chunks"
    proofs = "./verified"         # remembers what was checked
    on_corrupt = "quarantine"     # or "report"

    [blobservices.bucket]
    type = "objectstore"
    object_store_url = "file:./stores/bucket"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from castore import BlobService, Ref
from castore.composition import Asking, BuildContext, InvalidValueError, Plan, Problem, Traits, View
from castore.contract.capabilities import FrameStore
from castore.contract.directories import DirectoryService
from castore.contract.upkeep import Inventory


def _for_blobs(config: VerifyConfig, _: Any, proofs: Path | None) -> None:
    if proofs is not None and config.check != "blob":
        raise InvalidValueError(
            'with `check = "chunks"` nothing is remembered', 'remove it, or write `check = "blob"`'
        )
    if proofs is not None and "\0" in str(proofs):
        raise InvalidValueError("the path has a NUL byte", "name a folder")


@attrs.frozen
class VerifyConfig:
    """A service that hands out nothing unchecked. It has no URL form."""

    inner: Ref[BlobService]
    """The service that is not trusted."""
    check: Literal["chunks", "blob"] = "chunks"
    """What is checked before a byte is handed out: the chunk that it is in, or the whole blob, which is read
    from start to end for that, once."""
    proofs: Path | None = attrs.field(default=None, validator=_for_blobs)
    """The folder that remembers which blobs were checked, also for the next process; a relative path starts
    at the composition's folder. Without it that is remembered while the process lives."""
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
            remark = (
                "the whole blob is checked before its first byte is handed out, or known to be right"
                if self.check == "blob"
                else "each chunk is checked before a byte of it is handed out, the whole blob with its last"
            )
            if self.on_corrupt == "quarantine":
                remark += "; what is corrupt is moved into quarantine"
        return asking.passes(self.inner, remark)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service; raise `UnsupportedError` if there is no way to set anything aside."""
        from castore_wrappers.verify.proofs import Proofs  # noqa: PLC0415 - once it is named
        from castore_wrappers.verify.service import VerifyService  # noqa: PLC0415 - as above

        folder = None if self.proofs is None else context.base / self.proofs
        return VerifyService(
            context.resolve(self.inner),
            on_corrupt=self.on_corrupt,
            proofs=Proofs(folder, name=name) if self.check == "blob" else None,
            name=name,
            pool=context.pool,
        )


@attrs.frozen
class VerifyDirectoriesConfig:
    """A service of directories that hands out nothing unchecked. It has no URL form."""

    inner: Ref[DirectoryService]
    """The service that is not trusted."""

    def traits(self, view: View) -> Traits:
        """Say what the service within can do."""
        return view.of(self.inner)

    def offers(self, kind: type, view: View) -> bool | None:
        """Have the capabilities of the service within."""
        return view.offers(self.inner, kind)

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service."""
        from castore_wrappers.verify.directories import VerifyDirectoryService  # noqa: PLC0415 - once it is named

        return VerifyDirectoryService(context.resolve(self.inner), name=name)
