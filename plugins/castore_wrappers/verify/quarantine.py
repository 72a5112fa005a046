"""Setting aside what was found to be corrupt, so that it is absent and can be written anew."""

from __future__ import annotations

import logging
from typing import Final

from castore import (
    BadFrameError,
    BadIndexError,
    BlobService,
    CastoreError,
    CorruptBlobError,
    CorruptChunkError,
    MissingChunkError,
    UnsupportedError,
)
from castore.chunks.fetching import find_chunk
from castore.contract.capabilities import ChunkSource
from castore.contract.upkeep import DigestRange, Inventory, StoredItem
from castore.format.checks import check_digest
from castore.threads import forks

_OF_CHUNKS: Final = (CorruptChunkError, BadFrameError)

_log: Final = logging.getLogger("castore_wrappers.verify")


class Quarantine:
    """Moves corrupt chunks and indexes of *service* out of the way. Whatever fails in that is only logged.

    Before something is moved it is read once more: what was damaged on its way here, or is healed meanwhile,
    stays. Raises `UnsupportedError` if the service cannot set anything aside.
    """

    def __init__(self, service: BlobService, name: str) -> None:
        inventory = service.capability(Inventory)
        if inventory is None:
            raise UnsupportedError(
                f"`{name}` cannot set aside what is corrupt: the service within has no inventory; "
                'use `on_corrupt = "report"`'
            )
        self._service = service
        self._inventory = inventory
        self._source = service.capability(ChunkSource)
        self._name = name
        self._lock = forks.new_lock()

    def take(self, error: CorruptBlobError) -> None:
        """Set aside what *error* is about."""
        if isinstance(error, MissingChunkError):
            return  # There is nothing that could be moved.
        try:
            # One at a time: many readers may have found the same.
            with self._lock:
                self._take(error)
        except CastoreError as fault:
            _log.warning("`%s`: cannot set aside what is corrupt: %s", self._name, fault)

    def _take(self, error: CorruptBlobError) -> None:
        item = self._item_of(error)
        if item is None:
            _log.warning("`%s`: what is corrupt is not in the inventory: %s", self._name, error)
        elif self._is_still_corrupt(error):
            where = self._inventory.set_aside(item)
            _log.warning("`%s`: %s was corrupt and is now %s", self._name, item.key, where)

    def _item_of(self, error: CorruptBlobError) -> StoredItem | None:
        digest, key, is_chunk = error.expected, error.key, isinstance(error, _OF_CHUNKS)
        if key is None and is_chunk and self._source is not None:
            key = self._source.chunk_key(digest)
        if key is not None:
            return StoredItem("chunk" if is_chunk else "index", key, digest)
        # It is not known by name: look for it.
        part = DigestRange.of(digest)
        return next((item for item in self._inventory.list_items_in(part) if item.digest == digest), None)

    def _is_still_corrupt(self, error: CorruptBlobError) -> bool:
        try:
            if isinstance(error, _OF_CHUNKS) and self._source is not None:
                data = find_chunk(self._service, self._source, error.expected)
                if data is not None:
                    check_digest(error.expected, data)
                return False
            if isinstance(error, BadIndexError):
                self._service.chunks(error.expected)
                return False
        except CorruptBlobError:
            return True
        # An index whose chunks are all right, and make up something else: that is no accident of one read.
        return True
