"""What far is still to get, in a folder, so that it survives the process and the machine."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import attrs

from castore import B3Digest, UnavailableError, owned
from castore.places import WHOLE, KeptFolder, Site, flush_folder
from castore.threads import forks
from castore.threads.deadlines import CLOCK, Clock
from castore.threads.waiting import Flag

_LOST: Final = "lost"
"""The folder of entries whose blobs near has lost before far got them."""


@attrs.frozen
class _Entry:
    since: float
    number: int
    due: float = -math.inf
    """When it may be tried again."""


class Backlog:
    """Digests, each an empty file of its name in *folder*, oldest first.

    An entry that `add` has returned for survives a power cut. Each time that a digest is added its entry gets
    a new number, and who removes it says which one: what was added again meanwhile stays.

    Several processes may use one folder: each sees what was there when it began and what it has added itself,
    and to do something twice does no harm.

    Arguments:
        folder: Made with the first entry.
        makes: How many of the last parts of its path may be made.
        name: That of the cache, for errors.
        limit: How many entries there may be.
        on_full: Whether to wait for room, or to fail at once.
        full_wait: How long to wait for room, in seconds.
        clock: What the waiting is done with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "cache",
        limit: int = 10_000,
        on_full: Literal["block", "fail"] = "block",
        full_wait: float = 60.0,
        clock: Clock = CLOCK,
        makes: int = WHOLE,
    ) -> None:
        self._folder = folder
        self._place = KeptFolder(Site(folder, makes))
        self._name = name
        self.limit = limit
        self._full_wait = full_wait if on_full == "block" else 0.0
        self._clock = clock
        self._lock = forks.new_lock()
        self._freed = Flag()
        self._changing = forks.new_lock()
        self._flushing = forks.new_lock()
        self._made = self._flushed = 0
        self.begin_anew()
        forks.begin_anew_in_child(self)
        self._numbers = itertools.count()
        self._entries: dict[B3Digest, _Entry] = {}
        self.lost = 0
        with self._reporting():
            self._load()

    def begin_anew(self) -> None:
        """Keep room for nobody, in a child of a fork: those who would add something have stayed behind."""
        self._reserved = 0

    # -- what is there --

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: object) -> bool:
        return digest in self._entries

    def __iter__(self) -> Iterator[B3Digest]:
        with self._lock:
            return iter(list(self._entries))

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest entry, 0 if there is none."""
        with self._lock:
            oldest = next(iter(self._entries.values()), None)
            return 0.0 if oldest is None else self._clock.now() - oldest.since

    def first(self, most: int, *, again: bool = False) -> dict[B3Digest, int]:
        """Return the oldest entries, so many at most, with their numbers.

        Those that were never passed over, or with *again* those that were, and are due.
        """
        with self._lock:
            now = self._clock.now()
            found = (
                (digest, entry.number)
                for digest, entry in self._entries.items()
                if (-math.inf < entry.due <= now if again else entry.due == -math.inf)
            )
            return dict(islice(found, most))

    def postpone(self, numbers: Mapping[B3Digest, int], seconds: float) -> None:
        """Pass entries over for so long, those that still have these numbers: others are due before them."""
        with self._lock:
            due = self._clock.now() + seconds
            for digest, number in numbers.items():
                entry = self._entries.get(digest)
                if entry is not None and entry.number == number:
                    self._entries[digest] = _Entry(entry.since, number, due)

    def hurry(self) -> None:
        """Let all entries be due."""
        with self._lock:
            self._entries.update(
                (digest, _Entry(entry.since, entry.number))
                for digest, entry in self._entries.items()
                if entry.due > -math.inf
            )

    @property
    def next_due(self) -> float | None:
        """When the first entry is due of those that are passed over; `None` if there are none."""
        with self._lock:
            return min((entry.due for entry in self._entries.values() if entry.due > -math.inf), default=None)

    # -- what comes --

    @contextlib.contextmanager
    def room(self, most: int = 1) -> Iterator[int]:
        """Keep room for entries that are added before the context ends; its value is for how many.

        One at least, which may have to be waited for, and *most* at most. Raises `UnavailableError` if there
        is none, and none comes within the time that is waited.
        """
        count = self._reserve(most)
        try:
            yield count
        finally:
            with self._lock:
                self._reserved -= count
                self._freed.set()

    def _reserve(self, most: int) -> int:
        ends = self._clock.now() + self._full_wait
        while True:
            with self._lock:
                waiting = len(self._entries)
                count = min(self.limit - waiting - self._reserved, most)
                if count > 0:
                    self._reserved += count
                    return count
                self._freed.clear()
            left = ends - self._clock.now()
            if left <= 0:
                said = f"far is behind: {waiting} blobs wait for it, and `queue_limit` is {self.limit}"
                raise UnavailableError(self._name, said)
            self._clock.wait(self._freed, left)

    def add(self, digests: Iterable[B3Digest]) -> None:
        """Add entries; they are on the disk when this returns."""
        wanted = list(dict.fromkeys(digests))
        with self._reporting():
            with self._changing:
                new = [digest for digest in wanted if not self._renew(digest)]
                if new:
                    for folder in reversed(self._place.make()):
                        flush_folder(Path(folder).parent)
                for digest in new:
                    self._make(digest)
            if new:
                self._flush()
        with self._lock:
            for digest in new:
                since = self._entries[digest].since if digest in self._entries else self._clock.now()
                self._entries[digest] = _Entry(since, next(self._numbers))

    def _renew(self, digest: B3Digest) -> bool:
        """Give an entry a new number; return False if there is none."""
        with self._lock:
            entry = self._entries.get(digest)
            if entry is not None:
                self._entries[digest] = _Entry(entry.since, next(self._numbers))
            return entry is not None

    def _make(self, digest: B3Digest) -> None:
        path = self._folder / digest.hex()
        descriptor = owned.open_lock(path)
        try:
            if not owned.is_empty_file(os.fstat(descriptor)):
                reason = "This is no entry of the queue, and stands where one belongs; move it elsewhere"
                raise OSError(errno.EEXIST, reason, str(path))
        finally:
            os.close(descriptor)
        with self._lock:
            self._made += 1

    def _flush(self) -> None:
        """Flush the folder; of those who wait for each other here one does it for all."""
        with self._lock:
            mine = self._made
        with self._flushing:
            if self._flushed < mine:
                with self._lock:
                    made = self._made
                flush_folder(self._folder)
                self._flushed = made

    # -- what goes --

    def remove(self, digest: B3Digest, number: int | None = None) -> None:
        """Remove an entry: far has the blob, or need not get it. By its *number*, if it is still that.

        That need not last: to upload it once more does no harm.
        """
        self._forget(digest, number, lambda path: path.unlink(missing_ok=True))

    def give_up(self, digest: B3Digest, number: int) -> None:
        """Move an entry to the folder `lost`: near does not have the blob as it should be."""

        def move(path: Path) -> None:
            target = self._folder / _LOST / path.name
            owned.require_no_link(target.parent)
            owned.make_folders(target.parent)
            with contextlib.suppress(FileNotFoundError):
                path.rename(target)

        if self._forget(digest, number, move):
            self.lost += 1

    def _forget(self, digest: B3Digest, number: int | None, forget: Callable[[Path], object]) -> bool:
        # Nobody adds it in between, and counts on a file that is about to go.
        with self._changing:
            with self._lock:
                entry = self._entries.get(digest)
                if entry is None or number not in (None, entry.number):
                    return False
                del self._entries[digest]
                self._freed.set()
            path = self._folder / digest.hex()
            with self._reporting(), contextlib.suppress(FileNotFoundError):
                if owned.is_empty_file(path.lstat()):
                    forget(path)
        return True

    # -- the folder --

    def _load(self) -> None:
        found: list[tuple[float, B3Digest]] = []
        self._place.require()
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                digest = owned.digest_named(entry.name)
                with contextlib.suppress(FileNotFoundError):
                    # What has another name or form somebody else has put there.
                    if digest is not None and owned.is_empty_file(entry.stat(follow_symlinks=False)):
                        found.append((entry.stat().st_mtime, digest))
        with contextlib.suppress(FileNotFoundError):
            self.lost = sum(
                owned.digest_named(entry.name) is not None for entry in os.scandir(self._folder / _LOST)
            )
        now, wall = self._clock.now(), time.time()
        for modified, digest in sorted(found):
            self._entries[digest] = _Entry(now - max(wall - modified, 0.0), next(self._numbers))

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.filename is None:
                error.filename = str(self._folder)
            raise UnavailableError(self._name, error) from error
