"""`castore put`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import click

from castore.cli.options import shared_options
from castore.cli.output import is_terminal
from castore.cli.own_places import OwnPlaces
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.cli.storing import HopelessError, Job
from castore.cli.walk import find_files

_EPILOG = """\b
Examples:
  castore put photo.raw notes.txt
  castore put photos/ | b3sum --check
  tar c src | castore put -

\b
With --json, sizes in bytes:
  {"files": [{"digest", "path", "size"}], "skipped": [{"path", "reason"}],
   "errors": [{"path", "code", "message"}]}
"""


@click.command("put", epilog=_EPILOG)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(readable=False))
@shared_options
@click.pass_obj
def command(settings: Settings, paths: tuple[str, ...]) -> int:
    """Store files and print a line `DIGEST  PATH` for each, as b3sum does.

    `-` is stdin. A folder means all files in it, in sorted order; links, sockets, pipes and devices in it
    are skipped, and so is what the composition keeps its blobs in. A file that cannot be read does not keep
    the others from being stored.
    """
    with settings.opened() as stores, _meter(paths, settings, own := OwnPlaces(stores)) as meter:
        job = Job(stores.blobs(settings.service_name), meter, settings)
        # An interrupted one says what it has stored.
        with job.files if settings.json else contextlib.nullcontext(), contextlib.suppress(HopelessError):
            job.take_all(find_files(paths, own))
    if job.unsaid is not None:
        raise job.unsaid
    return job.exit_code


def _meter(paths: Sequence[str], settings: Settings, own: OwnPlaces) -> ProgressMeter:
    """Return a meter for what is to be stored; it is only counted beforehand if there is one to see it."""
    if settings.quiet or not is_terminal(sys.stderr):
        return ProgressMeter(hidden=True)
    sizes = [found.size() for found in find_files(paths, own) if not found.skipped]
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    return ProgressMeter(total, len(sizes), noun="file", verb="" if settings.json else "stored")
