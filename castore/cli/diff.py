"""`castore diff`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import attrs
import click

from castore.cli.entries import quoted
from castore.cli.options import shared_options
from castore.cli.output import complain, emit_json_lines, emit_text, stdout_is_terminal
from castore.cli.own_places import OwnPlaces
from castore.cli.progress import ProgressMeter
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.contract.directories import DirectoryService
from castore.digest import B3Digest
from castore.errors import SourceError
from castore.format.nodes import DirectoryNode, FileNode, Node, node_to_json
from castore.text import count_text, size_text
from castore.trees.comparing import Change, Letter, diff, with_renames
from castore.trees.hashing import hash_tree
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore diff ROOT OTHER
  castore diff --stat ROOT ./photos
  castore diff --renames --json ROOT:docs OTHER:docs

\b
With --json, one object on each line, nodes as in `castore ls --json`, sizes
in bytes; "from" is for R only, and the last line is the total:
  {"change", "path", "before", "after", "from"}
  {"total": {"changes": {"A": 1, ...}, "size_before", "size_after"}}
"""

Side: TypeAlias = TreePlace | str
"""A place in a tree, or the path of a folder."""

_WORDS: dict[Letter, str] = {
    "A": "added",
    "D": "deleted",
    "M": "with other contents",
    "X": "executable or no more",
    "T": "of another kind",
    "L": "leading elsewhere",
    "R": "renamed",
}


def as_side(text: str) -> Side:
    """Read an argument as a place in a tree, or, if it begins with `/`, `./` or `../`, as a path on disk."""
    if text in (".", "..") or text.startswith(("/", "./", "../")):
        return text
    return as_place(text)


@click.command("diff", epilog=_EPILOG)
@click.argument("before", metavar="ROOT[:PATH]|./FOLDER", type=as_side)
@click.argument("after", metavar="ROOT[:PATH]|./FOLDER", type=as_side)
@click.option("--name-status", is_flag=True, help="Show letters and paths; so it is without any option.")
@click.option("--stat", is_flag=True, help="Show sizes as well, and count the changes.")
@click.option("--renames", is_flag=True, help="Take what was deleted here and added there for the same.")
@shared_options
@click.pass_obj
def command(
    settings: Settings, *, before: Side, after: Side, name_status: bool, stat: bool, renames: bool
) -> int:
    """Tell what two trees differ in. No blob is read.

    Each line has a letter and a path: A was added, D was deleted, M has other contents, X may be executed
    now, or not any more, L is a link that leads elsewhere, T is of another kind, R has another place. The
    exit code is 0 if they are the same, 1 if they differ.

    What begins with `/`, `./` or `../` is a folder or file on disk: it is read and hashed, and nothing of it
    is stored.
    """
    if stat and name_status:
        raise click.UsageError("Give either --stat or --name-status.")
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        first, second = (_tree(side, stores, lookup, settings) for side in (before, after))
        found: Iterable[Change] = diff(
            first.directories,
            first.node,
            second.node,
            after_in=second.directories,
            roots=(first.root, second.root),
        )
        if renames:
            found = with_renames(found)
        total = _Total()
        changes = total.counting(found)
        if settings.json:
            emit_json_lines(_rows(changes, total))
        else:
            at_once = stdout_is_terminal()
            for change in changes:
                emit_text(_line(change, stat=stat) + "\n", flush=at_once)
            if stat:
                emit_text(total.words() + "\n")
    return int(bool(total.letters))


@attrs.frozen
class _Tree:
    node: Node
    directories: DirectoryService
    root: B3Digest | None


def _tree(side: Side, stores: Composition, lookup: TreeLookup, settings: Settings) -> _Tree:
    if isinstance(side, str):
        return _on_disk(side, stores, settings)
    found = lookup.look(side)
    return _Tree(found.node, lookup.directories, found.within)


def _on_disk(path: str, stores: Composition, settings: Settings) -> _Tree:
    own = OwnPlaces(stores)

    def leave_out(below: bytes) -> bool:
        return own.reason_against(f"{path.rstrip('/')}/{os.fsdecode(below)}") is not None

    with ProgressMeter(noun="file", hidden=settings.quiet) as meter:

        def met(below: bytes) -> None:
            meter.name = os.fsdecode(below)
            meter.item_done()

        done, directories = hash_tree(path, progress=meter.advance, met=met, leave_out=leave_out)
    if done.node is None:
        for problem in done.problems:
            complain(f"castore: {problem.message}")
        raise SourceError(f"{path!r} is not whole, and cannot be compared")
    return _Tree(done.node, directories, None)


@attrs.define
class _Total:
    """What was found, added up."""

    letters: Counter[Letter] = attrs.field(factory=Counter)
    before: int = 0
    after: int = 0

    def counting(self, changes: Iterable[Change]) -> Iterator[Change]:
        for change in changes:
            self.letters[change.letter] += 1
            self.before += _size(change.before) or 0
            self.after += _size(change.after) or 0
            yield change

    def words(self) -> str:
        counts = [f"{self.letters[each]} {words}" for each, words in _WORDS.items() if self.letters[each]]
        changes = count_text(self.letters.total(), "change")
        if not counts:
            return changes
        return f"{changes}: {', '.join(counts)}; {size_text(self.before)} are {size_text(self.after)} now"


def _size(node: Node | None) -> int | None:
    return node.size if isinstance(node, FileNode) else None


def _line(change: Change, *, stat: bool) -> str:
    name = quoted(bytes(change.path)) + "/" * isinstance(change.after or change.before, DirectoryNode)
    if change.source is not None:
        name = f"{quoted(bytes(change.source))} -> {name}"
    sizes = [size_text(size) for size in (_size(change.before), _size(change.after)) if size is not None]
    if not stat or not sizes:
        return f"{change.letter}  {name}"
    if sizes[:1] == sizes[1:]:
        sizes.pop()
    return f"{change.letter}  {name}  {' -> '.join(sizes)}"


def _rows(changes: Iterable[Change], total: _Total) -> Iterator[dict[str, Any]]:
    for change in changes:
        row = {
            "change": change.letter,
            "path": str(change.path),
            "before": None if change.before is None else node_to_json(change.before),
            "after": None if change.after is None else node_to_json(change.after),
        }
        yield row if change.source is None else {**row, "from": str(change.source)}
    yield {"total": {"changes": dict(total.letters), "size_before": total.before, "size_after": total.after}}
