"""Configuration of `memory`. Everything is forgotten when the composition closes.

Example::

    [blobservices.root]
    type = "memory"

    [directoryservices.root]
    type = "memory"

    [refservices.root]
    type = "memory"
"""

from __future__ import annotations

from typing import Annotated, Self

import attrs

from castore import BlobService
from castore.composition import Between, BuildContext, ByteSize, ServiceUrl, Traits, View, read_query
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.format.chunking import DEFAULT_AVG_SIZE, FastCdc2020
from castore.problems import escaped


@attrs.frozen
class MemoryConfig:
    """Blobs in memory. URL form: `memory:`."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `memory:` and `memory://`, with nothing behind."""
        _require_nothing(url)
        return cls()

    def traits(self, view: View) -> Traits:  # noqa: ARG002 - all traits have it
        """Say that it is always there, and cuts as others do by default."""
        return Traits(writable=True, answers=True, cuts=f"{FastCdc2020.__name__} {DEFAULT_AVG_SIZE}")

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - as above
        """Have the capabilities of the service."""
        from castore_memory.service import MemoryBlobService  # noqa: PLC0415 - once somebody asks

        return issubclass(MemoryBlobService, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:  # noqa: ARG002 - all configs have them
        """Return a new, empty service."""
        from castore_memory.service import MemoryBlobService  # noqa: PLC0415 - once it is named

        return MemoryBlobService()


@attrs.frozen
class MemoryDirectoriesConfig:
    """Directories in memory. URL form: `memory:?<fields>`."""

    max_size: Annotated[ByteSize, Between(0, 1 << 40)] | None = None
    """How many bytes they may have; then those go that were not asked for longest. By default all stay."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `memory:` and `memory://`, and the field in a query."""
        return read_query(cls, _without_address(url), {})

    def build(self, name: str, context: BuildContext) -> DirectoryService:  # noqa: ARG002 - all configs have them
        """Return a new, empty service."""
        from castore_memory.directories import MemoryDirectoryService  # noqa: PLC0415 - once it is named

        return MemoryDirectoryService(self.max_size)


@attrs.frozen
class MemoryRefsConfig:
    """Refs in memory. URL form: `memory:`."""

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `memory:` and `memory://`, with nothing behind."""
        _require_nothing(url)
        return cls()

    def build(self, name: str, context: BuildContext) -> RefService:  # noqa: ARG002 - all configs have them
        """Return a new, empty service."""
        from castore_memory.refs import MemoryRefService  # noqa: PLC0415 - once it is named

        return MemoryRefService()


def _require_nothing(url: str) -> None:
    for key, _ in _without_address(url).query:
        raise ValueError(f"a memory service has no address, and no field `{escaped(key)}`; write `memory:`")


def _without_address(url: str) -> ServiceUrl:
    parsed = ServiceUrl.parse(url)
    if parsed.scheme or parsed.authority or parsed.path:
        raise ValueError("a memory service has no address; write `memory:`")
    return parsed
