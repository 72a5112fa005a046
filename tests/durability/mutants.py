"""Ways to get durability wrong, which the tests must notice. `apply` breaks the store of this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from castore_objectstore import local, staging
from castore_objectstore.flushing import Flusher
from castore_objectstore.object_store import LastObject


def index_before_chunks() -> None:
    """An index is put before the chunks that it lists have their names."""

    def flush(self: Any, last: Sequence[LastObject] = ()) -> None:
        for entry in last:
            path = self._path(entry.key)
            self._rename(self._write_beside(path, (entry.data,)), path)
        right(self)

    right = local.LocalObjectStore.flush
    local.LocalObjectStore.flush = flush  # type: ignore[method-assign]


def write_in_place() -> None:
    """Objects are written under their own names, a bit at a time."""

    def put(self: Any, key: str, data: bytes) -> None:
        path = Path(self._path(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for start in range(0, len(data), 64):
            os.write(descriptor, data[start : start + 64])
        os.close(descriptor)

    local.LocalObjectStore.put = put  # type: ignore[method-assign]


def names_before_data() -> None:
    """Chunks are renamed before their data is flushed."""

    def add(self: Any, path: str, temporary: str, size: int) -> None:
        Path(temporary).replace(path)

    staging.Staging.add = add  # type: ignore[method-assign]


def no_flush_of_names() -> None:
    """What is renamed last is not flushed any more."""

    def flush(self: Any, last: Sequence[LastObject] = ()) -> None:
        flush, self._flush = self._flush, lambda: None
        try:
            right(self, last)
        finally:
            self._flush = flush

    right = local.LocalObjectStore.flush
    local.LocalObjectStore.flush = flush  # type: ignore[method-assign]


def no_flush_between() -> None:
    """Chunks and index are flushed together, but in no order."""

    def flush(self: Any, last: Sequence[LastObject] = ()) -> None:
        for entry in last:
            self.put(entry.key, entry.data)
        self._staging.publish()
        self._flush()

    local.LocalObjectStore.flush = flush  # type: ignore[method-assign]


def no_flush_at_all() -> None:
    """The file system may write things whenever it likes."""
    Flusher.flush = lambda self: None  # type: ignore[method-assign]


def known_indexes_are_not_flushed() -> None:
    """A blob that is there already is reported at once, though others may not have flushed it yet."""

    def flush(self: Any, last: Sequence[LastObject] = ()) -> None:
        if last:
            right(self, last)

    right = local.LocalObjectStore.flush
    local.LocalObjectStore.flush = flush  # type: ignore[method-assign]


def one_temporary_name() -> None:
    """All who write an object write it under the same temporary name."""

    def write_beside(self: Any, path: str, pieces: Iterable[bytes], *, flush: bool = False) -> str:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}#1").write_bytes(b"".join(pieces))
        return f"{path}#1"

    local.LocalObjectStore._write_beside = write_beside  # type: ignore[method-assign]


AFTER_A_KILL = {"index-before-chunks": index_before_chunks, "write-in-place": write_in_place}
"""Those that show when a process is killed."""

AFTER_A_POWER_CUT = {
    **AFTER_A_KILL,
    "names-before-data": names_before_data,
    "no-flush-of-names": no_flush_of_names,
    "no-flush-between": no_flush_between,
    "no-flush-at-all": no_flush_at_all,
    "known-indexes-are-not-flushed": known_indexes_are_not_flushed,
}
"""Those that show when the power is cut."""

IN_A_RACE = {"write-in-place": write_in_place, "one-temporary-name": one_temporary_name}
"""Those that show when two processes write the same."""


def apply(name: str) -> None:
    """Break the store in the way of this name."""
    {**AFTER_A_POWER_CUT, **IN_A_RACE}[name]()
