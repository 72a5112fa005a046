"""`castore gc`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from castore.cli.digests import read_digests
from castore.cli.options import as_seconds, shared_options
from castore.cli.output import complain, emit_json, emit_text, table
from castore.cli.parts import named_parts
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, completed
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.upkeep import StoredItem, Sweepable
from castore.digest import B3Digest
from castore.errors import UnsupportedError
from castore.problems import listing
from castore.text import size_text
from castore.upkeep import Collected, MissingRootsError, collect
from castore.upkeep.collecting import ItemKind

_KINDS: Final[dict[ItemKind, tuple[str, str]]] = {
    "index": ("blobs", "blobs"),
    "chunk": ("chunks", "chunks"),
    "residue": ("residue", "left-over files"),
}
"""What the kinds of items are called in JSON and in text."""

_EPILOG = """\b
Examples:
  castore --service archive gc --roots keep.txt --dry-run
  castore --service archive gc --roots keep.txt --grace "30 d"
  psql -At -c 'select digest from files' | castore gc --roots -

\b
With --json, sizes in bytes of what is stored, times in seconds since 1970:
  {"service", "dry_run", "cutoff", "held_since", "roots", "missing": [...],
   "blobs": {"gone": {"count", "bytes"}, "kept": {"count", "bytes"}},
   "chunks": ..., "residue": ...,
   "items": [{"kind", "key", "digest", "size", "modified"}]}
"""


@click.command("gc", epilog=_EPILOG)
@click.argument("digests", metavar="[DIGEST...]", nargs=-1, type=as_digest)
@click.option(
    "--roots",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Keep the blobs whose digests are in FILE, at the start of its lines; `-` is stdin.",
)
@click.option(
    "--grace",
    metavar="TIME",
    default="7 d",
    show_default=True,
    type=as_seconds,
    help="Keep what was stored, or found there by a writer, within this time.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing; show what would go.")
@click.option("--no-roots", is_flag=True, help="Go on without any roots: all that is old goes.")
@click.option("--ignore-missing-roots", is_flag=True, help="Go on if a root is not there.")
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    digests: tuple[B3Digest | ShortDigest, ...],
    files: tuple[str, ...],
    grace: float,
    dry_run: bool,
    no_roots: bool,
    ignore_missing_roots: bool,
) -> None:
    """Remove what is old and reached by no root: blobs, chunks, and what killed writers have left behind.

    The roots are the DIGESTs, those in the files of --roots, and what installed plugins refer to. Writers may
    go on meanwhile.
    """
    started = time.time()
    with settings.opened() as stores, ProgressMeter(None) as meter:
        _require_sweepable(stores, settings.service_name)
        named = [completed(digest, stores, settings.service_name) for digest in digests]
        roots = {*named, *(digest for file in files for digest in read_digests(file)), *stores.roots()}
        if not roots and not no_roots:
            raise click.UsageError(
                "There are no roots, so all that is old would go. Name the blobs to keep, as arguments or"
                " with --roots FILE; say --no-roots if there are none."
            )
        gone: list[StoredItem] = []
        try:
            collected = collect(
                stores.blobs(settings.service_name),
                roots,
                grace_seconds=grace,
                dry_run=dry_run,
                no_roots=no_roots,
                ignore_missing_roots=ignore_missing_roots,
                pool=stores.pool,
                clock=lambda: started,
                on_gone=gone.append if settings.json else None,
                progress=meter.advance,
            )
        except MissingRootsError as error:
            error.args = (f"{error.message}; with --ignore-missing-roots the others are kept alone",)
            raise
    if settings.json:
        emit_json(_document(settings, collected, gone, dry_run=dry_run))
        return
    _show(collected, settings, dry_run=dry_run)


def _require_sweepable(stores: Composition, name: str) -> None:
    if stores.blobs(name).capability(Sweepable) is not None:
        return
    parts = [
        part for part in named_parts(stores, name) if stores.blobs(part).capability(Sweepable) is not None
    ]
    hint = f"; of its parts, use `--service NAME` with {listing(parts)}" if parts else ""
    tag = stores.instance(BlobService, name).type.tag
    raise UnsupportedError(f"`{name}`, a `{tag}`, cannot be collected{hint}")


def _document(
    settings: Settings, collected: Collected, gone: Sequence[StoredItem], *, dry_run: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "service": settings.service_name,
        "dry_run": dry_run,
        "cutoff": collected.cutoff,
        "held_since": collected.leased_since,
        "roots": collected.roots,
        "missing": [str(digest) for digest in collected.missing],
    }
    for kind, (name, _) in _KINDS.items():
        amounts = {"gone": collected.gone[kind], "kept": collected.kept(kind)}
        document[name] = {
            word: {"count": amount.count, "bytes": amount.size} for word, amount in amounts.items()
        }
    document["items"] = [
        {
            "kind": item.kind,
            "key": item.key,
            "digest": None if item.digest is None else str(item.digest),
            "size": item.size,
            "modified": item.modified,
        }
        for item in gone
    ]
    return document


def _show(collected: Collected, settings: Settings, *, dry_run: bool) -> None:
    if collected.missing:
        count = len(collected.missing)
        verb = "is" if count == 1 else "are"
        complain(f"castore: {count} of the roots {verb} not in `{settings.service_name}`")
    if collected.leased_since is not None:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(collected.leased_since))
        complain(f"castore: a writer is busy since {since}; what was stored since then stays")
    rows = []
    for kind, (_, name) in _KINDS.items():
        gone, kept = collected.gone[kind], collected.kept(kind)
        rows.append((name, str(gone.count), size_text(gone.size), str(kept.count), size_text(kept.size)))
    heads = ("", "would go" if dry_run else "gone", "size", "kept", "size")
    emit_text(table(heads, rows, right=(1, 2, 3, 4)))
