"""`castore locate`."""

from __future__ import annotations

from typing import Any

import click

from castore.cli.faults import FAILED
from castore.cli.holdings import holding_row
from castore.cli.options import as_seconds, shared_options
from castore.cli.output import emit_json, emit_text, table
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.cli.short_digests import complete_digest, completed_anywhere
from castore.trees.naming import TreePlace
from castore.upkeep import Location, locate
from castore.upkeep.surveying import TIMEOUT

_EPILOG = """\b
Examples:
  castore locate DIGEST
  castore locate DIGEST --verify --service archive

\b
With --json; sizes in bytes, of different chunks; what is not known is null:
  {"digest", "found",
   "instances": [{"instance", "type", "store", "state", "indexed",
                  "chunks", "chunks_present", "size", "size_present",
                  "cause", "verified"}]}
"""


@click.command("locate", epilog=_EPILOG)
@click.argument("blob", metavar="DIGEST", type=as_blob, shell_complete=complete_digest)
@click.option("--verify", is_flag=True, help="Read what each store has, and check every byte.")
@click.option(
    "--timeout",
    metavar="TIME",
    default=f"{TIMEOUT:g} s",
    type=as_seconds,
    help="How long to wait for a service, such as `2 s`. Default: 10 s.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, blob: BlobPlace, verify: bool, timeout: float) -> int:
    """Tell for each instance of the composition what it has of a blob.

    Stores are asked whether they have it, its index and its chunks, all at the same time; what is made of
    others has what a read through it would find. Nothing is written, and without --verify no bytes of the
    blob are read. With --service NAME, only that instance and those that it needs.

    The exit code is 0 if one of the stores has all of it, and with --verify found it right; else 1.
    """
    with settings.opened() as stores:
        if isinstance(blob, TreePlace):
            digest = BlobFinder(stores, settings.service_name).digest(blob)
        else:
            digest = completed_anywhere(blob, stores, settings.service, timeout)
        found = locate(stores, digest, name=settings.service, verify=verify, timeout=timeout)
    whole = any(entry.store and entry.holding.state == "whole" for entry in found)
    if settings.json:
        document = [_row(entry, settings) for entry in found]
        emit_json({"digest": str(digest), "found": whole, "instances": document})
    else:
        heads = ("instance", "type", "holds", "verified") if verify else ("instance", "type", "holds")
        cells = [
            (entry.instance, entry.type, settings.scrubbed(entry.holding.in_short), _verified(entry))
            for entry in found
        ]
        emit_text(table(heads, [row[: len(heads)] for row in cells]))
    return 0 if whole else FAILED


def _verified(entry: Location) -> str:
    return {True: "yes", False: "no", None: ""}[entry.verified]


def _row(entry: Location, settings: Settings) -> dict[str, Any]:
    return {
        "instance": entry.instance,
        "type": entry.type,
        "store": entry.store,
        **holding_row(entry.holding, settings),
        "verified": entry.verified,
    }
