"""Objects as files under a folder, written so that no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from castore.errors import UnavailableError
from castore_objectstore.object_store import ObjectStore

_TEMPORARY: Final = re.compile(r"#\d+$")


class LocalObjectStore(ObjectStore):
    """Objects as files under *root*, which is made when the first is written.

    An object is written to `<name>#<n>` beside its place and renamed: the names that the reference uses,
    which listings leave out. Nothing is flushed to the disk: a put survives the death of the process, not
    that of the machine.
    """

    def __init__(self, root: Path, *, instance: str) -> None:
        self._root = os.fspath(root)
        self._instance = instance

    def get(self, key: str) -> bytes | None:
        """Return a whole object, `None` if there is no file of its name."""
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(self._instance, error) from error
        try:
            return _read_all(descriptor)
        except OSError as error:
            error.filename = self._path(key)
            raise UnavailableError(self._instance, error) from error
        finally:
            os.close(descriptor)

    def exists(self, key: str) -> bool:
        """Tell whether there is a file, or anything else, of this name."""
        try:
            os.stat(self._path(key))  # noqa: PTH116 - a Path per chunk costs more than the call
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnavailableError(self._instance, error) from error
        return True

    def put(self, key: str, data: bytes) -> None:
        """Write the object beside its place and rename it there."""
        path = self._path(key)
        try:
            descriptor, temporary = _create_beside(path)
            try:
                try:
                    _write_all(descriptor, data)
                finally:
                    os.close(descriptor)
                os.replace(temporary, path)  # noqa: PTH105 - as above
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - as above
                raise
        except OSError as error:
            if error.filename is None:
                error.filename = path
            raise UnavailableError(self._instance, error) from error

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys under *prefix*; temporary files are none."""
        yield from self._walk(prefix.rstrip("/"))

    def _walk(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(self._path(folder)) as entries:
                found = list(entries)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(self._instance, error) from error
        for entry in found:
            key = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(key)
            elif not _TEMPORARY.search(entry.name):
                yield key

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    data = os.read(descriptor, size + 1)
    if len(data) == size:
        return data
    parts = [data]
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _create_beside(path: str) -> tuple[int, str]:
    """Create a new file `<path>#<n>`, and the folders above it if need be; return it open for writing."""
    number = 1
    while True:
        temporary = f"{path}#{number}"
        try:
            return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), temporary
        except FileExistsError:
            # Somebody else is writing the same object, or died while doing so.
            number += 1
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - as above
