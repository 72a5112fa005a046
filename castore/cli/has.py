"""`castore has`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import click

from castore.cli.digests import digests_option, read_all_digests, require_digests
from castore.cli.faults import FAILED
from castore.cli.options import shared_options
from castore.cli.output import JsonRows, emit_text
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.cli.short_digests import complete_digest, find, shown
from castore.composition.composition import Composition
from castore.contract.batches import MOST_ITEMS
from castore.digest import B3Digest
from castore.errors import NodeNotFoundError
from castore.format.nodes import DirectoryNode, FileNode
from castore.trees.naming import TreePlace

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
@click.argument("digests", metavar="DIGEST...", nargs=-1, type=as_blob, shell_complete=complete_digest)
@digests_option
@shared_options
@click.pass_obj
def command(settings: Settings, digests: tuple[BlobPlace, ...], files: tuple[str, ...]) -> int:
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


def _answers(stores: Composition, name: str, blobs: Iterable[BlobPlace]) -> Iterator[tuple[str, bool]]:
    """Yield each digest, and whether it is there; they are asked for some at a time."""
    service = stores.blobs(name)
    finder = BlobFinder(stores, name)
    remaining = iter(blobs)
    while batch := list(islice(remaining, MOST_ITEMS)):
        found = [
            _in_tree(finder, blob) if isinstance(blob, TreePlace) else (find(blob, stores, name), None)
            for blob in batch
        ]
        asked = {digest for digest, present in found if digest is not None and present is None}
        there = asked - service.missing(asked)
        for blob, (digest, present) in zip(batch, found, strict=True):
            # What only begins a digest that is not there stays as it was written.
            yield str(digest or blob), digest in there if present is None else present


def _in_tree(finder: BlobFinder, place: TreePlace) -> tuple[B3Digest | None, bool | None]:
    """Return the digest of what a tree has at a place, and whether it is there if it is no blob."""
    try:
        node = finder.lookup.find(place, follow=True)
    except NodeNotFoundError:
        return None, False
    match node:
        case FileNode():
            return node.digest, None
        case DirectoryNode():
            return node.digest, finder.lookup.directories.has(node.digest)
        case _:
            return None, False
