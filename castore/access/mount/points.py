"""Mount points: what is mounted where, whether something can be, and how it is ended.

All of it is read from `/proc/self/mountinfo`, and no file system is asked: one whose program has died, or
hangs, would not answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final

import attrs

from castore.errors import CastoreError
from castore.places import absolute

TYPE: Final = "fuse.castore"
"""The type of castore's file systems."""

DEVICE: Final = "/dev/fuse"

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_LAZY: Final = 2
"""MNT_DETACH of umount2(2)."""
_MOST_TOLD: Final = 5


class MountError(CastoreError):
    """A folder cannot be mounted, or what is mounted there cannot be ended."""

    code = "mount"


@attrs.frozen
class MountPoint:
    """Something that is mounted.

    Attributes:
        path: Where.
        type: The type of the file system, such as `ext4`.
        source: What it is of, as the one who has mounted it says.
        device: The number of the file system, as `MAJOR:MINOR`.
        owner: The user who has mounted it, where a file system of FUSE says so.
    """

    path: str
    type: str
    source: str
    device: str
    owner: int | None = None

    @property
    def is_castores(self) -> bool:
        """Whether castore has mounted it."""
        return self.type == TYPE

    @property
    def is_dead(self) -> bool:
        """Whether the program behind it is gone."""
        try:
            os.stat(self.path)  # noqa: PTH116 - no Path of what may not answer
        except OSError as error:
            return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
        return False


def mount_points() -> list[MountPoint]:
    """Return all that this process sees mounted, in the order in which it was."""
    text = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape")
    return [_parse(line) for line in text.splitlines()]


def _parse(line: str) -> MountPoint:
    # proc_pid_mountinfo(5): some fields that may be there stand before a lone dash.
    words = line.split(" ")
    kind, source, options = words[words.index("-", 6) + 1 :][:3]
    owner = re.search(r"(?:^|,)user_id=(\d+)", options)
    return MountPoint(
        _plain(words[4]), kind, _plain(source), words[2], None if owner is None else int(owner[1])
    )


def _plain(word: str) -> str:
    raw = word.encode("utf-8", "surrogateescape").decode("latin-1")
    return (
        _ESCAPED.sub(lambda match: chr(int(match[1], 8)), raw)
        .encode("latin-1")
        .decode("utf-8", "surrogateescape")
    )


def mounted_at(folder: str | os.PathLike[str]) -> MountPoint | None:
    """Return what is mounted at a folder, the last one of several; `None` if nothing is."""
    path = resolved(folder)
    found = [each for each in mount_points() if each.path == path]
    return found[-1] if found else None


def resolved(folder: str | os.PathLike[str]) -> str:
    """Return the path of a mount point without links; the folder itself is not looked at."""
    above, name = os.path.split(absolute(folder))
    path = os.path.join(os.path.realpath(above), name)  # noqa: PTH118
    # What is mounted there may not answer.
    return path if any(each.path == path for each in mount_points()) else os.path.realpath(path)


def prepare(folder: str | os.PathLike[str]) -> tuple[str, bool]:
    """Make sure that something can be mounted at a folder; return its path without links.

    What castore has left mounted there, when it was killed, is ended; the second value tells whether it was.

    Raises `MountError` if there is no such folder, if it is not empty, or something is mounted there.
    """
    path = resolved(folder)
    cleaned = False
    while (there := mounted_at(path)) is not None:
        if not (there.is_castores and there.owner in {None, os.geteuid()} and there.is_dead):
            what = (
                f"castore has mounted {there.source}" if there.is_castores else f"{there.source} is mounted"
            )
            way = f": `castore umount {path}` ends that" if there.is_castores else ""
            raise MountError(f"{what} at {path} already{way}")
        unmount(path, lazy=True)
        cleaned = True
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116
            raise MountError(f"{path} is no folder")
        names = os.listdir(path)  # noqa: PTH208
    except FileNotFoundError:
        raise MountError(f"there is no folder {path}: make it first, with `mkdir -p`") from None
    except OSError as error:
        raise MountError(f"{path} cannot be read: {error.strerror}") from error
    if names:
        raise MountError(
            f"{path} is not empty: what is in it could not be seen while something is mounted there;"
            " take an empty folder"
        )
    return path, cleaned


def require_device() -> None:
    """Raise `MountError`, which says what to do, if this process cannot open the device of FUSE."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except FileNotFoundError:
        raise MountError(
            f"there is no {DEVICE}: load the kernel's module with `modprobe fuse`; a container needs"
            f" `--device {DEVICE} --cap-add SYS_ADMIN`"
        ) from None
    except OSError as error:
        raise MountError(
            f"{DEVICE} cannot be opened: {error.strerror}; a container needs"
            f" `--device {DEVICE} --cap-add SYS_ADMIN`"
        ) from error
    if os.geteuid() and shutil.which("fusermount3") is None:
        raise MountError("only root can mount without `fusermount3`: install the package fuse3")


def end(folder: str | os.PathLike[str], *, lazy: bool = False) -> MountPoint:
    """End what castore has mounted at a folder; return what it was.

    With *lazy* it vanishes at once, and ends when the last file in it is closed.

    Raises `MountError` if nothing is mounted there, or something else is, or if it is in use.
    """
    path = resolved(folder)
    there = mounted_at(path)
    if there is None:
        if not os.path.isdir(path):  # noqa: PTH112
            raise MountError(f"there is no folder {path}")
        below = next((each for each in mount_points() if _is_in(path, each.path) and each.is_castores), None)
        more = f"; castore has mounted {below.path}, in which it is" if below else ""
        raise MountError(f"nothing is mounted at {path}{more}")
    if not there.is_castores:
        raise MountError(f"{path} was not mounted by castore: it is of the type {there.type}, use `umount`")
    # A dead one cannot be in use.
    unmount(path, lazy=lazy or there.is_dead)
    return there


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def unmount(path: str, *, lazy: bool) -> None:
    """Unmount whatever is at *path*; raise `MountError` if it cannot be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _LAZY if lazy else 0) == 0:
        return
    code = ctypes.get_errno()
    program = shutil.which("fusermount3")
    if code == errno.EPERM and program is not None:
        run = subprocess.run(
            [program, "-u", *(["-z"] if lazy else []), "--", path],
            check=False,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
        )
        if run.returncode == 0:
            return
        words = run.stderr.decode("utf-8", "replace").strip()
        code = errno.EBUSY if "busy" in words else code
    else:
        words = os.strerror(code)
    if code == errno.EBUSY:
        raise MountError(
            f"{path} is in use{_users(path)}: leave it, and close the files; or let it end when they are"
            " closed, with `--lazy`"
        )
    raise MountError(f"{path} cannot be unmounted: {words}")


def _users(path: str) -> str:
    """Return which processes are in a folder, or have something in it open, as far as can be seen."""
    found: list[str] = []
    for process in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):  # noqa: PTH208
        if _uses(f"/proc/{process}", path):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{process}/comm").read_bytes().decode("utf-8", "replace").strip()
                found.append(f"{process} ({name})")
    if not found:
        return ""
    more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return f", by process {', '.join(found[:_MOST_TOLD])}{more}"


def _uses(process: str, path: str) -> bool:
    links = [f"{process}/cwd", f"{process}/root"]
    with contextlib.suppress(OSError):
        links += [f"{process}/fd/{each}" for each in os.listdir(f"{process}/fd")]  # noqa: PTH208
    for link in links:
        with contextlib.suppress(OSError):
            target = os.readlink(link)  # noqa: PTH115 - a Path is asked too much
            if target == path or _is_in(target, path):
                return True
    return False
