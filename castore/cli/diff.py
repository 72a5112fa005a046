"""`castore diff`."""

from __future__ import annotations

from typing import Any

import click

from castore.cli.entries import quoted
from castore.cli.options import shared_options
from castore.cli.output import emit_json_rows, emit_text, stdout_is_terminal
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.format.nodes import DirectoryNode, Node, node_to_json
from castore.trees.comparing import Change, diff
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore diff ROOT OTHER
  castore diff ROOT:docs OTHER:docs
  castore diff --json ROOT OTHER

\b
With --json, one row for each change; nodes as in `castore ls --json`:
  {"changes": [{"change", "path", "before", "after"}]}
"""


@click.command("diff", epilog=_EPILOG)
@click.argument("before", metavar="ROOT[:PATH]", type=as_place)
@click.argument("after", metavar="ROOT[:PATH]", type=as_place)
@shared_options
@click.pass_obj
def command(settings: Settings, before: TreePlace, after: TreePlace) -> int:
    """Tell what two trees differ in. No blob is read.

    Each line has a letter and a path: A was added, D was deleted, M has other contents, X may be executed
    now, or not any more, L is a link that leads elsewhere, T is of another kind. The exit code is 0 if they
    are the same, 1 if they differ.
    """
    differ = False
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        changes = diff(lookup.directories, lookup.node(before), lookup.node(after))
        if settings.json:
            rows = [_row(change) for change in changes]
            emit_json_rows("changes", rows)
            return int(bool(rows))
        at_once = stdout_is_terminal()
        for change in changes:
            differ = True
            is_folder = isinstance(change.after or change.before, DirectoryNode)
            emit_text(f"{change.letter}  {quoted(bytes(change.path))}{'/' * is_folder}\n", flush=at_once)
    return int(differ)


def _row(change: Change) -> dict[str, Any]:
    return {
        "change": change.letter,
        "path": str(change.path),
        "before": _node(change.before),
        "after": _node(change.after),
    }


def _node(node: Node | None) -> dict[str, Any] | None:
    return None if node is None else node_to_json(node)
