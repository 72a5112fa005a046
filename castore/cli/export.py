"""`castore export`."""

from __future__ import annotations

import click

from castore.cli.faults import FAILED, INCOMPLETE, document_of
from castore.cli.options import shared_options
from castore.cli.output import complain, emit_json
from castore.cli.progress import ProgressMeter
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.trees.exporting import export_tree
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore export ROOT restored
  castore export ROOT:docs/readme.md readme.md

\b
With --json, sizes in bytes:
  {"root", "target", "files", "directories", "links", "size",
   "lost": [{"path", "code", "message"}]}
"""


@click.command("export", epilog=_EPILOG)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.argument("target", metavar="TARGET", type=click.Path(readable=False))
@click.option("--read-only", is_flag=True, help="Let nobody write to what is made.")
@click.option(
    "--skip-unreadable",
    is_flag=True,
    help="Leave out files that are absent or damaged, and exit with 3.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, root: TreePlace, target: str, read_only: bool, skip_unreadable: bool) -> int:
    """Make a folder of a tree, or of a part of it.

    TARGET must not exist. It appears when all of it is there. Each byte is checked before it is written.
    """
    name = settings.service_name
    with settings.opened() as stores:
        lookup = TreeLookup(stores, name)
        node = lookup.node(root)
        verb = "" if settings.json else "wrote"
        with ProgressMeter(noun="file", verb=verb, hidden=settings.quiet) as meter:

            def progress(size: int) -> None:
                meter.item_done()
                meter.advance(size)

            done = export_tree(
                node,
                target,
                stores.blobs(name),
                lookup.directories,
                read_only=read_only,
                skip_unreadable=skip_unreadable,
                progress=progress,
            )
    if settings.json:
        lost = [{"path": str(each.path), **document_of(each.error, settings)} for each in done.lost]
        counts = {"directories": done.directories, "links": done.links, "size": done.size}
        emit_json({"root": str(root), "target": target, "files": done.files, **counts, "lost": lost})
    else:
        for each in done.lost:
            complain(f"castore: cannot write {str(each.path)!r}: {settings.scrubbed(each.error.message)}")
        if done.lost and not skip_unreadable:
            complain(f"castore: {target!r} would not be whole, and was not made")
    if not done.lost:
        return 0
    return INCOMPLETE if skip_unreadable else FAILED
