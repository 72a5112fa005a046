"""A disk as the worst that a file system may make of it, played back from a record of system calls.

Whatever was done before a `syncfs` that has returned is there after a power cut. Of what was done later each
single thing may be there or not, in any order: an entry of a folder (a rename is two of them), a new folder,
the bytes of a file, a part of these, or only their number, all zero. That is more than real file systems do,
most of which keep the order of names; who survives this survives them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

import attrs

CALL = re.compile(
    r"(?:\[pid +\d+\] |\d+ +)?(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?:<.*>)?.*"
)
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@attrs.define(eq=False)
class Inode:
    """A file: its bytes on the disk, and those that were written since."""

    data: bytes = b""
    durable: bytes = b""


@attrs.frozen
class Entry:
    """That a path came to name a file, or nothing any more; a folder is an entry without a file."""

    path: str
    inode: Inode | None
    folder: bool = False


@attrs.define
class Disk:
    """What is on the disk for sure, and what has happened since."""

    durable: dict[str, Inode] = attrs.field(factory=dict)
    folders: set[str] = attrs.field(factory=set)
    pending: list[Entry | Inode] = attrs.field(factory=list)
    now: dict[str, Inode] = attrs.field(factory=dict)

    def create(self, path: str) -> Inode:
        inode = Inode()
        self._enter(Entry(path, inode))
        return inode

    def make_folder(self, path: str) -> None:
        self.pending.append(Entry(path, None, folder=True))

    def write(self, inode: Inode, data: bytes) -> None:
        inode.data += data
        self.pending.append(inode)

    def truncate(self, path: str) -> Inode:
        inode = self.now[path]
        inode.data = inode.durable = b""
        return inode

    def rename(self, source: str, target: str) -> None:
        self._enter(Entry(target, self.now[source]))
        self._enter(Entry(source, None))

    def unlink(self, path: str) -> None:
        self._enter(Entry(path, None))

    def _enter(self, entry: Entry) -> None:
        self.pending.append(entry)
        if entry.inode is None:
            self.now.pop(entry.path, None)
        else:
            self.now[entry.path] = entry.inode

    def sync(self) -> None:
        for change in self.pending:
            if isinstance(change, Inode):
                change.durable = change.data
            elif change.folder:
                self.folders.add(change.path)
            elif change.inode is None:
                self.durable.pop(change.path, None)
            else:
                self.durable[change.path] = change.inode
        self.pending.clear()

    def after_a_power_cut(self, source: random.Random, count: int) -> Iterator[dict[str, bytes]]:
        """Yield the files of the extreme outcomes, and of *count* random ones."""
        everything = set(range(len(self.pending)))
        yield self._outcome(set(), lambda data: data)
        yield self._outcome(everything, lambda data: data)
        yield self._outcome(everything, lambda data: b"")
        yield self._outcome(everything, lambda data: bytes(len(data)))
        for number in everything:
            yield self._outcome({number} | self._folders_pending(), lambda data: b"")
            yield self._outcome(everything - {number}, lambda data: data)
        for _ in range(count):
            kept = {number for number in everything if source.random() < 0.5} | self._folders_pending()
            yield self._outcome(kept, lambda data: data[: source.randrange(len(data) + 1)])

    def _folders_pending(self) -> set[int]:
        # What is in a folder that is not there cannot be seen: without these, few states would show anything.
        return {
            number
            for number, change in enumerate(self.pending)
            if isinstance(change, Entry) and change.folder
        }

    def _outcome(self, kept: set[int], left_of: object) -> dict[str, bytes]:
        names, folders = dict(self.durable), set(self.folders)
        contents: dict[Inode, bytes] = {}
        for number, change in enumerate(self.pending):
            if isinstance(change, Inode):
                contents[change] = change.data if number in kept else contents.get(change, change.durable)
            elif number in kept and change.folder:
                folders.add(change.path)
            elif number in kept and change.inode is None:
                names.pop(change.path, None)
            elif number in kept and change.inode is not None:
                names[change.path] = change.inode
        return {
            path: left_of(contents[inode]) if inode in contents else inode.durable  # type: ignore[operator]
            for path, inode in names.items()
            if all(parent in folders for parent in _parents(path))
        }


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def play(record: Iterable[str], folder: str) -> Iterator[tuple[Disk, list[str]]]:
    """Yield the disk after each system call of a record made by strace, and what was reported until then."""
    disk, reported = Disk(), list[str]()
    opened: dict[str, Inode | str] = {}
    for line in record:
        match = CALL.fullmatch(line.rstrip("\n"))
        if match is None or int(match["result"]) < 0:
            continue
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(match["arguments"])]
        name, first = match["name"], match["arguments"].partition(",")[0].partition("<")[0]
        paths = [text.decode("utf-8", "replace").removeprefix(f"{folder}/") for text in texts]
        if name == "openat":
            opened.pop(match["result"], None)
            if "O_CREAT" in match["arguments"] and texts[0].decode("utf-8", "replace").startswith(folder):
                known = paths[0] in disk.now
                opened[match["result"]] = disk.truncate(paths[0]) if known else disk.create(paths[0])
        elif name == "write" and first in opened:
            disk.write(opened[first], texts[0][: int(match["result"])])  # type: ignore[arg-type]
        elif name == "write" and first == "1":
            reported += texts[0].decode().split()
        elif name.startswith("rename"):
            disk.rename(*paths)
        elif name.startswith("unlink") and paths[0] in disk.now:
            disk.unlink(paths[0])
        elif name.startswith("mkdir"):
            disk.make_folder(paths[0])
        elif name == "syncfs":
            disk.sync()
        else:
            continue
        yield disk, reported
