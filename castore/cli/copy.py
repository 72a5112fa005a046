"""`castore copy`."""

from __future__ import annotations

from itertools import chain
from typing import Any

import click

from castore.cli.counting import count_blobs
from castore.cli.digests import digests_option, read_all_digests
from castore.cli.faults import FAILED, document_of
from castore.cli.options import complete_service, shared_options, workers_option
from castore.cli.output import complain, emit_json, emit_text, table
from castore.cli.parts import has_no_store, without_capability
from castore.cli.pools import pool_of
from castore.cli.progress import ProgressMeter
from castore.cli.roots import BlobFinder, as_blob, as_place
from castore.cli.settings import Settings
from castore.contract.capabilities import BlobLister
from castore.errors import UnsupportedError
from castore.text import size_text
from castore.trees.naming import TreeLookup, directories_of
from castore.upkeep import Copied, Copier, CopyCounts, TreeCopier, TreeStores

_EPILOG = """\b
Examples:
  castore copy --from local --to archive --all
  castore copy --from archive --to local DIGEST DIGEST
  castore copy --from archive --to local --digests keep.txt
  castore copy --from local --to archive --trees www@latest ROOT

\b
With --json, bytes before compression:
  {"trees", "directories": {"copied", "skipped"}, (with --trees)
   "blobs": {"copied", "skipped", "failed"},
   "chunks": {"copied", "skipped", "repeated"},
   "bytes": {"copied", "skipped", "repeated"},
   "errors": [{"digest", "code", "message"}]}
"""


@click.command("copy", epilog=_EPILOG)
@click.argument("named", metavar="[DIGEST]...", nargs=-1)
@click.option(
    "--from",
    "source",
    metavar="NAME",
    required=True,
    help="The service that has the blobs.",
    shell_complete=complete_service,
)
@click.option(
    "--to",
    "target",
    metavar="NAME",
    required=True,
    help="The service that shall have them.",
    shell_complete=complete_service,
)
@click.option("--all", "every", is_flag=True, help="Copy all blobs of the one to the other.")
@click.option("--trees", is_flag=True, help="Copy trees: what is named are roots, `ROOT[:PATH]`.")
@digests_option
@workers_option
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    named: tuple[str, ...],
    files: tuple[str, ...],
    source: str,
    target: str,
    every: bool,
    trees: bool,
    workers: int | None,
) -> int:
    """Copy blobs from one service of a composition to another; what is there already is not sent.

    Every byte is checked. A blob that cannot be copied does not keep the others from it; the exit code is
    1 then. After an interruption the same command copies what is left.

    With --trees the blobs and the directories of trees are copied. What is below a directory that is there is
    not looked at, where it cannot be there without.
    """
    _require_sense(named, files, every=every, trees=trees)
    digests = [] if trees else [as_blob(text) for text in named]
    if settings.service is not None:
        raise click.UsageError("`copy` takes --from NAME and --to NAME, and no --service.")
    if source == target:
        raise click.UsageError(f"--from and --to are both `{source}`.")
    failed: list[Copied] = []
    with settings.opened() as stores:
        origin, goal = stores.blobs(source), stores.blobs(target)
        if every and origin.capability(BlobLister) is None:
            raise UnsupportedError(without_capability(stores, source, "list its blobs", option="--from"))
        with pool_of(stores, workers, origin, goal) as pool, ProgressMeter(hidden=settings.quiet) as meter:
            whole = BlobFinder(stores, source).digests(digests)
            wanted = None if every else chain(whole, read_all_digests(files))
            if meter.active:
                # How long a list is turns out at its end: stdin is read only once.
                unknown = files or trees
                meter.items = count_blobs(origin, meter) if every else None if unknown else len(digests)
            copier: Copier | TreeCopier
            if trees:
                lookup = TreeLookup(stores, source)
                there = TreeStores(goal, directories_of(stores, target))
                copier = TreeCopier(TreeStores(origin, lookup.directories), there, pool, meter.advance)
                outcomes = copier.run([lookup.node(as_place(text)) for text in named])
            else:
                copier = Copier(origin, goal, pool, meter.advance)
                outcomes = copier.run(wanted)
            seen = 0
            try:
                for copied in outcomes:
                    now = copier.tally.blobs_copied + copier.tally.blobs_skipped + copier.tally.blobs_failed
                    meter.item_done(now - seen)
                    seen = now
                    if copied.error is not None:
                        failed.append(copied)
                        if not settings.json:
                            meter.step_aside()
                            complain(f"castore: {_words(copied, settings)}")
            except (KeyboardInterrupt, SystemExit):
                # A program that reads JSON is told what was copied, whatever ends it.
                if settings.json:
                    _show(copier, failed, settings)
                raise
        none = has_no_store(stores, source, settings)
    _show(copier, failed, settings)
    return FAILED if failed or none else 0


def _require_sense(named: tuple[str, ...], files: tuple[str, ...], *, every: bool, trees: bool) -> None:
    """Raise `click.UsageError` if it is not clear what is to be copied."""
    if trees:
        if every or files or not named:
            raise click.UsageError("--trees is for roots: name some, and give neither --all nor --digests.")
        for text in named:
            as_place(text)
    elif every == bool(named or files):
        raise click.UsageError("Give either digests, or --all.")


def _words(copied: Copied, settings: Settings) -> str:
    """Return what is wrong with a blob; an error about a chunk does not name it."""
    words = settings.scrubbed(str(copied.error))
    return words if str(copied.digest) in words else f"cannot copy blob {copied.digest}: {words}"


def _show(copier: Copier | TreeCopier, failed: list[Copied], settings: Settings) -> None:
    tally = copier.tally
    trees = copier if isinstance(copier, TreeCopier) else None
    if settings.json:
        document = _document(tally, failed, settings)
        if trees is not None:
            counts = {"copied": trees.directories_copied, "skipped": trees.directories_skipped}
            document = {"trees": trees.trees, "directories": counts, **document}
        emit_json(document)
        return
    rows = [
        ("copied", tally.blobs_copied, tally.chunks_copied, tally.bytes_copied),
        ("skipped", tally.blobs_skipped, tally.chunks_skipped, tally.bytes_skipped),
    ]
    cells = [(word, str(blobs), str(chunks), size_text(size)) for word, blobs, chunks, size in rows]
    if tally.chunks_repeated:
        cells.append(("repeated", "", str(tally.chunks_repeated), size_text(tally.bytes_repeated)))
    if failed:
        cells.append(("failed", str(tally.blobs_failed), "", ""))
    emit_text(table(("", "blobs", "chunks", "bytes"), cells, right=(1, 2, 3)))
    if trees is not None:
        copied, skipped = trees.directories_copied, trees.directories_skipped
        emit_text(f"trees  {trees.trees}, with {copied} directories copied and {skipped} there already\n")


def _document(tally: CopyCounts, failed: list[Copied], settings: Settings) -> dict[str, Any]:
    errors = [
        {"digest": str(copied.digest), **document_of(copied.error, settings)}
        for copied in failed
        if copied.error is not None
    ]
    return {
        "blobs": {
            "copied": tally.blobs_copied,
            "skipped": tally.blobs_skipped,
            "failed": tally.blobs_failed,
        },
        "chunks": {
            "copied": tally.chunks_copied,
            "skipped": tally.chunks_skipped,
            "repeated": tally.chunks_repeated,
        },
        "bytes": {
            "copied": tally.bytes_copied,
            "skipped": tally.bytes_skipped,
            "repeated": tally.bytes_repeated,
        },
        "errors": errors,
    }
