"""Objects as files under a folder, written so that no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import copy
import errno
import math
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from castore import B3Digest, owned
from castore.errors import UnavailableError, UnsupportedError
from castore.places import WHOLE, KeptFolder, Site, flush_folder
from castore.threads.process_locks import NO_LOCKS, FolderOfLocks, FolderOfMarks
from castore_objectstore.files import (
    CANNOT,
    READ,
    NewFiles,
    Reporting,
    read_all,
    remove_quietly,
    set_aside,
    write_all,
)
from castore_objectstore.flushing import Flusher
from castore_objectstore.leasing import LEASES, Leases
from castore_objectstore.looks import OBJECTS, Looks, LooksEachTime, LooksOfBatch, StoreLayout
from castore_objectstore.object_store import (
    LARGEST,
    LastObject,
    NoObjectError,
    ObjectStore,
    StoredObject,
    TooLargeError,
    Wholeness,
)
from castore_objectstore.staging import Staging

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BEING_FILLED: Final = "being-filled"
"""The folder of locks of those who bring something from elsewhere."""

_KINDS: Final = ("blobs", "chunks")
"""The folders that have the objects."""

STATE: Final = "lru"
"""The folder of who keeps a store within bounds."""

_MOST_UNFLUSHED: Final = 8
"""How many temporary files of one object are looked at."""

_TICK_NS: Final = 50_000_000
"""How far apart the times of a folder are at least that are told apart, in nanoseconds."""

_RENEWED_TOGETHER: Final = 16
"""So many files are open at a time to have their times renewed; sweeps wait meanwhile."""

FRESH_SECONDS: Final = 60.0
"""How old the time of a file may be before a claim renews it."""


class LocalObjectStore(ObjectStore):
    """Objects as files under *root*, which is made when the first is written, with *makes* - 1 above it.

    An object is written to `<name>#<n>` beside its place and renamed: the names that the reference uses,
    which readers leave out. One of no bytes is made in its place: nobody could see half of it. With the
    durability `process` it is renamed at once, and so survives the death of the process. With `full` it is
    renamed when its data is on the disk, and survives that of the machine when `flush` has returned; no
    crash leaves an object that is not whole.

    A claim renews the time of a file that is older than *fresh_seconds*. That, and replacing a file that is
    there, is done under a lock that sweeps take, too.
    """

    claims_together = True

    def __init__(
        self,
        root: Path,
        *,
        instance: str,
        durability: Literal["process", "full"] = "full",
        makes: int = WHOLE,
        fresh_seconds: float = FRESH_SECONDS,
        layout: StoreLayout = OBJECTS,
    ) -> None:
        self._root = os.fspath(root)
        self._place = KeptFolder(Site(root, makes), begun=layout.folders)
        self._instance = instance
        self.durability = durability
        self.renewal_seconds = fresh_seconds
        self._flusher = Flusher() if durability == "full" else None
        self._staging = Staging(self._flusher, self._rename) if self._flusher is not None else None
        self._leases = Leases(self._root)
        self._locks = FolderOfLocks(f"{self._root}/{_BEING_FILLED}")
        self._marks: dict[str, FolderOfMarks] = {LEASES: self._leases, _BEING_FILLED: self._locks}
        self._new_files = NewFiles()
        self._looks: Looks = LooksEachTime(self._place, layout)
        self._folders_flushed: set[str] = set()

    @contextlib.contextmanager
    def batch(self) -> Iterator[ObjectStore]:
        """Look once for all whether the folder is there, and the same."""
        with self._batch() as store:
            yield store

    @contextlib.contextmanager
    def _batch(self) -> Iterator[LocalObjectStore]:
        looks = LooksOfBatch(self._looks)
        store = copy.copy(self)
        store._looks = looks  # noqa: SLF001 - its own
        store._new_files = self._new_files.for_batch()  # noqa: SLF001 - its own
        yield store
        with self._reporting(self._root):
            looks.finish()

    def get(self, key: str, most: int = LARGEST) -> bytes | None:
        """Return a whole object, `None` if there is no file of its name."""
        pieces: list[bytes] = []
        if not self.read_into(key, pieces.append, most):
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, key: str, take: Callable[[bytes], object], most: int = LARGEST) -> bool:
        """Read a file, a MiB at a time."""
        path = self._path(key)
        with self._reporting(path):
            descriptor = self._open(path)
            if descriptor is None:
                self._looks.require(key)
                return False
            try:
                read_all(descriptor, take, most)
            finally:
                os.close(descriptor)
        return True

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

    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        """Read a part of a file."""
        path = self._path(key)
        with self._reporting(path):
            descriptor = self._open(path)
            if descriptor is None:
                self._looks.require(key)
                return None
            try:
                data = os.pread(descriptor, count, offset)
                while 0 < len(data) < count and (
                    more := os.pread(descriptor, count - len(data), offset + len(data))
                ):
                    data += more
            finally:
                os.close(descriptor)
        return data

    def exists(self, key: str) -> bool:
        """Tell whether there is a file, or anything else, of this name."""
        path = self._path(key)
        with self._reporting(path):
            try:
                os.stat(path)
            except FileNotFoundError:
                self._looks.require(key)
                return self._is_waiting(path)
        return True

    def _is_waiting(self, path: str) -> bool:
        """Tell whether an object waits for a flush, or has just got its name."""
        return self._staging is not None and (self._staging.find(path) is not None or os.path.exists(path))

    def put(self, key: str, data: bytes) -> None:
        """Write the object beside its place; rename it there, at once or when it is flushed."""
        path = self._path(key)
        with self._reporting(path):
            if self._staging is None and not data and self._create_empty(path):
                return
            self._looks.make()
            temporary = self._write_beside(path, (data,))
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
            if not os.path.isfile(path):
                # No file can replace a folder; and it may have anything in it.
                with contextlib.suppress(FileNotFoundError):
                    set_aside(self._root, path[len(self._root) + 1 :])
            os.replace(temporary, path)

    def _create_empty(self, path: str) -> bool:
        """Create an empty file in its place: nobody could see half of it. False if something is there."""
        self._looks.make()
        descriptor = self._new_files.create(path)
        if descriptor is None:
            return False
        try:
            self._note_device(descriptor, path)
        finally:
            os.close(descriptor)
        return True

    def _write_beside(self, path: str, pieces: Iterable[Buffer], *, flush: bool = False) -> str:
        """Write a file beside its place, and *flush* it; return its path."""
        descriptor, temporary = self._new_files.create_beside(path)
        try:
            try:
                self._note_device(descriptor, path)
                for piece in pieces:
                    write_all(descriptor, piece)
                if flush:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            remove_quietly(temporary)
            raise
        return temporary

    def put_pieces(self, key: str, pieces: Sequence[Buffer]) -> None:
        """Write a file beside its place and rename it there; with `full` flush it, and then its name."""
        path = self._path(key)
        lasting = self.durability == "full"
        with self._reporting(path):
            self._looks.make()
            temporary = self._write_beside(path, pieces, flush=lasting)
            try:
                self._rename(temporary, path)
            except BaseException:
                remove_quietly(temporary)
                raise
            if lasting:
                self._flush_folders(os.path.dirname(path))

    def _flush_folders(self, folder: str) -> None:
        """Have the names in a folder on the disk, and once those of the folders above it as well."""
        flush_folder(folder)
        new = []
        while folder not in self._folders_flushed:
            new.append(folder)
            if folder == self._root:
                # It, and any number of those above it, may have been made with this file.
                self._flush()
                break
            folder = os.path.dirname(folder)
            flush_folder(folder)
        # At the end: where one could not be flushed the next call begins anew.
        self._folders_flushed.update(new)

    tells_changes = True

    def stamp(self, prefixes: Sequence[str], since: str) -> object:
        """Return the times of the folders; `None` if one is so young that its time may not change again."""
        found: list[tuple[str, int]] = []
        newest = 0
        for prefix in prefixes:
            folder = prefix.rstrip("/")
            path = self._path(folder)
            with self._reporting(path), contextlib.suppress(FileNotFoundError):
                for each in (path, *(f"{path}/{name}" for name in os.listdir(path) if name >= since)):
                    time_ns = os.stat(each).st_mtime_ns
                    found.append((each, time_ns))
                    newest = max(newest, time_ns)
        if newest and abs(time.time_ns() - newest) < _TICK_NS:
            return None
        return found

    @contextlib.contextmanager
    def without_claims(self) -> Iterator[None]:
        """Have the lock that claims take; raises `UnavailableError` where files cannot be locked."""
        with contextlib.ExitStack() as stack:
            with self._reporting(self._root):
                stack.enter_context(self._leases.for_sweeping())
            yield

    @contextlib.contextmanager
    def steady(self) -> Iterator[bool]:
        """Share the lock that sweeps take, if there is one."""
        with contextlib.ExitStack() as stack:
            with self._reporting(self._root):
                try:
                    stack.enter_context(self._leases.against_sweeps(create=False))
                except (FileNotFoundError, PermissionError):
                    steady = False
                else:
                    steady = True
            yield steady

    def flush(self, last: Sequence[LastObject] = ()) -> None:
        """Flush and rename what waits, flush the names; then rename *last*, and flush its names."""
        with self._batch() as store:
            store._flush_with(last)  # noqa: SLF001 - its own

    def _flush_with(self, last: Sequence[LastObject]) -> None:
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
                            self._looks.make()
                            written[path] = self._write_beside(path, (entry.data,))
                self._staging.publish()
                self._require_kept(last)
                self._flush()
                for entry in last:
                    path = self._path(entry.key)
                    with self._reporting(path):
                        if path not in written and not self._create_empty(path):
                            written[path] = self._write_beside(path, (entry.data,))
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

    def list(
        self, prefix: str, *, after: str | None = None, into: Callable[[str], bool] = owned.has_some_digests
    ) -> Iterator[StoredObject]:
        """Yield what is there; no link is followed but those of the two folders at the top."""
        folder = prefix.rstrip("/")
        with self._reporting(self._path(folder)):
            self._looks.require(folder)
            owned.require_no_link(self._path(folder))
        for key, entry in self._scan(folder):
            if into(entry.name) and entry.is_dir(follow_symlinks=False):
                if after is None or after[: len(key)] <= key:
                    yield from self._describe_each(
                        found for found in self._scan(key) if after is None or found[0] > after
                    )
            elif after is None or key > after:
                yield from self._describe_each([(key, entry)])

    def list_between(self, prefix: str, first: str, before: str | None) -> Iterator[StoredObject]:
        """Yield what is there; only the folders in between are looked into."""
        folder = prefix.rstrip("/")
        with self._reporting(self._path(folder)):
            self._looks.require(folder)
            owned.require_no_link(self._path(folder))
        begin = len(folder) + 1
        low, high = first[begin:], None if before is None else before[begin:]
        for name in self._names(folder):
            # The folder that *first* is in has a smaller name than *first*.
            if not low[: len(name)] <= name or (high is not None and name > high):
                continue
            key = f"{folder}/{name}"
            path = self._path(key)
            with self._reporting(path), contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if not (owned.has_some_digests(name) and stat.S_ISDIR(status.st_mode)):
                    found: Iterable[StoredObject] = (_stored_object(key, status),)
                else:
                    found = self._describe_each(self._scan(key))
                yield from (
                    entry for entry in found if entry.key >= first and (before is None or entry.key < before)
                )

    def _names(self, folder: str) -> Sequence[str]:
        path = self._path(folder)
        with self._reporting(path), contextlib.suppress(FileNotFoundError):
            # There may be many thousands of which few are wanted: entries of a scan take four times as long.
            return os.listdir(path)
        return []

    def _scan(self, folder: str) -> Sequence[tuple[str, os.DirEntry[str]]]:
        path = self._path(folder)
        with self._reporting(path), contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
            return [(f"{folder}/{entry.name}", entry) for entry in entries]
        return []

    def _describe_each(self, entries: Iterable[tuple[str, os.DirEntry[str]]]) -> Iterator[StoredObject]:
        for key, entry in entries:
            # One that is gone was removed, or renamed to its final name, since it was listed.
            with self._reporting(entry.path), contextlib.suppress(FileNotFoundError):
                yield _stored_object(key, entry.stat(follow_symlinks=False))

    # -- between processes --

    shared = True

    @contextlib.contextmanager
    def try_alone(self, digests: Collection[B3Digest]) -> Iterator[frozenset[B3Digest]]:
        """Lock files in the folder `being-filled`, those that nobody has locked."""
        with contextlib.ExitStack() as stack:
            with self._reporting(self._locks.folder):
                self._place.make()
                alone = stack.enter_context(self._locks.try_each(digests))
            yield alone

    def unflushed(self, key: str, most: int) -> Iterator[bytes]:
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
                    pieces: list[bytes] = []
                    read_all(descriptor, pieces.append, most)
                except (TooLargeError, NoObjectError):
                    continue  # Somebody else's.
                finally:
                    os.close(descriptor)
            yield b"".join(pieces)

    # -- names that are set anew --

    def replace(
        self, key: str, data: bytes | None, allowed: Callable[[bytes | None], bool] | None = None
    ) -> bool:
        """Replace or remove a file under the lock that sweeps take: nobody else does meanwhile."""
        path = self._path(key)
        with self._reporting(path):
            self._place.make()
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(self._leases.for_sweeping())
                except OSError as error:
                    if error.errno not in NO_LOCKS:
                        raise
                    if allowed is not None:
                        raise UnsupportedError(
                            f"`{self._instance}`: {self._root} is where files cannot be locked, so nothing"
                            " can be compared and replaced in one step"
                        ) from error
                owned.require_no_links_above(self._root, key)
                if not self._may_replace(key, data, allowed):
                    return False
                self._write_named(path, data)
        return True

    def _may_replace(
        self, key: str, data: bytes | None, allowed: Callable[[bytes | None], bool] | None
    ) -> bool:
        if allowed is None:
            return data is not None or os.path.lexists(self._path(key))
        there = self.get(key)
        return allowed(there) and not (there is None and data is None)

    def _write_named(self, path: str, data: bytes | None) -> None:
        lasting = self.durability == "full"
        folder = os.path.dirname(path)
        if data is None:
            os.unlink(path)
            if lasting:
                flush_folder(folder)
            # An empty folder is of no use; one that is not stays.
            with contextlib.suppress(OSError):
                while folder.startswith(f"{self._root}/"):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)
            return
        made = _missing_folders(folder)
        # That of one who was killed: nobody else is here.
        remove_quietly(f"{path}#1")
        temporary = self._write_beside(path, (data,), flush=lasting)
        try:
            os.replace(temporary, path)
        except BaseException:
            remove_quietly(temporary)
            raise
        if lasting:
            for each in (folder, *made):
                flush_folder(each)

    def list_below(self, prefix: str) -> Iterator[str]:
        """Yield the keys of files; no link is followed, nor is one a file."""
        folder = prefix.rstrip("/")
        with self._reporting(self._path(folder)):
            self._looks.require(folder)
            owned.require_no_link(self._path(folder))
        waiting = [folder]
        while waiting:
            for key, entry in self._scan(waiting.pop()):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(key)
                elif entry.is_file(follow_symlinks=False):
                    yield key

    # -- writers and sweeps --

    def claim(self, key: str, is_whole: Wholeness, most: int = LARGEST) -> bool:
        """Tell whether there is a whole file; renew its time if that is not recent."""
        path = self._path(key)
        with self._reporting(path):
            # One that is torn may have been written anew, and wait to be replaced.
            there = (
                self._claim_file(key, path, is_whole, most)
                if self._staging is None
                else any(self._claim_file(key, place, is_whole, most) for place in self._places(path))
            )
            if not there:
                self._looks.require(key)
        if there and self._staging is not None:
            self._staging.found(path)
        return there

    def claim_many(self, keys: Iterable[str], is_whole: Wholeness, most: int = LARGEST) -> set[str]:
        """Claim several; times that are not recent are renewed some together, under one lock."""
        there: set[str] = set()
        stale: dict[str, int] = {}
        # All but the most frequent cases are for `claim`.
        others: set[str] = set()
        try:
            for key in keys:
                path = self._path(key)
                with self._reporting(path):
                    whole, descriptor = self._look_at(path, is_whole, most)
                    if not whole and self._staging is None:
                        self._looks.require(key)
                if descriptor is not None:
                    stale[key] = descriptor
                    if len(stale) == _RENEWED_TOGETHER:
                        there |= self._renew_all(stale, others)
                elif whole:
                    there.add(key)
                elif self._staging is not None:
                    others.add(key)
            there |= self._renew_all(stale, others)
        finally:
            _close_all(stale)
        if self._staging is not None:
            for key in there:
                self._staging.found(self._path(key))
        return there | super().claim_many(others, is_whole, most)

    def _renew_all(self, stale: dict[str, int], others: set[str]) -> set[str]:
        """Set the times of open files to now, and close them; those of which it cannot be are *others*."""
        if not stale:
            return set()
        renewed = set()
        with self._reporting(self._root), self._leases.against_sweeps():
            for key, descriptor in stale.items():
                with contextlib.suppress(OSError):
                    # It may have been renamed meanwhile, but not removed.
                    if os.fstat(descriptor).st_nlink:
                        os.utime(descriptor)
                        renewed.add(key)
        others |= stale.keys() - renewed
        _close_all(stale)
        return renewed

    def _claim_file(self, key: str, path: str, is_whole: Wholeness, most: int) -> bool:
        whole, descriptor = self._look_at(path, is_whole, most)
        if descriptor is None:
            return whole
        try:
            return self._renew(key, descriptor)
        finally:
            os.close(descriptor)

    def _look_at(self, path: str, is_whole: Wholeness, most: int) -> tuple[bool, int | None]:
        """Tell whether a file is whole; one whose time is to be renewed is returned open."""
        try:
            if not most and self._is_empty_and_fresh(path):
                return is_whole(_nothing_at, 0), None
            descriptor, is_link = _open_to_claim(path)
        except FileNotFoundError:
            return False, None
        kept = False
        try:
            status = os.fstat(descriptor)
            # Anything else, as a folder, is moved out of the way by a put.
            if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                return False, None
            if not is_whole(lambda offset, count: os.pread(descriptor, count, offset), status.st_size):
                return False, None
            # What a link leads to is not castore's to change, and no sweep removes the link.
            if is_link or self._is_fresh(status):
                return True, None
            kept = True
            return True, descriptor
        finally:
            if not kept:
                os.close(descriptor)

    def _is_empty_and_fresh(self, path: str) -> bool:
        """Tell whether a file has no bytes, so that there is nothing to read, and no time to renew."""
        status = os.lstat(path)
        return stat.S_ISREG(status.st_mode) and not status.st_size and self._is_fresh(status)

    def _is_fresh(self, status: os.stat_result) -> bool:
        """Tell whether the time of a file is so recent that no sweep removes it."""
        return abs(time.time() - status.st_mtime) < self.renewal_seconds

    def _renew(self, key: str, descriptor: int) -> bool:
        """Set the time of a file to now, unless it is gone; not while a sweep decides about it."""
        with self._leases.against_sweeps():
            # It may have been renamed meanwhile, but not removed.
            if not os.fstat(descriptor).st_nlink:
                return False
            try:
                os.utime(descriptor)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise OSError(error.errno, f"utime: {error.strerror}") from error
            else:
                return True
        # It is another user's, say. One that is written anew has the present time, and takes its place.
        pieces: list[bytes] = []
        read_all(descriptor, pieces.append, LARGEST)
        self.put(key, b"".join(pieces))
        return True

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Keep a locked file in the folder `leases` until the context ends."""
        with contextlib.ExitStack() as stack:
            with self._reporting(self._leases.folder):
                self._place.make()
                stack.enter_context(self._leases.take())
            yield

    def leased_since(self) -> float | None:
        """Return the time of the oldest file in `leases` that is locked; the others' holders have died."""
        with self._reporting(self._leases.folder):
            return self._leases.oldest()

    def list_marks(self) -> Iterator[StoredObject]:
        """Yield the files in `leases` and `being-filled` that nobody has locked."""
        for name, folder in self._marks.items():
            with self._reporting(folder.folder):
                dead = list(folder.dead())
            yield from (StoredObject(f"{name}/{mark.name}", 0, mark.modified) for mark in dead)

    def sweep(self, objects: Iterable[StoredObject], older_than: float) -> Iterator[StoredObject]:
        """Remove old files, each under a lock that keeps it from being claimed in that moment."""
        # A claim may have left a time as it was that was recent enough.
        limit = older_than - self.renewal_seconds
        for entry in objects:
            folder, _, name = entry.key.rpartition("/")
            with self._reporting(self._path(entry.key)):
                if folder in self._marks:
                    gone = self._marks[folder].remove_dead(name, limit)
                else:
                    with self._leases.for_sweeping():
                        gone = self._remove(entry.key, limit)
            if gone:
                yield entry

    def _remove(self, key: str, older_than: float = math.inf) -> bool:
        """Remove what castore has put under a key, if it is older; tell whether it is gone."""
        kind, _, place = key.partition("/b3/")
        if (kind not in _KINDS or owned.object_at(place) is None) and owned.packed_at(key) is None:
            return False
        folder, _, name = self._path(key).rpartition("/")
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_mtime >= older_than:
                return False
            os.unlink(name, dir_fd=descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            error.filename = f"{folder}/{name}"
            raise
        finally:
            os.close(descriptor)
        return True

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
                        found = _stored_object(key, os.stat(place))
                        return None if found.foreign else found
            self._looks.require(key)
        return None

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files; nobody claims or replaces one in that moment."""
        with self._reporting(self._root), self._leases.for_moving():
            for key in keys:
                with self._reporting(self._path(key)):
                    self._remove(key)

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
        # Else a writer might replace the file between two steps.
        with self._reporting(self._path(key)), self._leases.for_moving():
            return set_aside(self._root, key)

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
        with self._reporting(self._root):
            if self._place.require():
                return
            folder = self._place.folder
            while not os.path.lexists(folder):
                folder = os.path.dirname(folder)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "The folder cannot be made", self._root)

    def lacks(self) -> str | None:
        """Return the folder, if nothing of a store is in it, or it is not there."""
        return None if self._place.is_begun else self._place.folder

    def make_state_folder(self) -> None:
        """Make the folder for what is to be known about the store, and the one of the store."""
        with self._reporting(self._root):
            self._place.make()
            owned.make_folders(f"{self._root}/{STATE}")

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


def _missing_folders(folder: str) -> list[str]:
    """Return the folders in which one is yet to be made so that *folder* is there."""
    found = []
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
        found.append(folder)
    return found


def _open_to_claim(path: str) -> tuple[int, bool]:
    """Open a file; tell whether that took following a link. One that leads nowhere is not found."""
    try:
        return os.open(path, READ | os.O_NOFOLLOW), False
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    try:
        return os.open(path, READ), True
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _close_all(files: dict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def _nothing_at(_: int, __: int) -> bytes:
    return b""


def _stored_object(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, status.st_mtime, foreign=not stat.S_ISREG(status.st_mode))
