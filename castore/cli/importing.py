"""`castore import`, and its other name, `castore ingest`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click

from castore.cli.archive_sources import archive_of, archive_options, opened_archive
from castore.cli.entries import quoted
from castore.cli.faults import FAILED, INCOMPLETE, document_of
from castore.cli.keeping_refs import RefKeeper, naming_options
from castore.cli.known_files import known_files_of
from castore.cli.options import shared_options
from castore.cli.output import complain, emit, emit_json, emit_text
from castore.cli.own_places import OwnPlaces
from castore.cli.progress import ProgressMeter
from castore.cli.selecting import SelectingCommand, folder_selection_options, selection_of
from castore.cli.settings import Settings
from castore.cli.sidecars import keep_metadata
from castore.cli.storing import b3sum_line
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import SourceError
from castore.format.nodes import Node, SymlinkNode, node_to_json
from castore.trees.importing import Imported, import_tree, survey
from castore.trees.known_files import COMPARED, KnownFiles
from castore.trees.merging import merge
from castore.trees.naming import directories_of
from castore.trees.selecting import ALL
from castore.trees.unpacking import unpack_tree

_EPILOG = """\b
Examples:
  castore import photos/
  castore import photos/ --snapshot photos -m "after the trip"
  castore export ROOT restored
  castore ls ROOT
  castore import --exclude "*.o" --ignore-file .gitignore --dry-run work/
  git ls-files -z | castore import -0 --files-from - .
  curl -L https://example.org/v1.tar.gz | castore import --format tar -

\b
With --json, sizes in bytes:
  {"trees": [{"source", "node", "files", "directories", "links", "size",
              "known", "dropped": [{"path", "rule"}],
              "problems": [{"path", "kind", "message"}], "notes": [text],
              "metadata", "ref"}],
   "merged": {"node", "ref"}, (with --merge)
   "errors": [{"path", "code", "message"}]}
