"""`castore import`, and its other name, `castore ingest`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import click

from castore.cli.faults import FAILED, INCOMPLETE, document_of
from castore.cli.keeping_refs import RefKeeper, naming_options
from castore.cli.options import shared_options
from castore.cli.output import complain, emit, emit_json
from castore.cli.own_places import OwnPlaces
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.cli.sidecars import keep_metadata
from castore.cli.storing import b3sum_line
from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.errors import SourceError
from castore.format.nodes import SymlinkNode, node_to_json
from castore.trees.importing import Imported, import_tree
from castore.trees.naming import directories_of

_EPILOG = """\b
Examples:
  castore import photos/
  castore import photos/ --snapshot photos -m "after the trip"
  castore export ROOT restored
  castore ls ROOT

\b
With --json, sizes in bytes:
  {"trees": [{"source", "node", "files", "directories", "links", "size",
              "problems": [{"path", "kind", "message"}],
              "metadata", "ref"}],
   "errors": [{"path", "code", "message"}]}
"""


@click.command("import", epilog=_EPILOG)
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
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    sources: tuple[str, ...],
    skip_unreadable: bool,
    special: str,
    metadata: bool,
    ref: str | None,
    snapshot: str | None,
    message: str | None,
) -> int:
    """Store folders as trees, and print a line `DIGEST  SOURCE` for each.

    The digest is that of the root, from which all of it can be had again: names, contents, links, and which
    files may be executed. Times, owners and other modes are not kept. A SOURCE may be a file or a link, too;
    its own name is not in the tree. No link is followed.

    If something cannot be read all that is wrong is listed, no root is printed, and the exit code is 1. No
    name is set then.
    """
    keeper = RefKeeper.of(ref, snapshot, message, len(sources))
    with settings.opened() as stores:
        job = _Job(settings, keeper, skip_unreadable, skip_special=special == "skip", metadata=metadata)
        blobs, directories = (
            stores.blobs(settings.service_name),
            directories_of(stores, settings.service_name),
        )
        own = OwnPlaces(stores)
        with keeper.keeping(stores, settings.service_name, blobs, directories):
            for source in sources:
                job.take(source, blobs, directories, own)
    if settings.json:
        emit_json({"trees": job.trees, "errors": job.errors})
    return job.exit_code


@attrs.define
class _Job:
    """What is being imported, and what came of it."""

    settings: Settings
    keeper: RefKeeper
    skip_unreadable: bool
    skip_special: bool
    metadata: bool = False
    exit_code: int = 0
    trees: list[dict[str, Any]] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)

    def take(self, source: str, blobs: BlobService, directories: DirectoryService, own: OwnPlaces) -> None:
        def leave_out(path: bytes) -> bool:
            return self._leaves_out(f"{source.rstrip('/')}/{os.fsdecode(path)}", own)

        verb = "" if self.settings.json else "stored"
        try:
            if Path(source).is_dir() and (reason := own.reason_against_all_in(source)):
                raise SourceError(f"cannot import {source!r}: it is {reason}")
            with ProgressMeter(noun="file", verb=verb, hidden=self.settings.quiet) as meter:

                def met(path: bytes) -> None:
                    meter.name = os.fsdecode(path)
                    meter.item_done()

                done = import_tree(
                    source,
                    blobs,
                    directories,
                    skip_unreadable=self.skip_unreadable,
                    skip_special=self.skip_special,
                    progress=meter.advance,
                    met=met,
                    leave_out=leave_out,
                )
        except SourceError as error:
            self.exit_code = FAILED
            if self.settings.json:
                self.errors.append({"path": source, **document_of(error, self.settings)})
            else:
                complain(f"castore: {self.settings.scrubbed(error.message)}")
            return
        if done.problems and self.exit_code != FAILED:
            self.exit_code = FAILED if done.node is None else INCOMPLETE
        metadata = None
        if self.metadata and done.node is not None:
            metadata = keep_metadata(source, done.node, blobs, directories)
        name = None if done.node is None else self.keeper.name(done.node, source, metadata)
        if self.settings.json:
            kept = None if metadata is None else metadata.sri
            self.trees.append({**_document(source, done), "metadata": kept, "ref": name})
            return
        _tell(source, done)
        if metadata is not None:
            complain(f"castore: the metadata of {source!r} are {metadata}")
        if name is not None:
            self.settings.remark(f"castore: it is `{name}`")

    def _leaves_out(self, path: str, own: OwnPlaces) -> bool:
        reason = own.reason_against(path)
        if reason is not None:
            complain(f"castore: left out {path!r}: it is {reason}")
        return reason is not None


def _tell(source: str, done: Imported) -> None:
    for problem in done.problems:
        complain(f"castore: {problem.message}")
    if done.node is None:
        way = "--skip-unreadable prints it all the same"
        complain(f"castore: {source!r} is not whole, so no root is printed; {way}")
    elif isinstance(done.node, SymlinkNode):
        emit(b"-> %s  %s\n" % (done.node.target, os.fsencode(source)))
    else:
        emit(b3sum_line(done.node.digest, source))


def _document(source: str, done: Imported) -> dict[str, Any]:
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
        "problems": problems,
    }
