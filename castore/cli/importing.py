"""`castore import`, and its other name, `castore ingest`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import click

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
from castore.format.nodes import SymlinkNode, node_to_json
from castore.trees.importing import Imported, import_tree, survey
from castore.trees.known_files import COMPARED, KnownFiles
from castore.trees.naming import directories_of

_EPILOG = """\b
Examples:
  castore import photos/
  castore import photos/ --snapshot photos -m "after the trip"
  castore export ROOT restored
  castore ls ROOT
  castore import --exclude "*.o" --ignore-file .gitignore --dry-run work/
  git ls-files -z | castore import -0 --files-from - .

\b
With --json, sizes in bytes:
  {"trees": [{"source", "node", "files", "directories", "links", "size",
              "known", "dropped": [{"path", "rule"}],
              "problems": [{"path", "kind", "message"}],
              "metadata", "ref"}],
   "errors": [{"path", "code", "message"}]}
"""


@click.command("import", cls=SelectingCommand, epilog=_EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(readable=False))
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
    """Store folders as trees, and print a line `DIGEST  SOURCE` for each.

    The digest is that of the root, from which all of it can be had again: names, contents, links, and which
    files may be executed. Times, owners and other modes are not kept. A SOURCE may be a file or a link, too;
    its own name is not in the tree. No link is followed.

    If something cannot be read all that is wrong is listed, no root is printed, and the exit code is 1. No
    name is set then.
    """
    settings: Settings = ctx.obj
    sources = options["sources"]
    keeper = RefKeeper.of(options["ref"], options["snapshot"], options["message"], len(sources))
    job = _Job(ctx, settings, keeper, options)
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
                job.take_all(blobs, directories, own, known)
    if settings.json:
        emit_json({"trees": job.trees, "errors": job.errors})
    return job.exit_code


@attrs.define
class _Job:
    """What is being imported, and what came of it."""

    ctx: click.Context
    settings: Settings
    keeper: RefKeeper
    options: dict[str, Any]
    exit_code: int = 0
    trees: list[dict[str, Any]] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)

    def take_all(
        self, blobs: BlobService, directories: DirectoryService, own: OwnPlaces, known: KnownFiles | None
    ) -> None:
        """Import each source."""
        verb = "" if self.settings.json else "stored"
        for source in self._sources(own):
            dropped = _Dropped(shown=False)
            with ProgressMeter(noun="file", verb=verb, hidden=self.settings.quiet) as meter:
                try:
                    done = import_tree(
                        source,
                        blobs,
                        directories,
                        skip_unreadable=self.options["skip_unreadable"],
                        progress=meter.advance,
                        met=partial(_meet, meter),
                        known_files=known,
                        **self._shared(source, own, dropped),
                    )
                except SourceError as error:
                    self._fail(source, error)
                    continue
            if done.problems and self.exit_code != FAILED:
                self.exit_code = FAILED if done.node is None else INCOMPLETE
            metadata = None
            if self.options["metadata"] and done.node is not None:
                metadata = keep_metadata(source, done.node, blobs, directories)
            name = None if done.node is None else self.keeper.name(done.node, source, metadata)
            if self.settings.json:
                kept = None if metadata is None else metadata.sri
                self.trees.append({**_document(source, done, dropped), "metadata": kept, "ref": name})
                continue
            _tell(source, done)
            if metadata is not None:
                complain(f"castore: the metadata of {source!r} are {metadata}")
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


def _tell(source: str, done: Imported) -> None:
    _complain_of(done)
    if done.node is None:
        way = "--skip-unreadable prints it all the same"
        complain(f"castore: {source!r} is not whole, so no root is printed; {way}")
    elif isinstance(done.node, SymlinkNode):
        emit(b"-> %s  %s\n" % (done.node.target, os.fsencode(source)))
    else:
        emit(b3sum_line(done.node.digest, source))


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
    }
