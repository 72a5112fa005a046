"""`castore has`."""

from __future__ import annotations

import click

from castore.cli.faults import FAILED
from castore.cli.options import as_digest, shared_options
from castore.cli.output import emit_json, emit_text
from castore.cli.settings import Settings
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
def command(settings: Settings, digests: tuple[B3Digest, ...]) -> int:
    """Print for each digest a line `DIGEST  present` or `DIGEST  absent`.

    It is present if the service has a blob, or a chunk, of this digest. The exit code is 0 if all are
    present, else 1.
    """
    with settings.blobs() as service:
        missing = service.missing(digests)
    if settings.json:
        blobs = [{"digest": str(digest), "present": digest not in missing} for digest in digests]
        emit_json({"blobs": blobs})
    else:
        words = {True: "absent", False: "present"}
        emit_text("".join(f"{digest}  {words[digest in missing]}\n" for digest in digests))
    return FAILED if missing else 0
