"""`castore merge`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options
from castore.cli.output import emit_json
from castore.cli.roots import as_place, emit_root
from castore.cli.settings import Settings
from castore.format.nodes import node_to_json
from castore.trees.merging import OnConflict, merge
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore merge ROOT OTHER
  castore merge --conflict last ROOT OTHER:docs

\b
With --json, the node of the new root:
  {"type", "digest", "size"}
"""


@click.command("merge", epilog=_EPILOG)
@click.argument("roots", metavar="ROOT[:PATH]...", nargs=-1, required=True, type=as_place)
@click.option(
    "--conflict",
    type=click.Choice(["error", "last", "first"]),
    default="error",
    show_default=True,
    help="Which one is taken where two trees have different things at one path.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, roots: tuple[TreePlace, ...], conflict: OnConflict) -> None:
    """Make one tree of several, and print its root. No blob is read.

    Directories at one path become one; what is equal is no conflict. With an error all conflicts are listed,
    and there is no new tree.
    """
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        node = merge(lookup.directories, [lookup.node(place) for place in roots], conflict=conflict)
    if settings.json:
        emit_json(node_to_json(node))
    else:
        emit_root(node)
