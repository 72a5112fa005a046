"""What `castore stat` says of a service as a whole."""

from __future__ import annotations

from typing import Any

from castore.cli.output import emit_json, emit_text, table
from castore.cli.parts import named_parts, without_capability
from castore.cli.pools import pool_of
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.contract.capabilities import BlobLister
from castore.contract.upkeep import Inventory
from castore.errors import UnsupportedError
from castore.problems import listing
from castore.text import count_text, size_text
from castore.upkeep import Totals, total


def show_totals(stores: Composition, settings: Settings, workers: int | None) -> None:
    """Count what the service has, and write the numbers to stdout."""
    name = settings.service_name
    service = stores.blobs(name)
    itemised = service.capability(Inventory) is not None
    if not itemised and service.capability(BlobLister) is None:
        raise UnsupportedError(without_capability(stores, name, "list its blobs"))
    with pool_of(stores, workers, service) as pool, ProgressMeter(hidden=settings.quiet) as meter:

        def progress(size: int) -> None:
            meter.advance(size)
            meter.item_done()

        totals = total(service, pool=pool, progress=progress)
    if settings.json:
        emit_json(_document(name, totals))
        return
    emit_text(_table(totals))
    if not itemised:
        emit_text(f"\n`{name}` does not tell what it stores{_parts(stores, name)}\n")


def _parts(stores: Composition, name: str) -> str:
    parts = [
        part for part in named_parts(stores, name) if stores.blobs(part).capability(Inventory) is not None
    ]
    return f"; `castore stat --service NAME` does with {listing(parts)}" if parts else ""


def _table(totals: Totals) -> str:
    rows = [_row("blobs", totals.blobs, totals.blob_bytes)]
    shared = _times(totals.deduplication, "by de-duplication")
    rows.append(_row("chunks", totals.chunks, totals.chunk_bytes, shared))
    if totals.used_bytes is not None:
        rows.append(_row("compressed", None, totals.used_bytes, _times(totals.compression, "by compression")))
    if totals.loose_chunks:
        rows.append(_row("loose", totals.loose_chunks, totals.loose_bytes, "chunks that no blob is made of"))
    if totals.stored_bytes is not None:
        factor = totals.blob_bytes / totals.stored_bytes if totals.stored_bytes else None
        rows.append(_row("stored", None, totals.stored_bytes, _times(factor, "in all")))
    shown = table(("", "count", "size", ""), rows, right=(1, 2))
    if totals.unreadable:
        blobs = count_text(totals.unreadable, "more blob")
        shown += f"\n{blobs} cannot be read: `castore verify` says why\n"
    return shown


def _row(name: str, count: int | None, size: int | None, words: str = "") -> tuple[str, str, str, str]:
    return name, "" if count is None else str(count), "" if size is None else size_text(size), words


def _times(factor: float | None, by: str) -> str:
    return "" if factor is None else f"{factor:.2f} x {by}"


def _document(name: str, totals: Totals) -> dict[str, Any]:
    return {
        "service": name,
        "blobs": {"count": totals.blobs, "bytes": totals.blob_bytes, "unreadable": totals.unreadable},
        "chunks": {"count": totals.chunks, "bytes": totals.chunk_bytes},
        "stored": {
            "bytes": totals.stored_bytes,
            "used": totals.used_bytes,
            "loose": totals.loose_bytes,
            "indexes": totals.index_bytes,
            "other": totals.other_bytes,
            "loose_chunks": totals.loose_chunks,
        },
        "deduplication": None if totals.deduplication is None else round(totals.deduplication, 3),
        "compression": None if totals.compression is None else round(totals.compression, 3),
    }
