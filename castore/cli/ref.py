"""`castore ref`: names for roots."""

from __future__ import annotations

from typing import Any

import click

from castore.cli.faults import FAILED
from castore.cli.options import shared_options
from castore.cli.output import (
    complain,
    emit_json,
    emit_json_rows,
    emit_text,
    printable,
    stdout_is_terminal,
    table,
)
from castore.cli.roots import as_place, as_ref_name
from castore.cli.settings import Settings
from castore.cli.short_digests import as_digest, completed, shown
from castore.contract.refs import ANY, Expected, NamedRoot, RefService, time_to_text
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.directories.copying import publish
from castore.errors import CastoreError, InvalidRefError, NodeNotFoundError
from castore.format.nodes import DirectoryNode, Node, SymlinkNode, node_to_json
from castore.trees.naming import TreeLookup, TreePlace
from castore.trees.proving import claim_blob, keeping, prove
from castore.trees.ref_names import RefName, add_snapshot, find_ref, refs_of

_EPILOG = """\b
Examples:
  castore ref set www ROOT -m "before the move"
  castore ref list
  castore ls www:docs
  castore export www@latest restored
  castore export 'www@{yesterday}' restored

\b
With --json a ref is one object, and of a list these are the rows of "refs":
  {"name", "node", "time", "comment", "metadata", "source"}
"""


class RefChangedError(CastoreError):
    """A ref does not stand for what was expected."""

    code = "ref-changed"


@click.group("ref", epilog=_EPILOG)
@shared_options
def command() -> None:
    """Give names to roots: set them, look at them, forget them.

    A name stands for a root wherever a ROOT is taken. NAME@latest is the last snapshot of a name, NAME@{TIME}
    the last one that is not later than TIME: a date, a time, `yesterday`, or how long ago, such as `7d`.
    `castore import --ref NAME` and `--snapshot NAME` set names, too.
    """


def _as_ref(text: str) -> RefName:
    try:
        return RefName.parse(text)
    except InvalidRefError as error:
        raise click.BadParameter(str(error)) from None


@command.command("set")
@click.argument("name", metavar="NAME", type=as_ref_name)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.option("-m", "--message", metavar="TEXT", default="", help="What is to be said of it.")
@click.option("--snapshot", is_flag=True, help="Keep it as a snapshot of NAME, under its time.")
@click.option("--new", is_flag=True, help="Fail if the name is there already.")
@click.option(
    "--expect", metavar="ROOT", type=as_place, help="Fail unless the name stands for ROOT at the moment."
)
@click.option("--metadata", metavar="DIGEST", type=as_digest, help="The blob with the metadata of the tree.")
@click.option("--unchecked", is_flag=True, help="Do not look whether all of the tree is there.")
@shared_options
@click.pass_obj
def _set(
    settings: Settings,
    *,
    name: str,
    root: TreePlace,
    message: str,
    snapshot: bool,
    new: bool,
    expect: TreePlace | None,
    metadata: B3Digest | ShortDigest | None,
    unchecked: bool,
) -> None:
    """Let NAME stand for ROOT.

    All of the tree must be there: its directories and files are looked for before, and kept from a collection
    of garbage meanwhile.
    """
    if snapshot + new + (expect is not None) > 1:
        raise click.UsageError("Only one of --snapshot, --new and --expect can be.")
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        refs = refs_of(stores, settings.service_name)
        expected = None if new else _expected(refs, name, expect, lookup)
        blobs = stores.blobs(settings.service_name)
        sidecar = None if metadata is None else completed(metadata, stores, settings.service_name)
        with keeping(blobs, lookup.directories):
            found = lookup.look(root)
            node = found.node
            if isinstance(node, DirectoryNode):
                publish(node.digest, lookup.directories, within=found.within)
            if not unchecked:
                prove(node, blobs, lookup.directories)
                if sidecar is not None and not claim_blob(blobs, sidecar):
                    raise NodeNotFoundError(f"the metadata {sidecar} is not in `{settings.service_name}`")
            ref = NamedRoot(node, comment=message, metadata=sidecar)
            if snapshot:
                name = add_snapshot(refs, name, ref)
            elif not refs.set(name, ref, expect=expected):
                raise RefChangedError(
                    f"`{name}` is there already: without --new it is set anew"
                    if new
                    else f"`{name}` was set by somebody else in this moment; see what it is now"
                )
    _show(settings, name, ref)


