"""What `type = "onefile"` takes in a composition."""

from __future__ import annotations

from typing import Annotated

import attrs
from castore import BlobService
from castore.composition import Between, BuildContext, ByteSize, ServiceUrl, read_query


@attrs.frozen
class OneFileConfig:
    """All blobs in one SQLite file. URL form: `onefile:<path>?<fields>`."""

    path: str
    """The file; a relative path starts at the composition's file."""

    # SQLite takes no row of a gigabyte, and a row is in memory in whole.
    max_blob_size: Annotated[ByteSize, Between(1, 512 << 20)] = ByteSize(64 << 20)
    """The size of the largest blob that is taken."""

    @classmethod
    def from_url(cls, url: str) -> OneFileConfig:
        """Take the path from `onefile:/path/to/file.db`, and the other field from a query.

        Raises `ValueError` for anything more or less.
        """
        parsed = ServiceUrl.parse(url)
        if not parsed.path:
            raise ValueError("the path of a file is missing, as in `onefile:./blobs.db`")
        if parsed.scheme or parsed.authority:
            raise ValueError("a `onefile` URL has only a path, as in `onefile:./blobs.db`")
        return read_query(cls, parsed, {"path": parsed.path})

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Open the file, which is made if it is not there."""
        from castore_onefile.service import OneFileBlobService

        return OneFileBlobService(context.base / self.path, max_blob_size=self.max_blob_size, name=name)
