"""`castore stat`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from operator import sub
from typing import Final

import click

from castore.cli.options import shared_options, workers_option
from castore.cli.output import emit_text, stdout_is_terminal, table
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, completed, shown
from castore.cli.totals import show_totals
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.chunk_list import ChunkList
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError
from castore.format.blob_index import size_of
from castore.text import size_text

_HEAD: Final = 10
_TAIL: Final = 3
_AT_ONCE: Final = 1 << 12

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
    if settings.json:
        _emit_document(digest, size, chunks)
        return
    emit_text(_summary(digest, size, chunks))
    if chunks:
        _emit_table(chunks, every=every)


def _emit_document(digest: B3Digest, size: int, chunks: Sequence[ChunkMeta]) -> None:
    """Write the document as `json.dumps` would, some chunks at a time: there may be millions."""
    begin, end = json.dumps({"digest": str(digest), "size": size, "chunks": []}, indent=2).rsplit("]", 1)
    emit_text(begin, flush=False)
    before = "\n"
    for part in _parts(chunks):
        rows = [
            f'    {{\n      "offset": {offset},\n      "size": {size},\n      "digest": "{digest}"\n    }}'
            for offset, size, digest in part
        ]
        emit_text(before + ",\n".join(rows), flush=False)
        before = ",\n"
    emit_text(f"\n  ]{end}\n" if chunks else f"]{end}\n")


def _emit_table(chunks: Sequence[ChunkMeta], *, every: bool) -> None:
    """Write a line for each chunk, some at a time."""
    offsets = ChunkList.of(chunks).offsets
    widest = max(map(sub, offsets[1:], offsets))
    # The head is aligned as the longest row is.
    longest = table(("offset", "size", "digest"), [(str(offsets[-2]), str(widest), "")], right=(0, 1))
    first, second = max(6, len(str(offsets[-2]))), max(4, len(str(widest)))
    emit_text("\n" + longest.partition("\n")[0] + "\n", flush=False)
    shorten = not every and stdout_is_terminal() and len(chunks) > _HEAD + _TAIL + 1
    left_out = range(_HEAD, len(chunks) - _TAIL) if shorten else range(0)
    digits = len(shown("0" * 64, full=every))
    number = 0
    for part in _parts(chunks):
        rows = [f"{offset:>{first}}  {size:>{second}}  {digest[:digits]}\n" for offset, size, digest in part]
        if left_out:
            rows = [row for at, row in enumerate(rows, number) if at not in left_out]
            if left_out.start in range(number, number + len(part)):
                rows.insert(_HEAD - number, f"... {len(left_out)} more; `--all` lists them\n")
        emit_text("".join(rows), flush=False)
        number += len(part)
    emit_text("")


def _parts(chunks: Sequence[ChunkMeta]) -> Iterator[list[tuple[int, int, str]]]:
    """Yield the offset, the size and the digest of all chunks, some at a time."""
    packed = ChunkList.of(chunks)
    offsets = packed.offsets
    for start in range(0, len(packed), _AT_ONCE):
        part = range(start, min(start + _AT_ONCE, len(packed)))
        yield [
            (offsets[number], offsets[number + 1] - offsets[number], digest.hex())
            for number, digest in zip(part, packed.raw_digests(part), strict=True)
        ]


def _look_up(service: BlobService, digest: B3Digest, instance: str) -> tuple[int, Sequence[ChunkMeta]]:
    chunks = service.chunks(digest)
    if chunks:
        return size_of(chunks), chunks
    reader = service.open_read(digest)
    if reader is None:
        raise BlobNotFoundError(digest, instance=instance)
    with reader:
        return reader.size, ()


def _summary(digest: B3Digest, size: int, chunks: Sequence[ChunkMeta]) -> str:
    amount = f"{size} bytes ({size_text(size)})" if size >= 1024 else size_text(size)
    count = str(len(chunks)) if chunks else "none: it is kept whole"
    distinct = ChunkList.of(chunks).count_distinct()
    if distinct < len(chunks):
        count += f" ({distinct} different)"
    return f"digest  {digest}\nsize    {amount}\nchunks  {count}\n"
