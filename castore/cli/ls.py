"""`castore ls`."""

from __future__ import annotations

import click

from castore.cli.entries import show_entries
from castore.cli.options import shared_options
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.format.nodes import DirectoryNode
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore ls ROOT
  castore ls -l ROOT:docs
  castore ls -R ROOT | wc -l

\b
With --json, one object on each line; an entry has what it has of:
  {"path", "type", "digest", "size", "executable", "target"}
"""


@click.command("ls", epilog=_EPILOG)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.option("-l", "--long", "long", is_flag=True, help="Show the kind, the size and the digest as well.")
@click.option("-R", "--recursive", is_flag=True, help="Go into directories.")
@click.option("--full", is_flag=True, help="Print all 64 digits, also on a terminal.")
@shared_options
@click.pass_obj
def command(settings: Settings, root: TreePlace, *, long: bool, recursive: bool, full: bool) -> None:
    """List what is in a tree, by names in bytewise order. No blob is read.

    Paths begin at ROOT. Names with quotes, backslashes or control codes are quoted as git does it.
    """
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        found = lookup.look(root)
        if isinstance(found.node, DirectoryNode):
            entries = lookup.walk(found, depth=None if recursive else 1)
        else:
            entries = iter([(root.path, found.node)])
        show_entries(entries, long=long, full=full, as_json=settings.json)
