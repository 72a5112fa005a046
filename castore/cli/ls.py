"""`castore ls`."""

from __future__ import annotations

from typing import Final

import click

from castore.cli.options import shared_options
from castore.cli.output import emit_json_rows, emit_text, stdout_is_terminal
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.cli.short_digests import shown
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath, node_to_json
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.walking import walk

_EPILOG = """\b
Examples:
  castore ls ROOT
  castore ls -l ROOT:docs
  castore ls -R ROOT | wc -l

\b
With --json, one row for each entry:
  {"entries": [{"path", "type", "digest", "size", "executable", "target"}]}
"""

_ESCAPES: Final = {byte: b"\\%03o" % byte for byte in (*range(0x20), 0x7F)} | {
    byte: b"\\" + letter.encode() for byte, letter in zip(b'\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True)
}


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
        directories, node = lookup.directories, lookup.node(root)
        if isinstance(node, DirectoryNode):
            entries = walk(directories, node, path=root.path, recursive=recursive)
        else:
            entries = iter([(root.path, node)])
        if settings.json:
            emit_json_rows("entries", ({"path": str(path), **node_to_json(below)} for path, below in entries))
            return
        at_once = stdout_is_terminal()
        for path, below in entries:
            emit_text(_line(path, below, long=long, full=full) + "\n", flush=at_once)


def _line(path: TreePath, node: Node, *, long: bool, full: bool) -> str:
    name = quoted(bytes(path))
    if not long:
        return name + ("/" if isinstance(node, DirectoryNode) else "")
    match node:
        case FileNode():
            kind = "x" if node.executable else "-"
            return f"{kind} {node.size:>12} {shown(node.digest, full=full)}  {name}"
        case DirectoryNode():
            return f"d {'':>12} {shown(node.digest, full=full)}  {name}/"
        case SymlinkNode():
            width = len(shown("0" * 64, full=full))
            return f"l {'':>12} {'':{width}}  {name} -> {quoted(node.target)}"


def quoted(name: bytes) -> str:
    """Return a name as a word on one line: in quotes, with escapes, if it would be anything else."""
    if _ESCAPES.keys().isdisjoint(name):
        return name.decode("utf-8", "surrogateescape")
    inner = b"".join([_ESCAPES.get(byte) or bytes([byte]) for byte in name])
    return f'"{inner.decode("utf-8", "surrogateescape")}"'
