"""`castore stat`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import click

from castore.cli.options import shared_options, workers_option
from castore.cli.output import emit_json, emit_text, stdout_is_terminal, table
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, completed, shown
from castore.cli.totals import show_totals
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService, ChunkMeta
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError
from castore.text import size_text

_HEAD: Final = 10
_TAIL: Final = 3

_EPILOG = """\b
Examples:
  castore stat
  castore stat DIGEST
  castore stat DIGEST --json | jq '.chunks[].digest'

\b
With --json, in bytes; a blob that is kept whole has no chunks:
  {"digest", "size", "chunks": [{"offset", "size", "digest"}]}
Without DIGEST; what the service does not tell is null:
  {"service", "blobs": {"count", "bytes", "unreadable"},
   "chunks": {"count", "bytes"},
   "stored": {"bytes", "used", "loose", "indexes", "other", "loose_chunks"},
   "deduplication", "compression"}
"""


@click.command("stat", epilog=_EPILOG)
@click.argument("digest", metavar="[DIGEST]", required=False, type=as_digest)
@click.option("--all", "every", is_flag=True, help="List all chunks with all digits, also on a terminal.")
@workers_option
@shared_options
@click.pass_obj
def command(
    settings: Settings, *, digest: B3Digest | ShortDigest | None, every: bool, workers: int | None
) -> None:
    """Show the size of a blob and the chunks that it is kept in, or without DIGEST all that there is.

    On a terminal a long list of chunks is shortened, and so are their digests; `--all` shows all.

    For what there is in all, each index is read, and each blob that is a single chunk.
    """
    with settings.opened() as stores:
        if digest is None:
            show_totals(stores, settings, workers)
        else:
            _show_blob(stores, settings, completed(digest, stores, settings.service_name), every=every)


def _show_blob(stores: Composition, settings: Settings, digest: B3Digest, *, every: bool) -> None:
    size, chunks = _look_up(stores.blobs(settings.service_name), digest, settings.service_name)
    offsets = [0, *accumulate(chunk.size for chunk in chunks)]
    if settings.json:
        rows = [
            {"offset": offset, "size": chunk.size, "digest": str(chunk.digest)}
            for offset, chunk in zip(offsets, chunks, strict=False)
        ]
        emit_json({"digest": str(digest), "size": size, "chunks": rows})
        return
    emit_text(_summary(digest, size, chunks))
    if chunks:
        cells = [
            (str(offset), str(chunk.size), shown(chunk.digest, full=every))
            for offset, chunk in zip(offsets, chunks, strict=False)
        ]
        shorten = not every and stdout_is_terminal() and len(cells) > _HEAD + _TAIL + 1
        emit_text("\n" + _shortened(cells) if shorten else "\n" + _table(cells))


def _look_up(service: BlobService, digest: B3Digest, instance: str) -> tuple[int, Sequence[ChunkMeta]]:
    chunks = service.chunks(digest)
    if chunks:
        return sum(chunk.size for chunk in chunks), chunks
    reader = service.open_read(digest)
    if reader is None:
        raise BlobNotFoundError(digest, instance=instance)
    with reader:
        return reader.size, ()


def _summary(digest: B3Digest, size: int, chunks: Sequence[ChunkMeta]) -> str:
    amount = f"{size} bytes ({size_text(size)})" if size >= 1024 else size_text(size)
    count = str(len(chunks)) if chunks else "none: it is kept whole"
    distinct = len({chunk.digest for chunk in chunks})
    if distinct < len(chunks):
        count += f" ({distinct} different)"
    return f"digest  {digest}\nsize    {amount}\nchunks  {count}\n"


def _table(cells: Sequence[tuple[str, str, str]]) -> str:
    return table(("offset", "size", "digest"), cells, right=(0, 1))


def _shortened(cells: Sequence[tuple[str, str, str]]) -> str:
    rows = _table([*cells[:_HEAD], *cells[-_TAIL:]]).splitlines(keepends=True)
    left_out = f"... {len(cells) - _HEAD - _TAIL} more; `--all` lists them\n"
    return "".join([*rows[: _HEAD + 1], left_out, *rows[_HEAD + 1 :]])
