"""`castore export`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

import attrs
import click

from castore.cli.entries import quoted
from castore.cli.faults import FAILED, INCOMPLETE, document_of
from castore.cli.files import replacing
from castore.cli.known_files import known_files_of
from castore.cli.options import shared_options
from castore.cli.output import STDOUT, complain, emit, emit_json, emit_text, stdout_is_terminal
from castore.cli.own_places import OwnPlaces
from castore.cli.progress import ProgressMeter
from castore.cli.roots import as_place
from castore.cli.selecting import SelectingCommand, selection_of, tree_selection_options
from castore.cli.settings import Settings
from castore.cli.sidecars import preserving_of, preserving_options
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import CastoreError, InvalidDirectoryError, TargetError
from castore.format.nodes import Node, TreePath
from castore.trees.comparing import Letter
from castore.trees.exporting import export_tree
from castore.trees.exports import Exported, ExportOptions
from castore.trees.known_files import COMPARED, KnownFiles
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.packing import ArchiveFormat, PackOptions, format_of, pack_tree
from castore.trees.placing import Placing
from castore.trees.preserving import Preserving
from castore.trees.ref_names import RefName
from castore.trees.selecting import Selection

_EPILOG = """\b
Examples:
  castore export ROOT restored
  castore export ROOT:docs/readme.md readme.md
  castore export ROOT restored --update --delete --dry-run
  castore export ROOT photos.tar.zst

\b
With --json, sizes in bytes; `root` is a list if there are several:
  {"root", "target", "written", "directories", "links", "kept", "deleted",
   "bytes", "renamed": {path: its path in the tree}, "notes": [text],
   "changes": [{"change", "path"}], (with --dry-run)
   "lost": [{"path", "code", "message"}]}
