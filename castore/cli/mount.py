"""`castore mount`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from castore.cli.background import go_to_background
from castore.cli.options import as_seconds, as_size, shared_options
from castore.cli.output import complain, emit_text
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.cli.sidecars import preserving_of, preserving_options
from castore.errors import NodeNotFoundError, SourceError
from castore.format.nodes import DirectoryNode, TreePath
from castore.places import rooted
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.ref_names import refs_of

if TYPE_CHECKING:
    from castore.access.mount.fuse import Mounted, MountView
    from castore.access.mount.trees import Stores
    from castore.composition.composition import Composition

_EPILOG = """\b
Examples:
  castore mount ROOT /mnt/photos
  castore mount ROOT:2026/summer /mnt/photos --background
  castore mount /mnt/all         all refs, a folder for each
  castore umount /mnt/photos

A ref given as ROOT is looked up once. Without ROOT, refs that are new or set anew show within a second; a
ref shows its new tree when no file of the old one is open.

\b
With --json the first line on stdout says what is mounted:
  {"mounted", "root"}   ("root" is null for all refs)
"""


@click.command("mount", epilog=_EPILOG)
@click.argument("words", metavar="[ROOT[:PATH]] FOLDER", nargs=-1, required=True)
@click.option("--background", is_flag=True, help="Return when it is mounted, and go on in the background.")
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(),
    help="Append to FILE what could not be read, and why.  [default: stderr; in the background syslog]",
)
@click.option("--allow-other", is_flag=True, help="Let other users look into it, too, as the modes say.")
@preserving_options
@click.option(
    "--timeout",
    metavar="TIME",
    default="30 s",
    show_default=True,
    type=as_seconds,
    help="Fail a request that the store does not answer for so long.",
)
@click.option(
    "--read-ahead",
    metavar="SIZE",
    default="1 MiB",
    show_default=True,
    type=as_size,
    help="How much the kernel asks for ahead, where castore may set that.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, /, words: tuple[str, ...], **options: Any) -> None:
    """Show a tree, or all refs, as a folder of this machine, until it is unmounted.

    It cannot be written to. Files are read when they are asked for, and each byte is checked before a program
    has it. `castore umount`, SIGTERM and SIGINT end it. Only the user who mounts it can look into it, unless
    --allow-other is given.
    """
    if len(words) > 2:
        raise click.UsageError("castore mount takes a ROOT and a FOLDER, or a FOLDER alone.")
    place = as_place(words[0]) if len(words) == 2 else None
    if place is None and (options["preserve"] or options["metadata"]):
        raise click.UsageError("--preserve is for one ROOT.")
    if not 4096 <= options["read_ahead"] <= 1 << 20:
        raise click.UsageError("--read-ahead takes from 4 KiB to 1 MiB.")
    _mount(settings, place, words[-1], options)


def _mount(settings: Settings, place: TreePlace | None, target: str, options: dict[str, Any]) -> None:
    from castore.access.mount.fuse import MountOptions, load, run  # noqa: PLC0415 - help needs none
    from castore.access.mount.points import prepare, require_device  # noqa: PLC0415 - as above

    load()
    require_device()
    folder, cleaned = prepare(target)
    if cleaned:
        settings.remark(f"castore: {folder} was left mounted by a castore that was killed; that was ended")
    log = None if options["log"] is None else Path(rooted(options["log"]))
    leave = go_to_background() if options["background"] else None
    with _reporting(log, in_background=leave is not None) as report, settings.opened() as stores:
        view, root = _view(settings, stores, place, options)
        view = attrs.evolve(view, report=lambda line: report(settings.scrubbed(line)))

        def ready() -> None:
            _tell(settings, place, root, folder)
            if leave is not None:
                leave()

        source = "castore:refs" if place is None else f"castore:{place}"
        options_of_it = MountOptions(
            source=source, allow_other=options["allow_other"], read_ahead=options["read_ahead"]
        )
        with contextlib.closing(view.stores):
            run(view, folder, options_of_it, ready)


def _view(
    settings: Settings, stores: Composition, place: TreePlace | None, options: dict[str, Any]
) -> tuple[MountView, str | None]:
    """Return what is mounted, and the digest of its root if it is one tree."""
    from castore.access.mount.attributes import Attributes  # noqa: PLC0415 - as above
    from castore.access.mount.fuse import MountView  # noqa: PLC0415 - as above
    from castore.access.mount.trees import Stores  # noqa: PLC0415 - as above

    name = settings.service_name
    lookup = TreeLookup(stores, name)
    served = Stores(stores.blobs(name), lookup.directories, options["timeout"])
    mounted, root = _mounted(stores, name, lookup, served, place)
    attributes = Attributes()
    if place is not None:
        kept = preserving_of(options["preserve"], options["metadata"], (place,), stores, name)
        if kept is not None:
            attributes = Attributes(kept.entries, kept.aspects, kept.below)
    return MountView(mounted, served, attributes), root


def _tell(settings: Settings, place: TreePlace | None, root: str | None, folder: str) -> None:
    if settings.json:
        emit_text(json.dumps({"mounted": folder, "root": root}) + "\n", flush=True)
        return
    what = f"{place} ({root})"
    if place is None:
        what = "all refs"
    elif str(place) == root:
        what = root
    settings.remark(f"castore: {what} mounted at {folder}")


def _mounted(
    stores: Composition, name: str, lookup: TreeLookup, served: Stores, place: TreePlace | None
) -> tuple[Mounted, str | None]:
    """Return what is to be mounted, and the digest of its root."""
    from castore.access.mount.refs import MountedRefs  # noqa: PLC0415 - as above
    from castore.access.mount.trees import MountedTree  # noqa: PLC0415 - as above

    if place is None:
        return MountedRefs(served, refs_of(stores, name)), None
    root = lookup.root(place.root)
    node = lookup.node(place, follow=True)
    if not isinstance(node, DirectoryNode):
        raise NodeNotFoundError(f"{place} is no directory: `castore cat` and `castore get` read a file")
    if place.path == TreePath() and lookup.directories.get(node.digest) is None:
        raise NodeNotFoundError(f"no directory {node.digest} in `{name}`, for which {place} stands")
    within = root.digest if isinstance(root, DirectoryNode) else None
    return MountedTree(served, node, within=within), str(node.digest)


@contextlib.contextmanager
def _reporting(log: Path | None, *, in_background: bool) -> Iterator[Callable[[str], None]]:
    """Return a function that writes a line to where it is read."""
    if log is not None:
        try:
            file = log.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise SourceError(f"cannot write to {log}: {error.strerror}") from error
        with file:
            yield lambda line: _write(file, line)
    elif in_background:
        import syslog  # noqa: PLC0415 - there are systems without

        syslog.openlog(f"castore-mount[{os.getpid()}]", 0, syslog.LOG_DAEMON)
        yield lambda line: syslog.syslog(syslog.LOG_ERR, line)
    else:
        yield lambda line: complain(f"castore: {line}")


def _write(file: Any, line: str) -> None:
    from castore.contract.refs import now, time_to_text  # noqa: PLC0415 - as above

    with contextlib.suppress(OSError):
        file.write(f"{time_to_text(now().replace(microsecond=0))} {line}\n")
