"""`castore stat`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import sub
from typing import Final

import click

from castore.cli.digests import digests_option, read_all_digests
from castore.cli.faults import FAILED, document_of
from castore.cli.options import shared_options, workers_option
from castore.cli.output import JsonRows, complain, emit_text, stdout_is_terminal, table
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.cli.short_digests import complete_digest, shown
from castore.cli.totals import show_totals
from castore.composition.composition import Composition
from castore.contract.batches import CALLS_AT_ONCE
from castore.contract.blobs import BlobService, ChunkMeta
from castore.contract.capabilities import ChunkSource
from castore.contract.chunk_list import ChunkList
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CastoreError, CorruptBlobError
from castore.format.blob_index import size_of
from castore.text import size_text
from castore.threads.pool import process_pool

_HEAD: Final = 10
_TAIL: Final = 3
_AT_ONCE: Final = 1 << 12

_EPILOG = """\b
Examples:
  castore stat
  castore stat DIGEST
  castore stat DIGEST --json | jq '.chunks[].digest'
  castore stat --digests keep.txt

\b
With --json, in bytes; a blob that is kept whole has no chunks:
  {"digest", "size", "chunks": [{"offset", "size", "digest"}]}
Of several blobs, or with --digests, only how many chunks:
  {"blobs": [{"digest", "size", "chunks"}],
   "errors": [{"digest", "code", "message"}]}
Without DIGEST; what the service does not tell is null:
  {"service", "blobs": {"count", "bytes", "unreadable"},
   "chunks": {"count", "bytes"},
   "stored": {"bytes", "used", "loose", "indexes", "other", "loose_chunks"},
   "deduplication", "compression"}
"""


@click.command("stat", epilog=_EPILOG)
@click.argument("digests", metavar="[DIGEST...]", nargs=-1, type=as_blob, shell_complete=complete_digest)
@digests_option
@click.option("--all", "every", is_flag=True, help="List all chunks with all digits, also on a terminal.")
@workers_option
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    digests: tuple[BlobPlace, ...],
    files: tuple[str, ...],
    every: bool,
    workers: int | None,
) -> int:
    """Show the size of a blob and the chunks that it is kept in, or without DIGEST all that there is.

    On a terminal a long list of chunks is shortened, and so are their digests; `--all` shows all. Of several
    blobs, or with --digests, there is a line `DIGEST  SIZE  CHUNKS` for each, in bytes; one that is kept
    whole has no chunks. The exit code is 1 if one cannot be found.

    For what there is in all, each index is read, and each blob that is a single chunk.
    """
    with settings.opened() as stores:
        whole = BlobFinder(stores, settings.service_name).digests(digests)
        if len(digests) > 1 or files:
            return _show_many(stores, settings, chain(whole, read_all_digests(files)))
        if digests:
            _show_blob(stores, settings, next(whole), every=every)
        else:
            show_totals(stores, settings, workers)
    return 0


def _show_many(stores: Composition, settings: Settings, digests: Iterable[B3Digest]) -> int:
    """Write a line for each blob; return the exit code."""
    service = stores.blobs(settings.service_name)
    errors = []
    document = JsonRows("blobs") if settings.json else None
    for digest, found in _look_up_many(service, digests, settings.service_name):
        if isinstance(found, CastoreError):
            errors.append({"digest": str(digest), **document_of(found, settings)})
            if document is None:
                complain(f"castore: {settings.scrubbed(found.message)}")
            continue
        size, count = found
        if document is None:
            emit_text(f"{shown(digest)}  {size:>12}  {count:>6}\n", flush=False)
        else:
            document.add({"digest": str(digest), "size": size, "chunks": count})
    if document is not None:
        document.end(errors=errors)
    return FAILED if errors else 0


def _look_up_many(
    service: BlobService, digests: Iterable[B3Digest], instance: str
) -> Iterator[tuple[B3Digest, tuple[int, int] | CastoreError]]:
    """Yield the size of each blob and how many chunks it is kept in, or why that is not known."""

    def look_up(digest: B3Digest) -> tuple[B3Digest, tuple[int, int] | CastoreError]:
        try:
            size, chunks = _look_up(service, digest, instance)
        except (BlobNotFoundError, CorruptBlobError) as error:
            return digest, error
        return digest, (size, len(chunks))

    store = service.capability(ChunkSource)
    if service.high_latency or (store is not None and store.high_latency):
        return process_pool().io_pool.map(look_up, digests, most=CALLS_AT_ONCE)
    return map(look_up, digests)


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