"""

_STDOUT: Final = "-"
_GATHERED: Final = 256 << 10
_OF_FOLDERS: Final = ("update", "delete", "dry_run", "on_collision", "preserve")
_PLACING: Final = tuple(attrs.fields_dict(Placing))


@click.command("export", epilog=_EPILOG, cls=SelectingCommand)
@click.argument("roots", metavar="ROOT[:PATH]...", type=as_place, nargs=-1, required=True)
@click.argument("target", metavar="TARGET", type=click.Path(readable=False, allow_dash=True))
@click.option(
    "--update", is_flag=True, help="Bring a TARGET that is there up to date; go on with what was cut short."
)
@click.option("--delete", is_flag=True, help="With --update: remove from TARGET what the tree does not have.")
@click.option(
    "--dry-run", is_flag=True, help="Change nothing; print what would change, as `castore diff` does."
)
@click.option(
    "--on-collision",
    type=click.Choice(["fail", "rename"]),
    default="fail",
    show_default=True,
    help="Of names that TARGET takes for one: write nothing, or add `~2` to the later ones.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["dir", "tar", "zip"]),
    help="What TARGET is; by default what the end of its name says: `.tar`, `.tar.zst`, `.zip` ...",
)
@click.option(
    "--prefix",
    metavar="NAME",
    help="The name of the one folder in an archive.  [default: the last part of the ref, else root]",
)
@tree_selection_options
@preserving_options
@click.option("--read-only", is_flag=True, help="Let nobody write to what is made.")
@click.option(
    "--hardlink", is_flag=True, help="Make files with the same contents names of one; implies --read-only."
)
@click.option("--sparse", is_flag=True, help="Leave holes for runs of zeros of 64 KiB and more.")
@click.option("--durable", is_flag=True, help="Flush all to the disk before TARGET has its name.")
@click.option("--verify", is_flag=True, help="Read each file again when it was written.")
@click.option(
    "--known-files",
    type=click.Choice([*COMPARED, "off"]),
    default=COMPARED[0],
    show_default=True,
    help="What must be as it was for a file in TARGET not to be read.",
)
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Leave out files that are absent or damaged, and exit with 3.",
)
@shared_options
@click.pass_context
def command(ctx: click.Context, /, roots: tuple[TreePlace, ...], target: str, **options: Any) -> int:
    """Make a folder of a tree, or of a part of it; or bring a folder up to date.

    TARGET must not exist, unless --update is given. It appears when all of it is there. Each byte is checked
    before it is written. Several roots go into the folder TARGET, each under the last part of its PATH, or of
    its ref.

    With --update what is right is not touched, and each other file takes its place when all of it is there:
    so that a run that was cut short goes on. What the tree does not have stays, unless --delete is given.
    What is excluded is neither written nor removed.

    TARGET may be an archive as well: `.tar`, also with `.gz`, `.zst`, `.xz` or `.bz2`, or `.zip`; or `-`,
    which is stdout, with --format. The same tree gives the same tar.
    """
    settings: Settings = ctx.obj
    selection = selection_of(ctx, options)
    if options["delete"] and not options["update"]:
        raise click.UsageError("--delete is for --update: a new folder has nothing else in it.")
    options["read_only"] |= options["hardlink"]
    if options["read_only"] and "mode" in (options["preserve"] or ()):
        raise click.UsageError("--preserve=mode and --read-only say different things of modes.")
    if options["hardlink"] and (own := set(options["preserve"] or ()) & {"times", "owner", "xattrs"}):
        raise click.UsageError(
            f"--preserve={','.join(sorted(own))} and --hardlink say different things: names of one file have"
            " all of that together. --preserve=links makes those one that were."
        )
    job = _Job(settings, roots, target, options, selection, _archive_of(target, roots, selection, options))
    with settings.opened() as stores:
        done = job.run(stores)
    if settings.json:
        emit_json(job.document(done))
    else:
        job.tell(done)
    if not done.lost:
        return 0
    return INCOMPLETE if options["skip_unreadable"] else FAILED


def _archive_of(
    target: str, roots: tuple[TreePlace, ...], selection: Selection, options: dict[str, Any]
) -> PackOptions | None:
    """Return how TARGET is packed; `None` if it is none."""
    kind, prefix = options["kind"], options["prefix"]
    found = None if os.path.isdir(target) else format_of(target)  # noqa: PTH112 - the user's string
    if kind is None and found is None:
        if target == _STDOUT:
            raise click.UsageError("`-` is stdout, which takes an archive: --format tar, or --format zip.")
        kind = "dir"
    kind = kind or (found and found[0])
    if kind == "dir":
        if prefix is not None:
            raise click.UsageError("--prefix is for archives; a folder has the name TARGET.")
        return None
    for name in (*_OF_FOLDERS, *_PLACING):
        if options[name] and options[name] != "fail":
            raise click.UsageError(f"--{name.replace('_', '-')} is for folders, and TARGET is an archive.")
    compression = found[1] if found is not None and found[0] == kind else ""
    try:
        top = os.fsencode(_default_prefix(roots) if prefix is None else prefix.rstrip("/"))
        return PackOptions(
            cast("ArchiveFormat", kind),
            compression,
            top,
            selection=selection,
            skip_unreadable=options["skip_unreadable"],
        )
    except InvalidDirectoryError as error:
        raise click.UsageError(f"--prefix: {error.message}") from None


def _default_prefix(roots: tuple[TreePlace, ...]) -> str:
    """Return the last part of the name of the ref that is the only root, else `root`."""
    named = len(roots) == 1 and not roots[0].path and isinstance(roots[0].root, RefName)
    return os.fsdecode(_own_name(roots[0])) if named else "root"


def _own_name(place: TreePlace) -> bytes:
    """Return what a whole tree is called: the last part of its ref, or its digits."""
    root = place.root
    return (root.name.rpartition("/")[2] if isinstance(root, RefName) else str(root)).encode()


class _CutError(CastoreError):
    """An archive lacks something, and is given up."""

    def __init__(self, done: Exported) -> None:
        super().__init__("the archive is not whole")
        self.done = done


class _Gathering(io.RawIOBase):
    """A stream that passes many small pieces on as few large ones."""

    def __init__(self, write: Callable[[memoryview | bytes], Any]) -> None:
        self._pass_on = write
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        if len(self._held) >= _GATHERED:
            self.finish()
        return len(data)

    def finish(self) -> None:
        """Pass on what is left."""
        held, self._held = self._held, bytearray()
        self._pass_on(bytes(held))


@attrs.define
class _Job:
    settings: Settings
    roots: tuple[TreePlace, ...]
    target: str
    options: dict[str, Any]
    selection: Selection
    archive: PackOptions | None
    changes: list[tuple[Letter, TreePath]] = attrs.field(factory=list)

    def run(self, stores: Composition) -> Exported:
        name = self.settings.service_name
        own = OwnPlaces(stores)
        blobs = stores.blobs(name)
        if reason := own.reason_against_all_in(self.target):
            raise TargetError(f"cannot write {self.target!r}: it is {reason}")
        lookup = TreeLookup(stores, name)
        given = self.options
        preserving = preserving_of(given["preserve"], given["metadata"], self.roots, stores, name)
        report = self._note if self.options["dry_run"] else None
        verb = "" if self.settings.json or self.options["dry_run"] else "wrote"
        with ProgressMeter(noun="file", verb=verb, hidden=self.settings.quiet) as meter:

            def passed(count: int, size: int) -> None:
                meter.item_done(count)
                meter.advance(size)

            def progress(size: int) -> None:
                passed(1, size)

            if self.archive is not None:
                return self._pack(self._top(lookup), blobs, lookup.directories, self.archive, progress)
            with known_files_of(stores, self.settings, given["known_files"]) as known:
                return export_tree(
                    self._top(lookup),
                    self.target,
                    blobs,
                    lookup.directories,
                    self._options(own, preserving, known),
                    progress=progress,
                    passed=passed,
                    report=report,
                )

    def _pack(
        self,
        top: Node | dict[bytes, Node],
        blobs: BlobService,
        directories: DirectoryService,
        how: PackOptions,
        progress: Callable[[int], object],
    ) -> Exported:
        def pack(write: Callable[[memoryview | bytes], Any]) -> Exported:
            stream = _Gathering(write)
            done = pack_tree(top, cast("BinaryIO", stream), blobs, directories, how, progress=progress)
            stream.finish()
            if done.lost and not how.skip_unreadable:
                raise _CutError(done)
            return done

        try:
            if self.target == _STDOUT:
                if self.settings.json:
                    raise click.UsageError("--json would be in the midst of the archive; name a file.")
                if STDOUT.is_terminal:
                    raise click.UsageError("An archive is nothing for a terminal; pipe it, or name a file.")
                return pack(emit)
            if os.path.lexists(self.target):
                raise TargetError(f"cannot write {self.target!r}: it is there already; name a new one")
            with replacing(self.target) as write:
                return pack(write)
        except _CutError as cut:
            return cut.done

    def _options(
        self, own: OwnPlaces, preserving: Preserving | None, known: KnownFiles | None
    ) -> ExportOptions:
        given = self.options
        return ExportOptions(
            update=given["update"],
            delete=given["delete"],
            dry_run=given["dry_run"],
            selection=self.selection,
            rename_collisions=given["on_collision"] == "rename",
            skip_unreadable=given["skip_unreadable"],
            placing=Placing(**{name: given[name] for name in _PLACING}),
            preserving=preserving,
            protected=own.reasons,
            known_files=known,
        )

    def _top(self, lookup: TreeLookup) -> Node | dict[bytes, Node]:
        if len(self.roots) == 1:
            return lookup.node(self.roots[0])
        top: dict[bytes, Node] = {}
        for place in self.roots:
            name = bytes(place.path[-1]) if place.path else _own_name(place)
            if name in top:
                shown = os.fsdecode(name)
                raise click.UsageError(f"Two roots would be {shown!r} in {self.target!r}; export them apart.")
            top[name] = lookup.node(place)
        return top

    def _note(self, letter: Letter, path: TreePath) -> None:
        if self.settings.json:
            self.changes.append((letter, path))
        else:
            emit_text(f"{letter}  {quoted(bytes(path) or b'.')}\n", flush=stdout_is_terminal())

    def document(self, done: Exported) -> dict[str, Any]:
        roots = [str(root) for root in self.roots]
        counts = attrs.asdict(
            done, filter=lambda field, _: field.name not in ("lost", "renamed", "size", "notes")
        )
        document: dict[str, Any] = {"root": roots if len(roots) > 1 else roots[0], "target": self.target}
        document |= {**counts, "bytes": done.size}
        document["renamed"] = {os.fsdecode(here): os.fsdecode(path) for here, path in done.renamed.items()}
        document["notes"] = list(done.notes)
        if self.options["dry_run"]:
            document["changes"] = [{"change": letter, "path": str(path)} for letter, path in self.changes]
        document["lost"] = [
            {"path": str(each.path), **document_of(each.error, self.settings)} for each in done.lost
        ]
        return document

    def tell(self, done: Exported) -> None:
        """Say what is not as in the tree."""
        for note in done.notes:
            complain(f"castore: {note}")
        for here, path in done.renamed.items():
            complain(f"castore: {os.fsdecode(path)!r} is {os.fsdecode(here)!r} here")
        for each in done.lost:
            message = self.settings.scrubbed(each.error.message)
            complain(f"castore: cannot write {str(each.path)!r}: {message}")
        if done.lost and not self.options["skip_unreadable"]:
            rest = "is not as the tree" if self.options["update"] else "would not be whole, and was not made"
            complain(f"castore: {self.target!r} {rest}")
