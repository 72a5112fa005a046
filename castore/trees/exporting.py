"""Trees into folders.

A folder that is not there yet is built beside its place, and takes it by one rename: so it is there whole, or
not at all. One that is there is brought up to date: what is right stays untouched, and each other file takes
its place by a rename. Each entry is made from within its folder: no link is followed, whoever makes one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Mapping

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import (
    CastoreError,
    TargetError,
)
from castore.format.directories import Directory
from castore.format.nodes import DirectoryNode, Node, TreePath
from castore.owned import name_while_built, named_while_built
from castore.places import PlaceError, absolute
from castore.trees.comparing import Letter
from castore.trees.exports import Exported, ExportOptions
from castore.trees.filling import Hold, Top, TreeFiller
from castore.trees.folders import Folder, OpenTree, remove_within


def export_tree(
    root: Node | Mapping[bytes, Node],
    target: str | bytes | os.PathLike[str],
    blobs: BlobService,
    directories: DirectoryService,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[int], object] | None = None,
    report: Callable[[Letter, TreePath], object] | None = None,
    passed: Callable[[int, int], object] | None = None,
) -> Exported:
    """Make a folder, a file or a link of a root; or bring a folder up to date.

    Files are 0644, or 0755 if they may be executed, and folders 0755, less what the umask takes away.

    Arguments:
        root: What is to be there; several nodes by their names are what a folder is to have.
        target: Where: a path in a folder that exists.
        blobs: Where the contents of files are.
        directories: Where the directories are.
        options: How; by default a folder is made where there is nothing yet.
        progress: Called with the number of bytes of each file that is written or kept.
        passed: Called with how many files were known to be right, and their bytes: of these *progress* says
            nothing.
        report: Called with what is different and where, in the letters of `castore.trees.comparing.Letter`.

    Raises `TargetError` if *target* cannot be written, or is there and not to be updated; what the services
    raise; and for a tree of which a directory is gone or damaged `CorruptDirectoryError`. Then nothing new is
    there; a folder that was being updated may have some of it.
    """
    options = options or ExportOptions()
    try:
        path = absolute(os.fsencode(target))
    except PlaceError as error:
        raise _cannot_write(os.fsencode(target), error) from error
    work = TreeFiller(
        blobs, directories, options, progress=progress, report=report, passed=passed, target=path
    )
    top: Top = Directory(root) if isinstance(root, Mapping) else root
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        kind = 0
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from error
    try:
        if not kind:
            return _make(work, path, top)
        _require_updatable(path, kind, top, options)
        return _update(work, path, top)
    except (OSError, ValueError) as error:
        if isinstance(error, CastoreError):
            raise
        raise _cannot_write(path, error) from error


def _cannot_write(path: bytes, error: Exception) -> TargetError:
    reason = getattr(error, "strerror", None) or str(error)
    named = getattr(error, "filename", None)
    where = f" (at {os.fsdecode(named)!r})" if isinstance(named, (str, bytes)) and named != path else ""
    return TargetError(f"cannot write {os.fsdecode(path)!r}: {reason}{where}")


def _require_updatable(path: bytes, kind: int, root: Top, options: ExportOptions) -> None:
    shown = repr(os.fsdecode(path))
    if not options.update:
        raise TargetError(f"cannot write {shown}: it is there already; name a new one, or use --update")
    is_folder = isinstance(root, (DirectoryNode, Directory))
    if kind == stat.S_IFLNK and is_folder:
        raise TargetError(f"cannot update {shown}: it is a link; name the folder that it leads to")
    if is_folder and kind != stat.S_IFDIR:
        raise TargetError(f"cannot update {shown}: it is no folder, and the tree is one")
    if not is_folder and kind == stat.S_IFDIR:
        raise TargetError(f"cannot update {shown}: it is a folder, and the root is none; name a file in it")
    if options.delete and is_folder:
        _require_expendable(path, options.protected)


def _require_expendable(path: bytes, protected: Mapping[str, str]) -> None:
    """Raise `TargetError` for a folder from which nothing may be removed on somebody's word."""
    real = os.path.realpath(os.fsdecode(path))
    home = os.path.realpath(os.path.expanduser("~"))
    for place, reason in {"/": "the root of all", home: "your home folder", **protected}.items():
        within = os.path.realpath(place)
        if within == real or within.startswith(real.rstrip("/") + "/"):
            holds = "is" if within == real else f"holds {within!r}, which is"
            message = f"cannot delete in {os.fsdecode(path)!r}: it {holds} {reason}; --delete is not for that"
            raise TargetError(message)


# -- a target that is not there --


def _make(work: TreeFiller, path: bytes, root: Top) -> Exported:
    above, name = os.path.split(path)
    if work.options.dry_run:
        work.rehearse(root)
        return work.outcome()
    with OpenTree(above) as folder:
        left = _left_over(folder, name, root, work.options)
        temporary = left or name_while_built(name, secrets.token_hex(4))
        try:
            work.build(folder, temporary, root, resumed=left is not None)
            if work.options.skip_unreadable or not work.lost:
                _give_name(folder, temporary, name)
                if work.options.placing.durable:
                    folder.flush()
        finally:
            _remove(folder, temporary)
            work.let_go()
    return work.outcome()


def _give_name(folder: Folder, temporary: bytes, name: bytes) -> None:
    """Give what was built its name, unless that was taken meanwhile."""
    if folder.kind_of(temporary) != stat.S_IFDIR:
        # Of a file a rename would replace what is there.
        with contextlib.suppress(PermissionError):
            folder.link_file(name, folder, temporary)
            return
    if folder.has(name):
        raise FileExistsError(errno.EEXIST, "it is there meanwhile")
    folder.rename(temporary, name)


def _remove(above: Folder, temporary: bytes) -> None:
    """Remove what was built and did not get its name."""
    with contextlib.suppress(OSError):
        if above.kind_of(temporary) == stat.S_IFDIR:
            remove_within(above, temporary)
        else:
            above.remove(temporary)


def _left_over(folder: Folder, name: bytes, root: Top, options: ExportOptions) -> bytes | None:
    """Return what an export to the same place that was killed has left, to go on with; remove what else has.

    That of one that goes on is locked.
    """
    found = None
    for other, kind in folder.entries():
        if named_while_built(other) != name[:200] or kind != stat.S_IFDIR:
            continue
        with contextlib.suppress(OSError), Hold(folder.enter(other)):
            if folder.status(other).st_uid != os.geteuid():
                continue  # Somebody else could change what is written to it.
            if options.update and found is None and isinstance(root, (DirectoryNode, Directory)):
                found = other
            else:
                remove_within(folder, other)
    return found


# -- a target that is there --


def _update(work: TreeFiller, path: bytes, root: Top) -> Exported:
    above, name = os.path.split(path)
    try:
        if isinstance(root, (DirectoryNode, Directory)):
            with OpenTree(path) as folder:
                work.update(folder, root)
        else:
            with OpenTree(above) as folder:
                work.update_entry(folder, name, root)
    finally:
        work.let_go()
    return work.outcome()
