"""`castore du`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from castore.cli.entries import quoted
from castore.cli.options import shared_options
from castore.cli.output import emit_json_lines, emit_text, table
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.format.nodes import TreePath
from castore.text import size_text
from castore.trees.measuring import ChunkSizes, TreeSize, blobs_in, measure
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore du ROOT
  castore du -d 1 ROOT:photos
  castore du ROOT --not-in OTHER
  castore du --chunks ROOT OTHER

\b
With --json, one object on each line, in bytes; the last one is
{"total": {...}} without "root" and "path"; with --chunks it also has
"chunks" and "stored", which is null where the service does not tell:
  {"root", "path", "files", "directories", "links", "size", "distinct"}
"""


@click.command("du", epilog=_EPILOG)
@click.argument("roots", metavar="ROOT[:PATH]...", nargs=-1, required=True, type=as_place)
@click.option(
    "-d", "--depth", metavar="N", type=click.IntRange(0), default=0, help="Also directories N levels down."
)
@click.option(
    "--not-in",
    "others",
    metavar="ROOT[:PATH]",
    multiple=True,
    type=as_place,
    help="Only files whose contents are not in this tree.",
)
@click.option("--chunks", is_flag=True, help="Ask for the chunks as well, and for what is stored of them.")
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    roots: tuple[TreePlace, ...],
    depth: int,
    others: tuple[TreePlace, ...],
    chunks: bool,
) -> None:
    """Tell how large trees are. No blob is read.

    The size is what the files have together; of equal files only one counts as distinct. With --chunks there
    are also the bytes of different chunks, and, where the service tells, of what is stored of them; then each
    list of chunks is asked for. With --not-in there is only what the other trees lack: what these roots add
    to them, or what would go with these roots.
    """
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        apart = set().union(*(blobs_in(lookup.directories, lookup.node(place)) for place in others))
        sizes: list[tuple[TreePlace, TreeSize]] = []
        total = TreeSize(TreePath())
        for place in roots:
            for size in _measured(lookup, place, depth, apart):
                sizes.append((place, size))
            total.add_all(size)
        asked = ChunkSizes(stores.blobs(settings.service_name)) if chunks else None
        if asked is not None:
            asked.ask_for(total.blobs)
        if settings.json:
            emit_json_lines(_rows(sizes, total, asked))
        else:
            _show(sizes, total if len(roots) > 1 else None, asked)


def _measured(lookup: TreeLookup, place: TreePlace, depth: int, apart: set[Any]) -> Iterator[TreeSize]:
    found = lookup.look(place)
    return measure(
        lookup.directories,
        found.node,
        path=place.path,
        depth=depth,
        apart_from=apart,
        within=found.within,
    )


def _rows(
    sizes: list[tuple[TreePlace, TreeSize]], total: TreeSize, asked: ChunkSizes | None
) -> Iterator[dict[str, Any]]:
    for place, size in sizes:
        yield {"root": str(place.root), "path": str(size.path), **_numbers(size, asked)}
    yield {"total": _numbers(total, asked)}


def _numbers(size: TreeSize, asked: ChunkSizes | None) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "files": size.files,
        "directories": size.directories,
        "links": size.links,
        "size": size.size,
        "distinct": size.distinct,
    }
    if asked is not None:
        numbers["chunks"], numbers["stored"] = asked.of(size.blobs)
    return numbers


def _show(sizes: list[tuple[TreePlace, TreeSize]], total: TreeSize | None, asked: ChunkSizes | None) -> None:
    rows = [(_name(place, size), _numbers(size, asked)) for place, size in sizes]
    if total is not None:
        rows.append(("total", _numbers(total, asked)))
    columns = ["files", "size", "distinct"]
    if asked is not None:
        columns += ["chunks"] if asked.stored is None else ["chunks", "stored"]
    cells = [
        (*(str(row[key]) if key == "files" else size_text(row[key]) for key in columns), name)
        for name, row in rows
    ]
    emit_text(table((*columns, "tree"), cells, right=range(len(columns))))


def _name(place: TreePlace, size: TreeSize) -> str:
    below = size.path[len(place.path) :]
    if not below:
        return str(place)
    return quoted(b"/".join(size.path)) + "/"
