"""`castore has`."""

from __future__ import annotations

import click

from castore.cli.faults import FAILED
from castore.cli.options import shared_options
from castore.cli.output import emit_json, emit_text
from castore.cli.settings import Settings
from castore.cli.short_digests import ShortDigest, as_digest, find, shown
from castore.digest import B3Digest

_EPILOG = """\b
Examples:
  castore has DIGEST && echo there
  castore --service archive has DIGEST DIGEST

\b
With --json:
  {"blobs": [{"digest", "present"}]}
"""


@click.command("has", epilog=_EPILOG)
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True, type=as_digest)
@shared_options
@click.pass_obj
def command(settings: Settings, digests: tuple[B3Digest | ShortDigest, ...]) -> int:
    """Print for each digest a line `DIGEST  present` or `DIGEST  absent`.

    It is present if the service has a blob, or a chunk, of this digest. The exit code is 0 if all are
    present, else 1.
    """
    with settings.opened() as stores:
        found = {digest: find(digest, stores, settings.service_name) for digest in digests}
        asked = {digest for digest in found.values() if digest is not None}
        there = asked - stores.blobs(settings.service_name).missing(asked)
    # What only begins a digest that is not there stays as it was written.
    rows = [(str(found[digest] or digest), found[digest] in there) for digest in digests]
    if settings.json:
        emit_json({"blobs": [{"digest": digest, "present": present} for digest, present in rows]})
    else:
        words = {False: "absent", True: "present"}
        emit_text("".join(f"{shown(digest)}  {words[present]}\n" for digest, present in rows))
    return 0 if all(present for _, present in rows) else FAILED
