"""The metadata of a tree, which are kept as a blob beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from castore.cli.short_digests import as_digest, completed
from castore.contract.blobs import BlobReader, BlobService
from castore.contract.directories import DirectoryService
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.format.nodes import Node
from castore.trees.metadata import format_metadata, metadata_lines, metadata_of, parse_metadata
from castore.trees.naming import TreePlace
from castore.trees.preserving import ASPECTS, Preserving
from castore.trees.ref_names import RefName, find_ref, refs_of

if TYPE_CHECKING:
    from castore.composition.composition import Composition

F = TypeVar("F", bound=Callable[..., Any])

_GATHERED: Final = 256 << 10


def keep_metadata(source: str, node: Node, blobs: BlobService, directories: DirectoryService) -> B3Digest:
    """Store what a tree does not have of the folder that it was made of; return the digest of that blob.

    Raises as `metadata_of` does, and what the services raise.
    """
    with blobs.open_write() as writer:
        held = bytearray()
        for line in format_metadata(metadata_of(source, directories, node)):
            held += line
            if len(held) >= _GATHERED:
                writer.write(bytes(held))
                held.clear()
        writer.write(bytes(held))
        return writer.close()


def preserving_options(command: F) -> F:
    """Add the options that `preserving_of` reads."""
    command = click.option(
        "--metadata",
        metavar="DIGEST",
        type=as_digest,
        help="The blob with the metadata, from `castore import --metadata`.  [default: that of the ref]",
    )(command)
    return click.option(
        "--preserve",
        metavar="WHAT",
        type=_as_aspects,
        help=f"Give back what the tree does not have: `all`, or some of {','.join(ASPECTS)}.",
    )(command)


def _as_aspects(text: str) -> frozenset[str]:
    found = frozenset(ASPECTS if text == "all" else filter(None, text.split(",")))
    if not found or found - set(ASPECTS):
        raise click.BadParameter(f"{text!r} is not `all`, nor some of {','.join(ASPECTS)}.")
    return found


def preserving_of(
    aspects: frozenset[str] | None,
    metadata: B3Digest | ShortDigest | None,
    places: tuple[TreePlace, ...],
    stores: Composition,
    service: str,
) -> Preserving | None:
    """Return what is given back to the entries of a folder; `None` for nothing.

    Raises `click.UsageError` if there are no metadata, `BlobNotFoundError` if they are gone.
    """
    if aspects is None:
        if metadata is not None:
            raise click.UsageError("--metadata is for --preserve, which says what of that is given back.")
        return None
    if len(places) > 1:
        raise click.UsageError("--preserve is for one root: several have no metadata together.")
    (place,) = places
    digest = _of_ref(place, stores, service) if metadata is None else completed(metadata, stores, service)
    reader = stores.blobs(service).open(digest)
    return Preserving(parse_metadata(metadata_lines(_pieces(reader))), aspects, place.path)


def _of_ref(place: TreePlace, stores: Composition, service: str) -> B3Digest:
    if isinstance(place.root, RefName):
        name, ref = find_ref(refs_of(stores, service), place.root)
        if ref.metadata is not None:
            return ref.metadata
        raise click.UsageError(f"`{name}` has no metadata; --metadata names a blob that `import` has made.")
    raise click.UsageError("--preserve needs --metadata DIGEST, which `castore import --metadata` prints.")


def _pieces(reader: BlobReader) -> Iterator[bytes]:
    with reader:
        while piece := reader.read(_GATHERED):
            yield piece
