"""Damage to bytes, and to what has bytes in it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs

from castore.contract.blobs import BlobReader
from castore.format.directories import Directory
from castore.streams.readers import PieceReader


def damaged(value: Any, kind: str, dice: Random) -> tuple[Any, str] | None:
    """Return *value* with fewer bytes (`truncate`) or one bit turned (`flip`), and in words what was done.

    *value* is bytes, pieces of bytes, which become one, a reader, a directory, which loses an entry, or a
    sequence of objects that have `data`, the last of which is damaged.
    Returns `None` if there is nothing to damage.
    """
    if isinstance(value, BlobReader):
        if kind != "truncate" or not value.size:
            return None
        size = dice.randrange(value.size)
        return CutReader(value, size), f"{value.size} bytes to {size}"
    if isinstance(value, Directory) and value:
        name = dice.choice(list(value))
        return value.replace(name, None), f"without its entry {name.decode('utf-8', 'backslashreplace')!r}"
    if isinstance(value, bytes | bytearray | memoryview):
        return _damaged_bytes(bytes(value), kind, dice)
    return _damaged_items(value, kind, dice) if isinstance(value, Sequence) and value else None


def _damaged_items(value: Sequence[Any], kind: str, dice: Random) -> tuple[Any, str] | None:
    if isinstance(value[-1], bytes | bytearray | memoryview):
        found = _damaged_bytes(b"".join(value), kind, dice)
        return None if found is None else ((found[0],), found[1])
    if hasattr(value[-1], "data"):
        found = _damaged_bytes(value[-1].data, kind, dice)
        if found is not None:
            data, words = found
            return [*value[:-1], attrs.evolve(value[-1], data=data)], words
    return None


def _damaged_bytes(data: bytes, kind: str, dice: Random) -> tuple[bytes, str] | None:
    if not data:
        return None
    if kind == "truncate":
        size = dice.randrange(len(data))
        return data[:size], f"{len(data)} bytes to {size}"
    bit = dice.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed), f"bit {bit} of {len(data)} bytes"


class CutReader(PieceReader):
    """A reader over the first bytes of another, which takes them for all that there are."""

    def __init__(self, reader: BlobReader, size: int) -> None:
        self._reader = reader
        self._size = size

    @property
    def size(self) -> int:
        """The size that is left, in bytes."""
        return self._size

    def piece_at(self, position: int) -> memoryview:
        """Return some bytes from *position* on."""
        self._reader.seek(position)
        return memoryview(self._reader.read(min(io.DEFAULT_BUFFER_SIZE, self._size - position)))

    def close(self) -> None:
        """Close the other reader."""
        self._reader.close()
        super().close()
