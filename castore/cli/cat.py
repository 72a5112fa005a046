"""`castore cat`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options
from castore.cli.output import STDOUT, PlainText, emit
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore cat ROOT:docs/readme.md
  castore cat ROOT:a.csv ROOT:b.csv > both.csv
"""


@click.command("cat", epilog=_EPILOG)
@click.argument("files", metavar="ROOT:PATH...", nargs=-1, required=True, type=as_place)
@click.option("--raw", is_flag=True, help="Write to a terminal also what is no text.")
@shared_options
@click.pass_obj
def command(settings: Settings, *, files: tuple[TreePlace, ...], raw: bool) -> None:
    """Write files of trees to stdout, one after the other. Every byte is checked before it is written.

    Links within a tree are followed.
    """
    name = settings.service_name
    with settings.opened() as stores:
        blobs, lookup = stores.blobs(name), TreeLookup(stores, name)
        for place in files:
            with blobs.open(lookup.file(place).digest) as reader:
                write = (
                    PlainText("`--raw` writes it all the same") if STDOUT.is_terminal and not raw else emit
                )
                while piece := reader.read_view():
                    write(piece)
