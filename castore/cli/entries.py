"""Entries of trees as lines: their names, and with `-l` also what they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from castore.cli.output import emit_json_lines, emit_text, stdout_is_terminal
from castore.cli.short_digests import shown
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath, node_to_json

_ESCAPES: Final = {byte: b"\\%03o" % byte for byte in (*range(0x20), 0x7F)} | {
    byte: b"\\" + letter.encode() for byte, letter in zip(b'\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True)
}


def show_entries(entries: Iterable[tuple[TreePath, Node]], *, long: bool, full: bool, as_json: bool) -> None:
    """Write a line for each entry."""
    if as_json:
        emit_json_lines(entry_row(path, node) for path, node in entries)
        return
    at_once = stdout_is_terminal()
    for path, node in entries:
        emit_text(_line(path, node, long=long, full=full) + "\n", flush=at_once)


def entry_row(path: TreePath, node: Node) -> dict[str, Any]:
    """Return an entry as it is shown with `--json`; bytes of a name that are no UTF-8 as surrogates."""
    return {"path": str(path), **node_to_json(node)}


def _line(path: TreePath, node: Node, *, long: bool, full: bool) -> str:
    if not long:
        return entry_name(bytes(path), node)
    name = entry_name(bytes(path), node, target=True)
    match node:
        case FileNode():
            kind = "x" if node.executable else "-"
            return f"{kind} {node.size:>12} {shown(node.digest, full=full)}  {name}"
        case DirectoryNode():
            return f"d {'':>12} {shown(node.digest, full=full)}  {name}"
        case SymlinkNode():
            width = len(shown("0" * 64, full=full))
            return f"l {'':>12} {'':{width}}  {name}"


def entry_name(name: bytes, node: Node, *, target: bool = False) -> str:
    """Return the name of an entry on a line, with what shows its kind; of a link also its *target*."""
    match node:
        case DirectoryNode():
            return quoted(name) + "/"
        case SymlinkNode() if target:
            return f"{quoted(name)} -> {quoted(node.target)}"
        case _:
            return quoted(name)


def quoted(name: bytes) -> str:
    """Return a name as a word on one line: in quotes, with escapes, if it would be anything else."""
    if _ESCAPES.keys().isdisjoint(name):
        return name.decode("utf-8", "surrogateescape")
    inner = b"".join([_ESCAPES.get(byte) or bytes([byte]) for byte in name])
    return f'"{inner.decode("utf-8", "surrogateescape")}"'
