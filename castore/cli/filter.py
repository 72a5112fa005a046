"""`castore filter`."""

from __future__ import annotations

import os

import click

from castore.cli.options import shared_options
from castore.cli.output import emit_json
from castore.cli.roots import as_place, emit_root
from castore.cli.settings import Settings
from castore.errors import InvalidDirectoryError, NodeNotFoundError
from castore.format.nodes import TreePath, node_to_json
from castore.trees.merging import filter_tree
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.selecting import ALL, Pattern, Selection

_EPILOG = """\b
Examples:
  castore filter ROOT --exclude '*.tmp' --exclude /secrets
  castore filter ROOT --include '*.jpg'
  castore filter ROOT --strip 1 --prefix photos/2026

\b
With --json, the node of the new root:
  {"type", "digest", "size"}
"""

_ORDER = "castore.filter.order"


class _InOrder(click.Command):
    """A command that knows in which order its options were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note the order, and go on."""
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            ctx.meta[_ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)


def _as_path(text: str) -> TreePath:
    try:
        return TreePath.parse_loosely(text.strip("/"))
    except InvalidDirectoryError as error:
        raise click.BadParameter(str(error)) from None


@click.command("filter", epilog=_EPILOG, cls=_InOrder)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what this fits.")
@click.option(
    "--include",
    metavar="PATTERN",
    multiple=True,
    help="Take it in all the same; without --exclude, take nothing else.",
)
@click.option("--strip", metavar="N", type=click.IntRange(0), default=0, help="Drop N names of each path.")
@click.option("--prefix", metavar="PATH", type=_as_path, help="Put all of it at PATH.")
@shared_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    root: TreePlace,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    strip: int,
    prefix: TreePath | None,
) -> None:
    """Make a tree of a part of another one, and print its root. No blob is read.

    PATTERN is a line of gitignore's: the last one that fits decides. With --include alone directories in
    which nothing is left are left out, too. --strip comes before --prefix.
    """
    settings: Settings = ctx.obj
    given = {"exclude": iter(exclude), "include": iter(include)}
    alone = bool(include) and not exclude
    # Of directories nobody knows yet what is in them.
    patterns = [Pattern(b"*", "--include"), Pattern(b"!*/", "--include")] if alone else []
    for name in ctx.meta[_ORDER]:
        if name in given:
            patterns += _patterns(name, os.fsencode(next(given[name])), alone=alone)
    selection = Selection(patterns) if patterns else ALL
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        node = filter_tree(
            lookup.directories,
            lookup.node(root),
            selection,
            keep_empty=not alone,
            strip=strip,
            prefix=prefix,
        )
    if node is None:
        raise NodeNotFoundError(f"nothing of {root} is left")
    if settings.json:
        emit_json(node_to_json(node))
    else:
        emit_root(node)


def _patterns(name: str, line: bytes, *, alone: bool) -> list[Pattern]:
    source = f"--{name}"
    if name == "exclude":
        return [Pattern(line, source)]
    found = [Pattern(b"!" + line, source)]
    if alone:
        # All that is in a directory that is named, too.
        bare = line.rstrip(b"/")
        found.append(Pattern(b"!%s%s/**" % (b"" if b"/" in bare else b"**/", bare), source))
    return found