def _expected(refs: RefService, name: str, expect: TreePlace | None, lookup: TreeLookup) -> Expected:
    """Return what a name stands for, if that is the root that is expected."""
    if expect is None:
        return ANY
    found, wanted = refs.get(name), lookup.node(expect)
    if found is None or found.node != wanted:
        what = "for nothing" if found is None else f"for {_root_text(found.node, full=True)}"
        raise RefChangedError(f"`{name}` does not stand for {expect}, but {what}")
    return found


@command.command("get")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=_as_ref)
@click.option("--full", is_flag=True, help="Print all 64 digits, also on a terminal.")
@shared_options
@click.pass_obj
def _get(settings: Settings, names: tuple[RefName, ...], full: bool) -> None:
    """Show what names stand for: a line `NAME  ROOT  TIME  COMMENT` for each."""
    with settings.opened() as stores:
        refs = refs_of(stores, settings.service_name)
        found = [find_ref(refs, name) for name in names]
    if settings.json:
        emit_json({"refs": [ref_to_json(name, ref) for name, ref in found]})
        return
    for name, ref in found:
        emit_text("  ".join(_cells(name, ref, full=full)).rstrip() + "\n")


@command.command("list")
@click.argument("prefix", metavar="[NAME]", required=False, default="", type=lambda text: text)
@click.option("--full", is_flag=True, help="Print all 64 digits, also on a terminal.")
@shared_options
@click.pass_obj
def _list(settings: Settings, prefix: str, full: bool) -> None:
    """List the names, or those that are NAME or below it, with what they stand for.

    On a terminal it is a table, with times of this machine; else a line `NAME  ROOT  TIME  COMMENT` for each,
    with times in UTC.
    """
    if prefix.rstrip("/"):
        as_ref_name(prefix.rstrip("/"))
    with settings.opened() as stores:
        found = refs_of(stores, settings.service_name).list(prefix)
        if settings.json:
            emit_json_rows("refs", (ref_to_json(name, ref) for name, ref in found))
        elif stdout_is_terminal():
            rows: list[tuple[str, ...]] = []
            failed: CastoreError | None = None
            try:
                rows.extend(_cells(name, ref, full=full) for name, ref in found)
            except CastoreError as error:
                failed = error
            if rows:
                emit_text(table(("name", "root", "time", "comment"), rows))
            if failed is not None:
                raise failed
        else:
            for name, ref in found:
                emit_text("  ".join(_cells(name, ref, full=full)).rstrip() + "\n", flush=False)


@command.command("delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=_as_ref)
@click.option(
    "--expect", metavar="ROOT", type=as_place, help="Fail unless the name stands for ROOT at the moment."
)
@shared_options
@click.pass_obj
def _delete(settings: Settings, names: tuple[RefName, ...], expect: TreePlace | None) -> int:
    """Forget names. The trees are not touched: `castore gc` removes what no name reaches any more."""
    code = 0
    gone = []
    with settings.opened() as stores:
        refs = refs_of(stores, settings.service_name)
        lookup = TreeLookup(stores, settings.service_name)
        for each in names:
            name = each.name if each.at is None else find_ref(refs, each)[0]
            expected = _expected(refs, name, expect, lookup)
            if refs.delete(name, expect=expected):
                gone.append(name)
                continue
            code = FAILED
            complain(f"castore: no ref is named `{name}`" + ("" if expect is None else " as it was expected"))
    if settings.json:
        emit_json({"deleted": gone})
    return code


def _show(settings: Settings, name: str, ref: NamedRoot) -> None:
    if settings.json:
        emit_json(ref_to_json(name, ref))
    else:
        emit_text("  ".join(_cells(name, ref, full=False)).rstrip() + "\n")


def _cells(name: str, ref: NamedRoot, *, full: bool) -> tuple[str, str, str, str]:
    time = time_to_text(ref.time.replace(microsecond=0))
    if stdout_is_terminal():
        time = ref.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    first, _, more = ref.comment.partition("\n")
    return (
        name,
        _root_text(ref.node, full=full),
        time,
        printable(first + (" ..." if more else ""), lines=False),
    )


def _root_text(node: Node, *, full: bool) -> str:
    if isinstance(node, SymlinkNode):
        return f"-> {printable(node.target.decode('utf-8', 'backslashreplace'), lines=False)}"
    return shown(node.digest, full=full)


def ref_to_json(name: str, ref: NamedRoot) -> dict[str, Any]:
    """Return a ref as commands print it with `--json`."""
    return {
        "name": name,
        "node": node_to_json(ref.node),
        "time": time_to_text(ref.time),
        "comment": ref.comment,
        "metadata": None if ref.metadata is None else ref.metadata.sri,
        "source": ref.source,
    }
