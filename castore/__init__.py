"""castore composes content-addressed blob stores.

Declare a stack of stores in TOML; get one object to read and write blobs through, whatever it is made of::

    import castore

    with castore.open("composition.toml") as stores:
        digest = stores.blobs().put_file("photo.raw")
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from castore import aio as aio
    from castore import composition as composition
    from castore import errors as errors
    from castore import testing as testing
    from castore import trees as trees
    from castore.chunks.reader import ChunkedReader
    from castore.composition.composition import Composition
    from castore.composition.config.refs import Ref
    from castore.composition.types.hookspecs import hookimpl
    from castore.composition.types.registry import Registry
    from castore.contract.blobs import BlobReader, BlobService, BlobWriter, ChunkMeta
    from castore.contract.refs import NamedRoot, RefService
    from castore.digest import B3Digest
    from castore.errors import (
        BadFrameError,
        BadIndexError,
        BatchError,
        BlobNotFoundError,
        BuildError,
        CastoreError,
        ClosedError,
        CompositionError,
        CorruptBlobError,
        CorruptChunkError,
        CorruptDirectoryError,
        CorruptRefError,
        CycleError,
        DirectoryOrderError,
        DirectorySizeError,
        DuplicatePluginError,
        InvalidDigestError,
        InvalidDirectoryError,
        InvalidRefError,
        InvalidSeekError,
        MergeConflictError,
        MissingChunkError,
        MissingDirectoryError,
        MissingDriverError,
        NodeNotFoundError,
        OversizedFrameError,
        PluginError,
        SourceChangedError,
        SourceError,
        TargetError,
        UnavailableError,
        UnsupportedError,
        WriterClosedError,
    )
    from castore.opening import from_url, open  # noqa: A004 - `castore.open` reads as it should

__all__ = [
    "B3Digest",
    "BadFrameError",
    "BadIndexError",
    "BatchError",
    "BlobNotFoundError",
    "BlobReader",
    "BlobService",
    "BlobWriter",
    "BuildError",
    "CastoreError",
    "ChunkMeta",
    "ChunkedReader",
    "ClosedError",
    "Composition",
    "CompositionError",
    "CorruptBlobError",
    "CorruptChunkError",
    "CorruptDirectoryError",
    "CorruptRefError",
    "CycleError",
    "DirectoryOrderError",
    "DirectorySizeError",
    "DuplicatePluginError",
    "InvalidDigestError",
    "InvalidDirectoryError",
    "InvalidRefError",
    "InvalidSeekError",
    "MergeConflictError",
    "MissingChunkError",
    "MissingDirectoryError",
    "MissingDriverError",
    "NamedRoot",
    "NodeNotFoundError",
    "OversizedFrameError",
    "PluginError",
    "Ref",
    "RefService",
    "Registry",
    "SourceChangedError",
    "SourceError",
    "TargetError",
    "UnavailableError",
    "UnsupportedError",
    "WriterClosedError",
    "from_url",
    "hookimpl",
    "open",
]

# What is imported when it is first used, so that `import castore` costs little; the errors are in one place.
_HOMES: Final = {
    "B3Digest": "castore.digest",
    "BlobReader": "castore.contract.blobs",
    "BlobService": "castore.contract.blobs",
    "BlobWriter": "castore.contract.blobs",
    "ChunkMeta": "castore.contract.blobs",
    "ChunkedReader": "castore.chunks.reader",
    "Composition": "castore.composition.composition",
    "NamedRoot": "castore.contract.refs",
    "Ref": "castore.composition.config.refs",
    "RefService": "castore.contract.refs",
    "Registry": "castore.composition.types.registry",
    "from_url": "castore.opening",
    "hookimpl": "castore.composition.types.hookspecs",
    "open": "castore.opening",
}


_MODULES: Final = ("aio", "composition", "errors", "testing", "trees")
"""Modules that stand beside the names, and are imported as these are."""


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"castore.{name}")
    if name not in __all__:
        # With these Python itself adds what name may have been meant.
        raise AttributeError(
            f"module `castore` has no attribute `{name}`", name=name, obj=sys.modules[__name__]
        )
    value = getattr(import_module(_HOMES.get(name, "castore.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))})
