"""`castore gc`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from castore.cli.digests import read_list
from castore.cli.options import as_time_with_unit, shared_options
from castore.cli.output import emit_json, emit_text, table
from castore.cli.parts import named_parts
from castore.cli.progress import ProgressMeter
from castore.cli.roots import BlobFinder, BlobPlace, ReachedByTrees, as_blob, as_place
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.upkeep import StoredItem, Sweepable
from castore.digest import B3Digest
from castore.errors import (
    CastoreError,
    InvalidDigestError,
    InvalidDirectoryError,
    InvalidRefError,
    UnsupportedError,
)
from castore.problems import listing
from castore.text import size_text
from castore.trees.naming import TreePlace
from castore.trees.ref_names import RefName
from castore.upkeep import Collected, MissingRootsError, collect
from castore.upkeep.collecting import ItemCount, ItemKind

if TYPE_CHECKING:
    from castore.upkeep.marking import Marker

_KINDS: Final[dict[ItemKind, tuple[str, str]]] = {
    "index": ("blobs", "indexes"),
    "chunk": ("chunks", "chunks"),
    "residue": ("residue", "left-over files"),
}
"""What the kinds of items are called in JSON and in text."""

_EPILOG = """\b
Examples:
  castore --service archive gc --roots keep.txt --dry-run
  castore --service archive gc --roots keep.txt --grace "30 d"
  castore gc
  castore gc --tree ROOT dir:DIGEST
  castore gc --dask tcp://scheduler:8786
  psql -At -c 'select digest from files' | castore gc --roots -

\b
With --json, sizes in bytes of what is stored, times in seconds since 1970:
  {"service", "dry_run", "cutoff", "leased_since", "roots", "missing": [...],
   "blobs": {"gone": {"count", "bytes"}, "kept": {"count", "bytes"}},
   "chunks": ..., "residue": ...,
   "too_new": {"blobs": {"count", "bytes"}, "chunks": ..., "residue": ...},
   "goes_from",
   "items": [{"kind", "key", "digest", "size", "modified"}]}
