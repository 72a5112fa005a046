"""`castore get`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from castore.cli.files import is_replaced, is_stdout, replacing
from castore.cli.options import as_size, shared_options
from castore.cli.output import emit, emit_json, stdout_is_terminal
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, completed
from castore.contract.blobs import BlobReader
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CorruptBlobError, InvalidSeekError

_PIECE: Final = 1 << 20
_STDOUT: Final = "-"

_EPILOG = """\b
Examples:
  castore get DIGEST -o photo.raw
  castore get DIGEST -o archive.tar && tar xf archive.tar
  castore get DIGEST --offset 1GiB --length 512 | xxd

\b
With --json and -o, in bytes; without -o stdout is the blob:
  {"digest", "path", "offset", "size", "verified"}
"""


@click.command("get", epilog=_EPILOG)
@click.argument("digest", metavar="DIGEST", type=as_digest)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=_STDOUT,
    type=click.Path(dir_okay=False, readable=False, allow_dash=True),
    help="Write to FILE, which appears, or is replaced, when all of it is there.",
)
@click.option("--offset", metavar="N", type=as_size, default=0, help="Begin at byte N, from 0.")
@click.option("--length", metavar="N", type=as_size, help="Write N bytes at most.")
@shared_options
@click.pass_obj
def command(
    settings: Settings, digest: B3Digest | ShortDigest, output: str, offset: int, length: int | None
) -> None:
    """Write a blob, or a part of it, to a file or to stdout.

    DIGEST is 64 hex digits, the first 8 or more of them, or `blake3-` and base64. Each chunk is checked
    before a byte of it is written, the whole blob before its last one: an error takes back what went to a
    pipe until then. Sizes may have units, such as `64KiB`.
    """
    if is_stdout(output):
        output = _STDOUT
    with settings.opened() as stores, contextlib.ExitStack() as stack:
        digest = completed(digest, stores, settings.service_name)
        stack.enter_context(_naming(digest))

        def get() -> tuple[int, bool]:
            reader = stores.blobs(settings.service_name).open_read(digest)
            if reader is None:
                raise BlobNotFoundError(digest, instance=settings.service_name)
            with reader:
                size = _go_to(reader, offset, digest)
                count = size - offset if length is None else min(length, size - offset)
                with _destination(output, count) as write, _meter(output, count, settings) as meter:
                    _copy(reader, count, write, meter)
                    meter.item_done()
                return count, reader.verified

        try:
            count, verified = get()
        except CorruptBlobError as error:
            # What was written to stdout, or a pipe, cannot be taken back.
            if not error.passed_over or not is_replaced(output):
                raise
            count, verified = get()
    if settings.json and output != _STDOUT:
        emit_json(
            {"digest": str(digest), "path": output, "offset": offset, "size": count, "verified": verified}
        )


@contextlib.contextmanager
def _naming(digest: B3Digest) -> Iterator[None]:
    """See to it that an error about a chunk names the blob as well."""
    try:
        yield
    except CorruptBlobError as error:
        if str(digest) not in error.message:
            error.args = (f"cannot read blob {digest}: {error.message}", *error.args[1:])
        raise


def _go_to(reader: BlobReader, offset: int, digest: B3Digest) -> int:
    """Seek to *offset*; return the size of the blob."""
    if offset > reader.size:
        raise InvalidSeekError(
            f"the offset {offset} is beyond the end of blob {digest}, which has {reader.size} bytes"
        )
    if offset:
        reader.seek(offset)
    return reader.size


@contextlib.contextmanager
def _destination(output: str, count: int) -> Iterator[Callable[[memoryview], Any]]:
    if output == _STDOUT:
        yield emit
        return
    with replacing(output, count) as write:
        yield write


def _meter(output: str, total: int, settings: Settings) -> ProgressMeter:
    """Return a meter, unless it would draw into the blob on the terminal."""
    to_stdout = output == _STDOUT
    hidden = settings.quiet or (to_stdout and stdout_is_terminal())
    meter = ProgressMeter(total, 1, verb="" if settings.json else "got", hidden=hidden)
    meter.name = "" if to_stdout else output
    return meter


def _copy(reader: BlobReader, count: int, write: Callable[[memoryview], Any], meter: ProgressMeter) -> None:
    while count:
        view = reader.read_view(min(_PIECE, count))
        if not view:
            raise EOFError(f"the blob ends {count} bytes before its size")
        write(view)
        meter.advance(len(view))
        count -= len(view)
