"""`castore get`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final

import click

from castore.cli.digests import digests_option, read_all_digests, require_digests
from castore.cli.files import is_replaced, is_stdout, replacing
from castore.cli.getting import Getter, copy_blob, naming
from castore.cli.options import as_size, shared_options
from castore.cli.output import STDOUT, OutputError, PlainText, emit, emit_json, stdout_is_terminal
from castore.cli.progress import ProgressMeter
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.cli.short_digests import complete_digest
from castore.composition.composition import Composition
from castore.contract.blobs import BlobReader
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CorruptBlobError, InvalidSeekError
from castore.trees.naming import TreePlace

_STDOUT: Final = "-"

_EPILOG = """\b
Examples:
  castore get DIGEST -o photo.raw
  castore get DIGEST -o archive.tar && tar xf archive.tar
  castore get DIGEST --offset 1GiB --length 512 | xxd
  castore get ROOT:docs/readme.md > readme.md
  castore get --digests keep.txt -o folder/

\b
With --json and -o, in bytes; without -o stdout is the blob:
  {"digest", "path", "offset", "size", "verified"}
Into a folder:
  {"files": [{"digest", "path", "size"}],
   "errors": [{"digest", "code", "message"}]}
"""


@click.command("get", epilog=_EPILOG)
@click.argument("digests", metavar="DIGEST...", nargs=-1, type=as_blob, shell_complete=complete_digest)
@click.option(
    "-o",
    "--output",
    metavar="FILE|FOLDER",
    type=click.Path(readable=False, allow_dash=True),
    help="Write to FILE, which appears, or is replaced, when all of it is there; or into FOLDER.",
)
@digests_option
@click.option("--offset", metavar="N", type=as_size, default=0, help="Begin at byte N, from 0.")
@click.option("--length", metavar="N", type=as_size, help="Write N bytes at most.")
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    digests: tuple[BlobPlace, ...],
    output: str | None,
    files: tuple[str, ...],
    offset: int,
    length: int | None,
) -> int:
    """Write blobs, or a part of one, to a file, into a folder or to stdout.

    DIGEST is 64 hex digits, the first 8 or more of them, or `blake3-` and base64. Each chunk is checked
    before a byte of it is written, the whole blob before its last one: an error takes back what went to a
    pipe until then. Sizes may have units, such as `64KiB`. A terminal gets what is no text only with
    `-o -`.

    Several blobs are written to stdout one after the other, or into FOLDER, where one that cannot be had
    keeps no other away. There they are named by their digests, files of trees by their names.
    """
    require_digests(digests, files)
    to_stdout = output is None or output == _STDOUT or is_stdout(output)
    path = _STDOUT if output is None or to_stdout else output
    several = len(digests) > 1 or bool(files)
    folder = None if to_stdout else _as_folder(path, several=several)
    if (several or folder is not None) and (offset or length is not None):
        raise click.UsageError("--offset and --length are for one blob, to one file or stdout.")
    with settings.opened() as stores:
        whole = BlobFinder(stores, settings.service_name).digests(digests)
        if not several and folder is None:
            write = _to_stdout(output)
            _get_one(stores, settings, next(whole), path, to_stdout=write, offset=offset, length=length)
            return 0
        items = None if files else len(digests)
        with _meter(path, None, settings, items) as meter:
            getter = Getter(stores.blobs(settings.service_name), meter, settings)
            listed = read_all_digests(files)
            if folder is not None:
                named = _names(digests, whole)
                return getter.fill(folder, chain(named, ((digest, str(digest)) for digest in listed)))
            getter.write_all(chain(whole, listed), _to_stdout(output))
    return 0


def _names(given: Sequence[BlobPlace], digests: Iterator[B3Digest]) -> list[tuple[B3Digest, str]]:
    """Return each digest with the name of its file: the last one of a path, else the digest itself.

    Two that would have one name are wrong usage.
    """
    names: dict[str, tuple[B3Digest, BlobPlace]] = {}
    for place, digest in zip(given, digests, strict=True):
        in_tree = isinstance(place, TreePlace) and place.path
        name = os.fsdecode(place.path[-1]) if in_tree else str(digest)  # type: ignore[union-attr]
        other = names.setdefault(name, (digest, place))
        if other[0] != digest:
            raise click.UsageError(
                f"{other[1]} and {place} would both be named {name!r}; get them into two folders."
            )
    return [(digest, name) for name, (digest, _) in names.items()]


def _as_folder(path: str, *, several: bool) -> str | None:
    """Return *path* if it is a folder, which is made if it says that it is one."""
    if path.endswith("/"):
        try:
            os.makedirs(path, exist_ok=True)  # noqa: PTH103 - the user's string
        except OSError as error:
            raise OutputError(f"cannot make the folder {path!r}: {error.strerror}") from error
        return path
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return path
    if several:
        raise click.UsageError(
            f"Several blobs go into a folder, which {path!r} is not; `-o {path}/` makes one."
        )
    return None


def _to_stdout(output: str | None) -> Callable[[memoryview], Any]:
    """Return what writes to stdout: to a terminal only text, unless somebody asks for it by name."""
    if output is not None or not STDOUT.is_terminal:
        return emit
    return PlainText("`-o FILE` writes it to a file, `-o -` to the terminal all the same")


def _get_one(
    stores: Composition,
    settings: Settings,
    digest: B3Digest,
    path: str,
    *,
    to_stdout: Callable[[memoryview], Any],
    offset: int,
    length: int | None,
) -> None:
    def get() -> tuple[int, bool]:
        reader = stores.blobs(settings.service_name).open_read(digest)
        if reader is None:
            raise BlobNotFoundError(digest, instance=settings.service_name)
        with reader:
            size = _go_to(reader, offset, digest)
            count = size - offset if length is None else min(length, size - offset)
            with (
                contextlib.nullcontext(to_stdout) if path == _STDOUT else replacing(path, count) as write,
                _meter(path, count, settings, 1) as meter,
            ):
                copy_blob(reader, count, write, meter)
                meter.item_done()
            return count, reader.verified

    try:
        try:
            count, verified = get()
        except CorruptBlobError as error:
            # What was written to stdout, or a pipe, cannot be taken back.
            if not error.passed_over or not is_replaced(path):
                raise
            count, verified = get()
    except CorruptBlobError as error:
        raise naming(error, digest) from error.__cause__
    if settings.json and path != _STDOUT:
        emit_json(
            {"digest": str(digest), "path": path, "offset": offset, "size": count, "verified": verified}
        )


def _go_to(reader: BlobReader, offset: int, digest: B3Digest) -> int:
    """Seek to *offset*; return the size of the blob."""
    if offset > reader.size:
        raise InvalidSeekError(
            f"the offset {offset} is beyond the end of blob {digest}, which has {reader.size} bytes"
        )
    if offset:
        reader.seek(offset)
    return reader.size


def _meter(path: str, total: int | None, settings: Settings, items: int | None) -> ProgressMeter:
    """Return a meter, unless it would draw into the blob on the terminal."""
    to_stdout = path == _STDOUT
    hidden = settings.quiet or (to_stdout and stdout_is_terminal())
    meter = ProgressMeter(total, items, verb="" if settings.json else "got", hidden=hidden)
    meter.name = "" if to_stdout else path
    return meter
