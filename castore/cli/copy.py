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
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.contract.capabilities import BlobLister
from castore.errors import UnsupportedError
from castore.text import size_text
from castore.upkeep import Copied, Copier, CopyCounts

_EPILOG = """\b
Examples:
  castore copy --from local --to archive --all
  castore copy --from archive --to local DIGEST DIGEST
  castore copy --from archive --to local --digests keep.txt

\b
With --json, bytes before compression:
  {"blobs": {"copied", "skipped", "failed"},
   "chunks": {"copied", "skipped", "repeated"},
   "bytes": {"copied", "skipped", "repeated"},
   "errors": [{"digest", "code", "message"}]}
"""


@click.command("copy", epilog=_EPILOG)
@click.argument("digests", metavar="[DIGEST]...", nargs=-1, type=as_blob)
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
@digests_option
@workers_option
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    digests: tuple[BlobPlace, ...],
    files: tuple[str, ...],
    source: str,
    target: str,
    every: bool,
    workers: int | None,
) -> int:
    """Copy blobs from one service of a composition to another; what is there already is not sent.

    Every byte is checked. A blob that cannot be copied does not keep the others from it; the exit code is
    1 then. After an interruption the same command copies what is left.
    """
    if every == bool(digests or files):
        raise click.UsageError("Give either digests, or --all.")
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
            named = None if every else chain(whole, read_all_digests(files))
            if meter.active:
                # How long a list is turns out at its end: stdin is read only once.
                meter.items = count_blobs(origin, meter) if every else None if files else len(digests)
            copier = Copier(origin, goal, pool, meter.advance)
            seen = 0
            try:
                for copied in copier.run(named):
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
                    _show(copier.tally, failed, settings)
                raise
        none = has_no_store(stores, source, settings)
    _show(copier.tally, failed, settings)
    return FAILED if failed or none else 0


def _words(copied: Copied, settings: Settings) -> str:
    """Return what is wrong with a blob; an error about a chunk does not name it."""
    words = settings.scrubbed(str(copied.error))
    return words if str(copied.digest) in words else f"cannot copy blob {copied.digest}: {words}"


def _show(tally: CopyCounts, failed: list[Copied], settings: Settings) -> None:
    if settings.json:
        emit_json(_document(tally, failed, settings))
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
