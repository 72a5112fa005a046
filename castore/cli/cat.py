"""`castore cat`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options
from castore.cli.output import emit
from castore.cli.roots import NoRootError, TreePlace, as_place, directories_of, node_at
from castore.cli.settings import Settings
from castore.format.nodes import FileNode

_EPILOG = """\b
Examples:
  castore cat ROOT:docs/readme.md
  castore cat ROOT:a.csv ROOT:b.csv > both.csv
"""


@click.command("cat", epilog=_EPILOG)
@click.argument("files", metavar="ROOT:PATH...", nargs=-1, required=True, type=as_place)
@shared_options
@click.pass_obj
def command(settings: Settings, files: tuple[TreePlace, ...]) -> None:
    """Write files of trees to stdout, one after the other. Every byte is checked before it is written.

    No link is followed.
    """
    name = settings.service_name
    with settings.opened() as stores:
        blobs, directories = stores.blobs(name), directories_of(stores, name)
        for place in files:
            node = node_at(place, stores, name, directories)
            if not isinstance(node, FileNode):
                raise NoRootError(f"{place} is no file, and has no contents to be shown; see `castore ls`")
            with blobs.open(node.digest) as reader:
                while piece := reader.read_view():
                    emit(piece)