"""


@click.command("import", cls=SelectingCommand, epilog=_EPILOG)
@click.argument(
    "sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(readable=False, allow_dash=True)
)
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Print the root although something could not be read, and exit with 3.",
)
@click.option(
    "--special",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="Whether pipes, sockets and devices are a problem, or left out.",
)
@click.option(
    "--metadata",
    is_flag=True,
    help="Store modes, owners, times and more in a blob beside the tree; say its digest.",
)
@archive_options
@click.option("--merge", "merges", is_flag=True, help="Make one tree of all, and print its root only.")
@naming_options
@folder_selection_options
@click.option(
    "--dry-run", "-n", is_flag=True, help="Store nothing; list what would go in, and what would not, and why."
)
@click.option(
    "--known-files",
    type=click.Choice([*COMPARED, "off"]),
    default=COMPARED[0],
    show_default=True,
    help="What must be as it was for a file not to be read.",
)
@shared_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:
    """Store folders and archives as trees, and print a line `DIGEST  SOURCE` for each.

    The digest is that of the root, from which all of it can be had again: names, contents, links, and which
    files may be executed. Times, owners and other modes are not kept. A SOURCE may be a file or a link, too;
    its own name is not in the tree. No link is followed.

    An archive, by the end of its name (`.tar`, also with `.gz`, `.zst`, `.xz` or `.bz2`, or `.zip`), is taken
    apart, and so is stdin (`-`) with --format tar. If all in it is in one folder, that is the root.

    If something cannot be read all that is wrong is listed, no root is printed, and the exit code is 1. No
    name is set then.
    """
    settings: Settings = ctx.obj
    sources = options["sources"]
    roots = 1 if options["merges"] else len(sources)
    keeper = RefKeeper.of(options["ref"], options["snapshot"], options["message"], roots)
    if options["merges"] and (options["metadata"] or options["dry_run"]):
        raise click.UsageError("--merge goes with neither --metadata nor --dry-run: they are of one folder.")
    job = _Job(ctx, settings, keeper, options)
    for source in sources:
        archive_of(source, options, ALL)  # Before any is stored.
    with settings.opened() as stores:
        name = settings.service_name
        own = OwnPlaces(stores)
        if options["dry_run"]:
            job.survey_all(own)
        else:
            blobs, directories = stores.blobs(name), directories_of(stores, name)
            with (
                known_files_of(stores, settings, options["known_files"]) as known,
                keeper.keeping(stores, name, blobs, directories),
            ):
                job.take_all(_Services(blobs, directories, known), own)
    if settings.json:
        merged = {} if job.merged is None else {"merged": job.merged}
        emit_json({"trees": job.trees, **merged, "errors": job.errors})
    return job.exit_code


@attrs.frozen
class _Services:
    """Where it goes, and what is known of files that went there."""

    blobs: BlobService
    directories: DirectoryService
    known: KnownFiles | None


@attrs.define
class _Job:
    """What is being imported, and what came of it."""

    ctx: click.Context
    settings: Settings
    keeper: RefKeeper
    options: dict[str, Any]
    exit_code: int = 0
    trees: list[dict[str, Any]] = attrs.field(factory=list)
    merged: dict[str, Any] | None = None
    errors: list[dict[str, Any]] = attrs.field(factory=list)

    def take_all(self, services: _Services, own: OwnPlaces) -> None:
        """Import each source."""
        nodes: list[Node] = []
        for source in self._sources(own):
            dropped = _Dropped(shown=False)
            try:
                done = self._take(source, dropped, services, own)
            except SourceError as error:
                self._fail(source, error)
                continue
            if done.problems and self.exit_code != FAILED:
                self.exit_code = FAILED if done.node is None else INCOMPLETE
            if done.node is not None:
                nodes.append(done.node)
            metadata = name = None
            if done.node is not None and not self.options["merges"]:
                if self.options["metadata"]:
                    metadata = keep_metadata(source, done.node, services.blobs, services.directories)
                name = self.keeper.name(done.node, source, metadata)
            if self.settings.json:
                kept = None if metadata is None else metadata.sri
                self.trees.append({**_document(source, done, dropped), "metadata": kept, "ref": name})
                continue
            _tell(source, done, merges=self.options["merges"])
            if metadata is not None:
                complain(f"castore: the metadata of {source!r} are {metadata}")
            self._say_name(name)
        if self.options["merges"] and self.exit_code != FAILED:
            self._merge(services.directories, nodes)

    def _take(self, source: str, dropped: _Dropped, services: _Services, own: OwnPlaces) -> Imported:
        shared = self._shared(source, own, dropped)
        archive = archive_of(source, self.options, shared["select"])
        verb = "" if self.settings.json else "stored"
        with ProgressMeter(noun="file", verb=verb, hidden=self.settings.quiet) as meter:
            watching: dict[str, Any] = {"progress": meter.advance, "met": partial(_meet, meter)}
            blobs, directories = services.blobs, services.directories
            if archive is not None:
                with opened_archive(source) as file:
                    return unpack_tree(file, source, blobs, directories, archive, dropped=dropped, **watching)
            watching["known_files"] = services.known
            skip = self.options["skip_unreadable"]
            return import_tree(source, blobs, directories, skip_unreadable=skip, **watching, **shared)

    def _merge(self, directories: DirectoryService, nodes: list[Node]) -> None:
        """Make one tree of all, and say its root."""
        sources = self.options["sources"]
        node = merge(directories, nodes)
        name = self.keeper.name(node, sources[0])
        if self.settings.json:
            self.merged = {"node": node_to_json(node), "ref": name}
            return
        _tell_root(node, " ".join(sources))
        self._say_name(name)

    def _say_name(self, name: str | None) -> None:
        if name is not None:
            self.settings.remark(f"castore: it is `{name}`")

    def survey_all(self, own: OwnPlaces) -> None:
        """Say of each source what would go in, and what would not."""
        for source in self._sources(own):
            dropped = _Dropped(shown=not self.settings.json)
            taken: list[bytes] = []
            met = taken.append if self.settings.json else _show_taken
            try:
                done = survey(source, met=met, **self._shared(source, own, dropped))
            except SourceError as error:
                self._fail(source, error)
                continue
            if done.problems and self.exit_code != FAILED:
                self.exit_code = INCOMPLETE if self.options["skip_unreadable"] else FAILED
            if self.settings.json:
                self.trees.append(
                    {**_document(source, done, dropped), "taken": list(map(os.fsdecode, taken))}
                )
            else:
                _complain_of(done)

    def _shared(self, source: str, own: OwnPlaces, dropped: _Dropped) -> dict[str, Any]:
        return {
            "skip_special": self.options["special"] == "skip",
            "leave_out": partial(self._leaves_out, source, own),
            "select": selection_of(self.ctx, self.options, source),
            "dropped": dropped,
        }

    def _sources(self, own: OwnPlaces) -> Iterator[str]:
        for source in self.options["sources"]:
            if Path(source).is_dir() and (reason := own.reason_against_all_in(source)):
                self._fail(source, SourceError(f"cannot import {source!r}: it is {reason}"))
            else:
                yield source

    def _fail(self, source: str, error: SourceError) -> None:
        self.exit_code = FAILED
        if self.settings.json:
            self.errors.append({"path": source, **document_of(error, self.settings)})
        else:
            complain(f"castore: {self.settings.scrubbed(error.message)}")

    def _leaves_out(self, source: str, own: OwnPlaces, below: bytes) -> bool:
        if not own.may_be(below):
            return False
        path = f"{source.rstrip('/')}/{os.fsdecode(below)}"
        reason = own.reason_against(path)
        if reason is not None:
            complain(f"castore: left out {path!r}: it is {reason}")
        return reason is not None


@attrs.define
class _Dropped:
    """What the rules drop, and which rule it was."""

    shown: bool
    found: list[tuple[str, str]] = attrs.field(factory=list)

    def __call__(self, path: bytes, rule: str) -> None:
        if self.shown:
            emit_text(f"- {quoted(path)}  ({rule})\n")
        else:
            self.found.append((os.fsdecode(path), rule))


def _meet(meter: ProgressMeter, path: bytes) -> None:
    meter.name = os.fsdecode(path)
    meter.item_done()


def _show_taken(path: bytes) -> None:
    emit_text(f"+ {quoted(path)}\n")


def _complain_of(done: Imported) -> None:
    for problem in done.problems:
        complain(f"castore: {problem.message}")


def _tell(source: str, done: Imported, *, merges: bool) -> None:
    _complain_of(done)
    for note in done.notes:
        complain(f"castore: {note}")
    if done.node is None:
        way = "--skip-unreadable prints it all the same"
        complain(f"castore: {source!r} is not whole, so no root is printed; {way}")
    elif not merges:
        _tell_root(done.node, source)


def _tell_root(node: Node, source: str) -> None:
    if isinstance(node, SymlinkNode):
        emit(b"-> %s  %s\n" % (node.target, os.fsencode(source)))
    else:
        emit(b3sum_line(node.digest, source))


def _document(source: str, done: Imported, dropped: _Dropped) -> dict[str, Any]:
    problems = [
        {"path": os.fsdecode(each.path), "kind": each.kind, "message": each.message} for each in done.problems
    ]
    return {
        "source": source,
        "node": None if done.node is None else node_to_json(done.node),
        "files": done.files,
        "directories": done.directories,
        "links": done.links,
        "size": done.size,
        "known": done.known,
        "dropped": [{"path": path, "rule": rule} for path, rule in dropped.found],
        "problems": problems,
        "notes": list(done.notes),
    }
