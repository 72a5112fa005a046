"""`castore filter`."""

from __future__ import annotations

from typing import Any

import click

from castore.cli.options import shared_options
from castore.cli.output import emit_json
from castore.cli.roots import as_place, emit_root
from castore.cli.selecting import SelectingCommand, selection_of, tree_selection_options
from castore.cli.settings import Settings
from castore.errors import InvalidDirectoryError, NodeNotFoundError
from castore.format.nodes import TreePath, node_to_json
from castore.trees.merging import filter_tree
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore filter ROOT --exclude '*.tmp' --exclude /secrets
  castore filter ROOT --exclude '*' --include '*/' --include '*.md' --no-empty
  castore filter ROOT --strip 1 --prefix photos/2026

\b
With --json, the node of the new root:
  {"type", "digest", "size"}
"""


def _as_path(text: str) -> TreePath:
    try:
        return TreePath.parse_loosely(text.strip("/"))
    except InvalidDirectoryError as error:
        raise click.BadParameter(str(error)) from None


@click.command("filter", epilog=_EPILOG, cls=SelectingCommand)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@tree_selection_options
@click.option("--no-empty", is_flag=True, help="Leave out directories of which nothing is left.")
@click.option("--strip", metavar="N", type=click.IntRange(0), default=0, help="Drop N names of each path.")
@click.option("--prefix", metavar="PATH", type=_as_path, help="Put all of it at PATH.")
@shared_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    root: TreePlace,
    *,
    no_empty: bool,
    strip: int,
    prefix: TreePath | None,
    **options: Any,
) -> None:
    """Make a tree of a part of another one, and print its root.

    PATTERN is a line of gitignore's: the last one that fits decides, as in `castore import` and `export`. No
    blob is read but files with rules, and those that mark a folder. --strip comes before --prefix.
    """
    settings: Settings = ctx.obj
    selection = selection_of(ctx, options)
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        node = filter_tree(
            lookup.directories,
            lookup.node(root),
            selection,
            keep_empty=not no_empty,
            strip=strip,
            prefix=prefix,
            blobs=stores.blobs(settings.service_name) if selection.needs_blobs else None,
        )
    if node is None:
        raise NodeNotFoundError(f"nothing of {root} is left")
    if settings.json:
        emit_json(node_to_json(node))
    else:
        emit_root(node)
