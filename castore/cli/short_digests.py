"""The first digits of a digest in the place of all: a person need not copy 64 of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs
import click
from click.shell_completion import CompletionItem

from castore.cli.output import stdout_is_terminal
from castore.contract.short_digests import ShortDigest, only_one, parse_digest
from castore.digest import B3Digest
from castore.errors import CastoreError, InvalidDigestError, UnsupportedError

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.contract.blobs import BlobService

SHOWN: Final = 16
"""How many digits a terminal shows: of a million blobs no two begin with the same ones by chance."""

_MOST: Final = 11
"""More than these that begin alike need not be known."""

_MOST_OFFERED: Final = 100
_SOME_DIGITS: Final = re.compile("[0-9a-f]{1,63}")

_PATIENCE: Final = 2.0
"""So many seconds a shell waits for what completes a line."""


class NothingBeginsSoError(CastoreError):
    """No blob and no chunk begins with the digits."""

    code = "blob-not-found"


def as_digest(text: str) -> B3Digest | ShortDigest:
    """Read an argument as a digest in any form, or the beginning of one; what is neither is wrong usage."""
    try:
        return parse_digest(text)
    except InvalidDigestError as error:
        raise click.BadParameter(str(error)) from None


def completed(digest: B3Digest | ShortDigest, stores: Composition, name: str) -> B3Digest:
    """Return the whole of a digest that begins one in the service *name*.

    Raises `NothingBeginsSoError`, `InvalidDigestError` if several begin so, and `UnsupportedError` if the
    service does not list its blobs.
    """
    found = find(digest, stores, name)
    if found is None:
        raise NothingBeginsSoError(f"no blob in `{name}` begins with {digest}")
    return found


def find(digest: B3Digest | ShortDigest, stores: Composition, name: str) -> B3Digest | None:
    """Return the same, `None` if nothing begins so."""
    if isinstance(digest, B3Digest):
        return digest
    # Most digests are whole.
    from castore.cli.parts import without_capability  # noqa: PLC0415
    from castore.contract.capabilities import BlobLister  # noqa: PLC0415

    lister = stores.blobs(name).capability(BlobLister)
    if lister is None:
        reason = without_capability(stores, name, "list its blobs")
        raise UnsupportedError(f"{digest} is the beginning of a digest, and {reason}; all 64 digits will do")
    return only_one(digest, lister.complete(digest.digits), f"`{name}`")


def completed_anywhere(
    digest: B3Digest | ShortDigest, stores: Composition, name: str | None, timeout: float
) -> B3Digest:
    """Return the whole of a digest that begins one in any service that can be asked.

    Those are the instance *name*, or all, and what they need. One that fails, or takes longer than *timeout*
    seconds, is passed over.
    """
    if isinstance(digest, B3Digest):
        return digest
    from castore.contract.blobs import BlobService  # noqa: PLC0415 - as above
    from castore.problems import listing  # noqa: PLC0415
    from castore.threads.deadlines import Deadlines  # noqa: PLC0415

    graph = stores.graph
    chosen = graph.all_in_order() if name is None else graph.in_order(stores.instance(BlobService, name))
    found: dict[B3Digest, None] = {}
    silent = []
    for instance in chosen:
        if instance.kind.contract is not BlobService or instance.edges:
            continue
        deadlines = Deadlines(instance.name)
        try:
            service = stores.service(instance)
            found |= dict.fromkeys(deadlines.call(lambda each=service: _listed(each, digest), timeout))  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - whatever a service raises concerns it alone
            silent.append(instance.name)
        finally:
            deadlines.close()
    whole = only_one(digest, found, "the composition")
    if whole is None:
        unheard = f"; {listing(silent)} could not be asked: give all 64 digits" if silent else ""
        raise NothingBeginsSoError(f"no blob of a service that lists its blobs begins with {digest}{unheard}")
    return whole


def _listed(service: BlobService, digest: ShortDigest, most: int = _MOST) -> list[B3Digest]:
    from itertools import islice  # noqa: PLC0415 - as above

    from castore.contract.capabilities import BlobLister  # noqa: PLC0415 - as above

    lister = service.capability(BlobLister)
    return [] if lister is None else list(islice(lister.complete(digest.digits), most))


def complete_digest(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what begins with the digits in the service of the line, or nothing if that fails.

    Without a digit there would be nothing but all of them.
    """
    # Shells ask for completions far more seldom than for anything else.
    from castore.cli.settings import Settings  # noqa: PLC0415
    from castore.threads.deadlines import Deadlines  # noqa: PLC0415

    if not _SOME_DIGITS.fullmatch(incomplete):
        return []
    settings = attrs.evolve(ctx.find_object(Settings) or Settings(), quiet=True, stats=False)

    def listed() -> list[B3Digest]:
        with settings.opened() as stores:
            return _listed(stores.blobs(settings.service_name), ShortDigest(incomplete), _MOST_OFFERED + 1)

    deadlines = Deadlines("completion")
    try:
        found = deadlines.call(listed, _PATIENCE)
        if len(found) > _MOST_OFFERED:
            return []  # What some of them begin with is not what all do.
    except Exception:  # noqa: BLE001 - a line that is typed is no place for errors
        return []
    finally:
        deadlines.close()
    return [CompletionItem(str(each)) for each in found]


def shown(digest: B3Digest | str, *, full: bool = False) -> str:
    """Return a digest as stdout shows it: on a terminal its first digits, unless all are asked for."""
    return str(digest) if full or not stdout_is_terminal() else str(digest)[:SHOWN]
