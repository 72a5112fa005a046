"""`castore list`."""

from __future__ import annotations

import click

from castore.cli.faults import FAILED
from castore.cli.options import shared_options
from castore.cli.output import emit_json_rows, emit_text, stdout_is_terminal
from castore.cli.parts import has_no_store, without_capability
from castore.cli.settings import Settings
from castore.cli.short_digests import shown
from castore.composition.composition import Composition
from castore.contract.capabilities import BlobLister
from castore.errors import UnsupportedError

_EPILOG = """\b
Examples:
  castore list
  castore --service archive list | wc -l

\b
With --json:
  {"digests": [...]}
"""


@click.command("list", epilog=_EPILOG)
@click.option("--full", is_flag=True, help="Print all 64 digits, also on a terminal.")
@shared_options
@click.pass_obj
def command(settings: Settings, *, full: bool) -> int:
    """Print the digests of all blobs of a service, one per line, in no particular order.

    A terminal shows the first 16 digits, which every other command takes as well.
    """
    with settings.opened() as stores:
        lister = _lister(stores, settings.service_name)
        if settings.json:
            emit_json_rows("digests", map(str, lister.list_blobs()))
        else:
            at_once = stdout_is_terminal()
            for digest in lister.list_blobs():
                emit_text(f"{shown(digest, full=full)}\n", flush=at_once)
        return FAILED if has_no_store(stores, settings.service_name, settings) else 0


def _lister(stores: Composition, name: str) -> BlobLister:
    lister = stores.blobs(name).capability(BlobLister)
    if lister is None:
        raise UnsupportedError(without_capability(stores, name, "list its blobs"))
    return lister