"""


_DIRECTORY: Final = "dir:"


def _as_root(text: str) -> BlobPlace:
    """Read an argument as what stands for a blob, or after `dir:` for a tree."""
    if text.startswith(_DIRECTORY):
        place = as_place(text.removeprefix(_DIRECTORY))
        return TreePlace(place.root, place.path, in_tree=True)
    return as_blob(text)


def _root_in_list(text: str) -> B3Digest | TreePlace:
    """Read a word of a list: a digest is that of a blob, what has `dir:` before it, or is a name, a tree."""
    try:
        if not text.startswith(_DIRECTORY):
            return B3Digest.parse(text)
        place = TreePlace.parse(text.removeprefix(_DIRECTORY))
    except (InvalidRefError, InvalidDirectoryError) as error:
        raise InvalidDigestError(error.message) from None
    except InvalidDigestError:
        with contextlib.suppress(CastoreError):
            place = TreePlace.parse(text)
            if isinstance(place.root, RefName):
                return attrs.evolve(place, in_tree=True)
        raise
    return attrs.evolve(place, in_tree=True)


@click.command("gc", epilog=_EPILOG)
@click.argument("digests", metavar="[DIGEST...]", nargs=-1, type=_as_root)
@click.option(
    "--roots",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Keep what the lines of FILE begin with: digests of blobs, `dir:ROOT`, names; `-` is stdin.",
)
@click.option(
    "--tree",
    "trees",
    metavar="ROOT",
    multiple=True,
    type=as_place,
    help="Keep the tree ROOT: its directories and all files in it.",
)
@click.option(
    "--grace",
    metavar="TIME",
    default="7 d",
    show_default=True,
    type=as_time_with_unit,
    help="Keep what was stored, or found there by a writer, within this time; it needs a unit.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Remove nothing; show what would go.")
@click.option("--no-roots", is_flag=True, help="Go on without any roots: all that is old goes.")
@click.option("--ignore-missing-roots", is_flag=True, help="Go on if a root is not there.")
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster read the indexes of what stays; ADDRESS is that of its scheduler,"
    " such as tcp://HOST:8786.",
)
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    digests: tuple[BlobPlace, ...],
    files: tuple[str, ...],
    trees: tuple[TreePlace, ...],
    grace: float,
    dry_run: bool,
    no_roots: bool,
    ignore_missing_roots: bool,
    dask: str | None,
) -> None:
    """Remove what is old and reached by no root: blobs, chunks, and what killed writers have left behind.

    The roots are the trees of all refs, the DIGESTs, those in the files of --roots, what is in each --tree,
    and what installed plugins refer to. Of a tree whose root is given as a DIGEST only that one directory is
    kept; `dir:DIGEST` keeps all of it, also in a file. Writers may go on meanwhile.
    """
    started = time.time()
    with settings.opened() as stores, ProgressMeter(hidden=settings.quiet) as meter:
        _require_sweepable(stores, settings.service_name)
        whole = [each for each in digests if _is_whole_tree(each)]
        trees = (*trees, *(each for each in whole if isinstance(each, TreePlace)))
        named = BlobFinder(stores, settings.service_name).digests(
            each for each in digests if not _is_whole_tree(each)
        )
        reached = ReachedByTrees(stores, settings.service_name, list(trees))
        roots = {*named, *stores.roots()}
        for file in files:
            for root in read_list(file, _root_in_list):
                reached.trees.append(root) if isinstance(root, TreePlace) else roots.add(root)

        def require_any() -> None:
            if not roots and not no_roots:
                raise click.UsageError(
                    "There are no roots, so all that is old would go. Name the blobs to keep, as arguments or"
                    " with --roots FILE or --tree ROOT, or trees with `castore ref`; say --no-roots if there"
                    " are none."
                )

        gone: list[StoredItem] = []
        try:
            with _marker(stores, settings.service_name, dask, prove=not dry_run) as marker:
                collected = collect(
                    stores.blobs(settings.service_name),
                    roots,
                    grace_seconds=grace,
                    dry_run=dry_run,
                    no_roots=no_roots,
                    ignore_missing_roots=ignore_missing_roots,
                    reached=reached.digests(require_any),
                    pool=stores.pool,
                    marker=marker,
                    clock=lambda: started,
                    on_gone=gone.append if settings.json else None,
                    progress=meter.advance,
                )
        except MissingRootsError as error:
            advice = "with --ignore-missing-roots the others are kept alone"
            if error.none_there:
                advice = "see whether these are the roots of this service, or say --no-roots"
            error.args = (f"{error.message}; {advice}",)
            raise
        except (KeyboardInterrupt, SystemExit):
            # What went is gone: a program that reads JSON is told, whatever ends the work.
            if settings.json:
                items = [_item(item) for item in gone]
                start = {"service": settings.service_name, "dry_run": dry_run, "interrupted": True}
                emit_json(start | {"items": items})
            raise
    if settings.json:
        emit_json(_document(settings, collected, gone, dry_run=dry_run))
        return
    _show(collected, settings, dry_run=dry_run)


@contextlib.contextmanager
def _marker(stores: Composition, name: str, address: str | None, *, prove: bool) -> Iterator[Marker | None]:
    """Give what reads the indexes on a cluster; nothing without an address."""
    if address is None:
        yield None
        return
    from castore.cli.clusters import dask_cluster  # noqa: PLC0415 - few have one
    from castore.upkeep import spread  # noqa: PLC0415 - as above

    with dask_cluster(address) as submit:
        yield spread("mark", stores, name, submit, prove=prove)


def _is_whole_tree(root: BlobPlace) -> bool:
    """Tell whether `dir:` stood before a root: then it has no path, and is in a tree all the same."""
    return isinstance(root, TreePlace) and root.in_tree and not root.path


def _require_sweepable(stores: Composition, name: str) -> None:
    if stores.blobs(name).capability(Sweepable) is not None:
        return
    parts = [
        part for part in named_parts(stores, name) if stores.blobs(part).capability(Sweepable) is not None
    ]
    hint = "; what is to stay can be brought to a new store by `castore copy`"
    if parts:
        hint = f"; of its parts, use `--service NAME` with {listing(parts)}"
    tag = stores.instance(BlobService, name).type.tag
    raise UnsupportedError(f"`{name}`, a `{tag}`, cannot be collected{hint}")


def _document(
    settings: Settings, collected: Collected, gone: Sequence[StoredItem], *, dry_run: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "service": settings.service_name,
        "dry_run": dry_run,
        "cutoff": collected.cutoff,
        "leased_since": collected.leased_since,
        "roots": collected.roots,
        "missing": [str(digest) for digest in collected.missing],
    }
    for kind, (name, _) in _KINDS.items():
        document[name] = {"gone": _amount(collected.gone[kind]), "kept": _amount(collected.kept(kind))}
    document["too_new"] = {name: _amount(collected.too_new[kind]) for kind, (name, _) in _KINDS.items()}
    document["goes_from"] = collected.goes_from
    document["items"] = [_item(item) for item in gone]
    return document


def _item(item: StoredItem) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "key": item.key,
        "digest": None if item.digest is None else str(item.digest),
        "size": item.size,
        "modified": item.modified,
    }


def _amount(amount: ItemCount) -> dict[str, int]:
    return {"count": amount.count, "bytes": amount.size}


def _show(collected: Collected, settings: Settings, *, dry_run: bool) -> None:
    if collected.missing:
        count = len(collected.missing)
        verb = "is" if count == 1 else "are"
        settings.remark(f"castore: {count} of the roots {verb} not in `{settings.service_name}`")
    if collected.leased_since is not None:
        since = _moment(collected.leased_since)
        settings.remark(f"castore: a writer is busy since {since}; what was stored since then stays")
    rows = []
    for kind, (_, name) in _KINDS.items():
        gone, kept, too_new = collected.gone[kind], collected.kept(kind), collected.too_new[kind]
        amounts = (str(gone.count), size_text(gone.size), str(kept.count), size_text(kept.size))
        rows.append((name, *amounts, str(too_new.count)))
    heads = ("", "would go" if dry_run else "gone", "size", "kept", "size", "too new")
    emit_text(table(heads, rows, right=(1, 2, 3, 4, 5)))
    if collected.goes_from is not None and collected.leased_since is None:
        count = sum(amount.count for amount in collected.too_new.values())
        what = f"{count} of them are" if count > 1 else "1 of them is"
        settings.remark(
            f"castore: {what} kept only because of the grace time; the oldest can go from"
            f" {_moment(collected.goes_from)} on"
        )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
