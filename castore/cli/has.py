"""`castore has`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import click

from castore.cli.digests import digests_option, read_all_digests, require_digests
from castore.cli.faults import FAILED
from castore.cli.options import shared_options
from castore.cli.output import JsonRows, emit_text
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, find, shown
from castore.composition.composition import Composition
from castore.contract.batches import MOST_ITEMS
from castore.digest import B3Digest

_EPILOG = """\b
Examples:
  castore has DIGEST && echo there
  castore --service archive has DIGEST DIGEST
  castore list | castore --service archive has --digests - | grep absent

\b
With --json:
  {"blobs": [{"digest", "present"}]}
"""


@click.command("has", epilog=_EPILOG)
@click.argument("digests", metavar="DIGEST...", nargs=-1, type=as_digest)
@digests_option
@shared_options
@click.pass_obj
def command(settings: Settings, digests: tuple[B3Digest | ShortDigest, ...], files: tuple[str, ...]) -> int:
    """Print for each digest a line `DIGEST  present` or `DIGEST  absent`.

    It is present if the service has a blob, or a chunk, of this digest. The exit code is 0 if all are
    present, else 1.
    """
    require_digests(digests, files)
    document = JsonRows("blobs") if settings.json else None
    code = 0
    with settings.opened() as stores:
        for digest, present in _answers(
            stores, settings.service_name, chain(digests, read_all_digests(files))
        ):
            code = code if present else FAILED
            if document is not None:
                document.add({"digest": digest, "present": present})
            else:
                emit_text(f"{shown(digest)}  {'present' if present else 'absent'}\n", flush=False)
    if document is not None:
        document.end()
    return code


def _answers(
    stores: Composition, name: str, digests: Iterable[B3Digest | ShortDigest]
) -> Iterator[tuple[str, bool]]:
    """Yield each digest, and whether it is there; they are asked for some at a time."""
    service = stores.blobs(name)
    remaining = iter(digests)
    while batch := list(islice(remaining, MOST_ITEMS)):
        found = [find(digest, stores, name) for digest in batch]
        asked = {digest for digest in found if digest is not None}
        there = asked - service.missing(asked)
        for digest, whole in zip(batch, found, strict=True):
            # What only begins a digest that is not there stays as it was written.
            yield str(whole or digest), whole in there
