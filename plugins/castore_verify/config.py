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

from typing import Literal

import attrs

from castore import BlobService, Ref
from castore.composition import BuildContext


@attrs.frozen
class VerifyConfig:
    """A service that hands out nothing unchecked. It has no URL form."""

    inner: Ref[BlobService]
    """The service that is not trusted."""
    on_corrupt: Literal["report", "quarantine"] = "report"
    """Whether what is corrupt is only reported, or also moved out of the way, so that it is absent."""

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service; raise `UnsupportedError` if there is no way to set anything aside."""
        from castore_verify.service import VerifyService  # noqa: PLC0415 - once it is named

        return VerifyService(
            context.resolve(self.inner), on_corrupt=self.on_corrupt, name=name, workers=context.workers
        )
