"""`castore tree`."""

from __future__ import annotations

from collections import Counter

import click

from castore.cli.entries import entry_name, entry_row
from castore.cli.options import shared_options
from castore.cli.output import emit_json_lines, emit_text, stdout_is_terminal
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.format.nodes import DirectoryNode, FileNode, Node
from castore.text import count_text, size_text
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore tree ROOT
  castore tree -L 2 ROOT:docs

\b
With --json, one object on each line, as `castore ls -R --json` prints them.
"""


@click.command("tree", epilog=_EPILOG)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.option("-L", "--levels", metavar="N", type=click.IntRange(1), help="Go down N levels only.")
@shared_options
@click.pass_obj
def command(settings: Settings, root: TreePlace, levels: int | None) -> None:
    """Draw what is in a tree, and count it. No blob is read."""
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        found = lookup.look(root)
        entries = lookup.walk_with_ends(found, depth=levels)
        if settings.json:
            emit_json_lines(entry_row(path, below) for path, below, _ in entries)
            return
        at_once = stdout_is_terminal()
        name = str(root).encode("utf-8", "surrogateescape")
        emit_text(entry_name(name, found.node, target=True).removesuffix("/") + "\n", flush=at_once)
        counts, size = Counter[type[Node]](), 0
        leads: list[str] = []
        for path, below, last in entries:
            del leads[len(path) - len(root.path) - 1 :]
            branch = "└── " if last else "├── "
            emit_text(f"{''.join(leads)}{branch}{entry_name(path[-1], below, target=True)}\n", flush=at_once)
            leads.append("    " if last else "│   ")
            counts[type(below)] += 1
            size += below.size if isinstance(below, FileNode) else 0
        emit_text(f"\n{_summary(counts, size)}\n")


def _summary(counts: Counter[type[Node]], size: int) -> str:
    files = counts.pop(FileNode, 0)
    directories = counts.pop(DirectoryNode, 0)
    words = [
        count_text(directories, "directory", "directories"),
        f"{count_text(files, 'file')} of {size_text(size)}",
    ]
    links = sum(counts.values())
    return ", ".join([*words, count_text(links, "link")] if links else words)
