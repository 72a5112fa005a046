"""Objects as files under a folder, written so that no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from castore import B3Digest
from castore.errors import UnavailableError
from castore.threads.process_locks import FolderOfLocks
from castore_objectstore.files import (
    READ,
    NewFiles,
    Reporting,
    read_all,
    remove_quietly,
    write_all,
)
from castore_objectstore.flushing import Flusher
from castore_objectstore.leasing import Leases
from castore_objectstore.object_store import LastObject, ObjectStore, StoredObject, Wholeness
from castore_objectstore.staging import Staging

_TEMPORARY: Final = re.compile(r"#\d+$")

_BEING_FILLED: Final = "being-filled"
"""The folder of locks of those who bring something from elsewhere."""

_MOST_UNFLUSHED: Final = 8
"""How many temporary files of one object are looked at."""

_DEEPEST: Final = 8
"""How many folders deep a listing looks: links may lead in circles."""

FRESH_SECONDS: Final = 60.0
"""How old the time of a file may be before a claim renews it."""


class LocalObjectStore(ObjectStore):
    """Objects as files under *root*, which is made when the first is written.

    An object is written to `<name>#<n>` beside its place and renamed: the names that the reference uses,
    which readers leave out. One of no bytes is made in its place: nobody could see half of it. With the
    durability `process` it is renamed at once, and so survives the death of the process. With `full` it is
    renamed when its data is on the disk, and survives that of the machine when `flush` has returned; no
    crash leaves an object that is not whole.

    A claim renews the time of a file that is older than *fresh_seconds*. That, and replacing a file that is
    there, is done under a lock that sweeps take, too.
    """

    def __init__(
        self,
        root: Path,
        *,
        instance: str,
        durability: Literal["process", "full"] = "full",
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._root = os.fspath(root)
        self._instance = instance
        self.durability = durability
        self.renewal_seconds = fresh_seconds
        self._flusher = Flusher() if durability == "full" else None
        self._staging = Staging(self._flusher, self._rename) if self._flusher is not None else None
        self._leases = Leases(self._root)
        self._locks = FolderOfLocks(f"{self._root}/{_BEING_FILLED}")
        self._new_files = NewFiles()
        self._root_seen = False

    def get(self, key: str) -> bytes | None:
        """Return a whole object, `None` if there is no file of its name."""
        path = self._path(key)
        with self._reporting(path):
            descriptor = self._open(path)
            if descriptor is None:
                self._require_root()
                return None
            try:
                return read_all(descriptor)
            finally:
                os.close(descriptor)

    def _open(self, path: str) -> int | None:
        """Open an object where it is, or where it waits to be flushed; `None` if it is in neither place."""
        for place in self._places(path):
            with contextlib.suppress(FileNotFoundError):
                return os.open(place, READ)
        return None

    def _places(self, path: str) -> Iterator[str]:
        """Yield where an object may be: at its place, where it waits for a flush, or at its place by now."""
        published = 0 if self._staging is None else self._staging.published
        yield path
        if self._staging is not None:
            waiting = self._staging.find(path)
            if waiting is not None:
                yield waiting
            if waiting is not None or self._staging.published != published:
                yield path  # It may have got its name meanwhile.

    def exists(self, key: str) -> bool:
        """Tell whether there is a file, or anything else, of this name."""
        path = self._path(key)
        with self._reporting(path):
            try:
                os.stat(path)
            except FileNotFoundError:
                self._require_root()
                return self._is_waiting(path)
        return True

    def _require_root(self) -> None:
        """Raise `OSError` if the folder is a link to nowhere, as one to a disk that is not mounted."""
        if not self._root_seen and os.path.islink(self._root):
            os.stat(self._root)
        self._root_seen = True

    def _is_waiting(self, path: str) -> bool:
        """Tell whether an object waits for a flush, or has just got its name."""
        return self._staging is not None and (self._staging.find(path) is not None or os.path.exists(path))

    def put(self, key: str, data: bytes) -> None:
        """Write the object beside its place; rename it there, at once or when it is flushed."""
        path = self._path(key)
        with self._reporting(path):
            if self._staging is None and not data and self._create_empty(path):
                return
            temporary = self._write_beside(path, data)
            if self._staging is not None:
                self._staging.add(path, temporary, len(data))
                return
            try:
                self._rename(temporary, path)
            except BaseException:
                remove_quietly(temporary)
                raise

    def _rename(self, temporary: str, path: str) -> None:
        """Give a file its name; not while a sweep decides about one that has it and is to be replaced."""
        # Mostly nothing has it, and then `access`, unlike `exists`, does without an exception.
        if not os.access(path, os.F_OK):
            os.replace(temporary, path)
            return
        with self._leases.against_sweeps():
            os.replace(temporary, path)

    def _create_empty(self, path: str) -> bool:
        """Create an empty file in its place: nobody could see half of it. False if something is there."""
        descriptor = self._new_files.create(path)
        if descriptor is None:
            return False
        try:
            self._note_device(descriptor, path)
        finally:
            os.close(descriptor)
        return True

    def _write_beside(self, path: str, data: bytes) -> str:
        descriptor, temporary = self._new_files.create_beside(path)
        try:
            try:
                self._note_device(descriptor, path)
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except BaseException:
            remove_quietly(temporary)
            raise
        return temporary

    def flush(self, last: Sequence[LastObject] = ()) -> None:
        """Flush and rename what waits, flush the names; then rename *last*, and flush its names."""
        if self._flusher is None or self._staging is None:
            super().flush(last)
            return
        written: dict[str, str] = {}
        with self._reporting(self._root):
            try:
                for entry in last:
                    path = self._path(entry.key)
                    with self._reporting(path):
                        if entry.data:
                            written[path] = self._write_beside(path, entry.data)
                self._staging.publish()
                self._require_kept(last)
                self._flush()
                for entry in last:
                    path = self._path(entry.key)
                    with self._reporting(path):
                        if path not in written and not self._create_empty(path):
                            written[path] = self._write_beside(path, entry.data)
                        if path in written:
                            self._rename(written[path], path)
                            del written[path]
            finally:
                for temporary in written.values():
                    remove_quietly(temporary)
            if last:
                self._flush()

    def _flush(self) -> None:
        assert self._flusher is not None
        if not self._flusher.knows_any:
            # Others may have written what this one has found there, if there is anything.
            with contextlib.suppress(FileNotFoundError):
                self._flusher.show(os.stat(self._root).st_dev, self._root)
        self._flusher.flush()

    def _require_kept(self, last: Sequence[LastObject]) -> None:
        assert self._staging is not None
        for entry in last:
            lost = self._staging.first_lost(map(self._path, entry.needs))
            if lost is not None:
                message = f"{lost} was lost when the disk could not be flushed; store the blob again"
                raise UnavailableError(self._instance, message)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects under *prefix*; temporary files are residue."""
        yield from self._walk(prefix.rstrip("/"), 0)

    def _walk(self, folder: str, depth: int) -> Iterator[StoredObject]:
        try:
            with os.scandir(self._path(folder)) as entries:
                found = list(entries)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(self._instance, error) from error
        for entry in found:
            key = f"{folder}/{entry.name}"
            with self._reporting(entry.path):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # Removed, or renamed to its final name, since it was listed.
            if not stat.S_ISDIR(status.st_mode):
                residue = bool(_TEMPORARY.search(entry.name))
                yield StoredObject(key, status.st_size, status.st_mtime, residue)
            elif depth < _DEEPEST:
                yield from self._walk(key, depth + 1)

    # -- between processes --

    shared = True

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        """Lock files in the folder `being-filled`, those that nobody has locked."""
        with contextlib.ExitStack() as stack:
            with self._reporting(f"{self._root}/{_BEING_FILLED}"):
                alone = stack.enter_context(self._locks.try_each(digests))
            yield alone

    def unflushed(self, key: str) -> Iterator[bytes]:
        """Yield the temporary files beside the place of an object, some of which may be half written."""
        if self._staging is None:
            return
        for number in range(1, _MOST_UNFLUSHED + 1):
            path = f"{self._path(key)}#{number}"
            with self._reporting(path):
                try:
                    descriptor = os.open(path, READ)
                except FileNotFoundError:
                    return
                try:
                    data = read_all(descriptor)
                finally:
                    os.close(descriptor)
            yield data

    # -- writers and sweeps --

    def claim(self, key: str, is_whole: Wholeness) -> bool:
        """Tell whether there is a whole file; renew its time if that is not recent."""
        path = self._path(key)
        with self._reporting(path):
            # One that is torn may have been written anew, and wait to be replaced.
            return any(self._claim_file(place, is_whole) for place in self._places(path))

    def _claim_file(self, path: str, is_whole: Wholeness) -> bool:
        try:
            descriptor = os.open(path, READ)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(descriptor)
            if not is_whole(lambda offset, count: os.pread(descriptor, count, offset), status.st_size):
                return False
            return abs(time.time() - status.st_mtime) < self.renewal_seconds or self._renew(descriptor)
        finally:
            os.close(descriptor)

    def _renew(self, descriptor: int) -> bool:
        """Set the time of a file to now, unless it is gone; not while a sweep decides about it."""
        with self._leases.against_sweeps():
            # It may have been renamed meanwhile, but not removed.
            if not os.fstat(descriptor).st_nlink:
                return False
            os.utime(descriptor)
        return True

    def lease(self) -> contextlib.AbstractContextManager[None]:
        """Keep a locked file in the folder `leases` until the context ends."""
        return self._leases.lease(self._reporting)

    def leased_since(self) -> float | None:
        """Return the time of the oldest file in `leases` that is locked; the others' holders have died."""
        with self._reporting(self._root):
            return self._leases.leased_since()

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        """Remove old files, each under a lock that keeps it from being claimed in that moment."""
        # A claim may have left a time as it was that was recent enough.
        limit = older_than - self.renewal_seconds
        for entry in objects:
            path = self._path(entry.key)
            with self._reporting(path), self._leases.for_sweeping():
                try:
                    if os.stat(path).st_mtime >= limit:
                        continue
                    os.unlink(path)
                except FileNotFoundError:
                    continue
            yield entry

    # -- what keeps it within bounds --

    @property
    def folder(self) -> Path:
        """The folder."""
        return Path(self._root)

    @property
    def defers(self) -> bool:
        """Whether files wait for a flush before they get their names."""
        return self._staging is not None

    def describe(self, key: str) -> StoredObject | None:
        """Return the size and time of a file, also of one that waits to be flushed."""
        path = self._path(key)
        with self._reporting(path):
            for place in (path, None if self._staging is None else self._staging.find(path), path):
                with contextlib.suppress(FileNotFoundError):
                    if place is not None:
                        status = os.stat(place)
                        return StoredObject(key, status.st_size, status.st_mtime)
        return None

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files; nobody claims or replaces one in that moment."""
        with self._reporting(self._root), self._leases.for_moving():
            for key in keys:
                with self._reporting(self._path(key)), contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(key))

    def free_bytes(self) -> int | None:
        """Return what the file system has left for users."""
        folder = self._root
        with self._reporting(folder):
            while True:
                try:
                    status = os.statvfs(folder)
                except FileNotFoundError:
                    folder = os.path.dirname(os.path.abspath(folder))
                    continue  # It is made with the first object.
                return status.f_bavail * status.f_frsize

    def set_aside(self, key: str) -> str:
        """Rename a file to its place under `quarantine`, where it gets a number if the name is taken."""
        path = self._path(key)
        number = 1
        while True:
            name = f"quarantine/{key}" + (f"~{number}" if number > 1 else "")
            target = self._path(name)
            # Else a writer might replace the file between the two steps.
            with self._reporting(path), self._leases.for_moving():
                os.makedirs(os.path.dirname(target), exist_ok=True)
                try:
                    # Unlike a rename, a link replaces nothing.
                    os.link(path, target)
                    os.unlink(path)
                except FileExistsError:
                    number += 1
                    continue
                except PermissionError:
                    # Folders have no second name, nor has anything on some file systems.
                    if os.path.lexists(target):
                        number += 1
                        continue
                    os.rename(path, target)
            return name

    def close(self) -> None:
        """Give what still waits its names, and let go of the file systems."""
        if self._flusher is not None and self._staging is not None:
            with self._reporting(self._root):
                try:
                    self._staging.publish()
                finally:
                    self._flusher.close()

    def check_usable(self) -> None:
        """Raise `UnavailableError` if the folder is not there, and cannot be made where it should be.

        One that is there and cannot be written to may be meant for reading.
        """
        folder = self._root
        with self._reporting(folder):
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            if folder != self._root and not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "The folder cannot be made", self._root)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _note_device(self, descriptor: int, path: str) -> None:
        # A folder of the store may be a link to another file system.
        if self._flusher is not None:
            device = os.fstat(descriptor).st_dev
            if not self._flusher.knows(device):
                self._flusher.show(device, os.path.dirname(path))

    def _reporting(self, path: str) -> Reporting:
        """Turn an error of the operating system into castore's, with the name of a file."""
        return Reporting(self._instance, path)
