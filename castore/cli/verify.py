"""`castore verify`."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from castore.cli.counting import count_items
from castore.cli.digests import read_digests
from castore.cli.faults import FAILED
from castore.cli.options import as_share, as_time, complete_service, shared_options, workers_option
from castore.cli.output import complain
from castore.cli.parts import has_no_store, is_composite, without_capability
from castore.cli.pools import pool_of
from castore.cli.progress import ProgressMeter
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.cli.verdict import Conclusion, show
from castore.cli.verifying_roots import verify_roots
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.contract.upkeep import Inventory
from castore.digest import B3Digest
from castore.errors import UnsupportedError
from castore.trees.naming import TreePlace
from castore.upkeep import Counts, Ledger, Scope, StateFileError, Verification, repair

if TYPE_CHECKING:
    from castore.upkeep import PartDone

_EPILOG = """\b
Examples:
  castore verify --service local
  castore verify --service local --repair-from archive
  castore verify --service archive --sample 5% --workers 16
  castore verify --service archive --resume verify.state
  castore verify --service archive --dask tcp://scheduler:8786
  castore verify www@latest
  castore verify ROOT ROOT:docs --read --repair-from archive

\b
With --json, sizes in bytes; with --repair-from a finding also has "mended",
"repair" and "quarantine":
  {"service", "ok", "sample", "seed",
   "checked": {"blobs", "chunks", "bytes", "skipped", "seconds"},
   "findings": [{"what", "digest", "code", "message", "key",
                 "blob", "chunk"}],
   "residue": [{"key", "size", "modified"}]}
Of trees; `sizes` is "snix", "spec" or "mixed":
  {"service", "ok", "sizes",
   "checked": {"roots", "directories", "files", "bytes", "seconds"},
   "findings": [{"what", "root", "path", "digest", "code", "message"}]}
"""


@click.command("verify", epilog=_EPILOG)
@click.argument("roots", metavar="[ROOT[:PATH]...]", nargs=-1, type=as_place)
@click.option("--read", is_flag=True, help="With ROOT: also read each blob from start to end.")
@click.option("--sample", metavar="SHARE", type=as_share, help="Check only a part of all, such as 5%.")
@click.option("--seed", metavar="N", type=click.IntRange(0, (1 << 63) - 1), help="Which part that is.")
@click.option(
    "--since", metavar="TIME", type=as_time, help="Check what was stored since, such as 7d or 2030-01-31."
)
@workers_option
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Let the workers of a Dask cluster do it; ADDRESS is that of its scheduler, such as tcp://HOST:8786.",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Note in FILE what was checked; go on from there if it is there.",
)
@click.option(
    "--expect",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Digests of blobs that must be there, one per line, as `castore list` prints them; `-` is stdin.",
)
@click.option(
    "--repair-from",
    "donor",
    metavar="NAME",
    help="Mend what is wrong with what NAME has.",
    shell_complete=complete_service,
)
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    roots: tuple[TreePlace, ...],
    read: bool,
    sample: float | None,
    seed: int | None,
    since: float | None,
    workers: int | None,
    dask: str | None,
    resume: str | None,
    expect: str | None,
    donor: str | None,
) -> int:
    """Check every chunk, every index, and every blob from start to end; or with ROOT trees.

    Of a tree all directories are checked, and that the blob of each file is there and has the size that the
    tree gives it. ROOT is a digest or the name of a ref.

    What is damaged and can be had from --repair-from NAME is moved into quarantine and replaced. The exit
    code is 1 if anything is wrong in the end. Files that a killed writer has left behind are not wrong.
    """
    if donor is not None and donor == settings.service_name:
        raise click.UsageError(f"--repair-from names `{donor}`, which is what is checked.")
    if roots:
        given = {
            "sample": sample,
            "seed": seed,
            "since": since,
            "dask": dask,
            "resume": resume,
            "expect": expect,
        }
        for name, value in given.items():
            if value is not None:
                raise click.UsageError(f"--{name} is for a whole service; a ROOT is checked as a whole.")
        return verify_roots(settings, roots, read=read, workers=workers, donor=donor)
    if read:
        raise click.UsageError("--read is for a ROOT; without one every blob is read.")
    if dask is not None and (resume is not None or workers is not None):
        raise click.UsageError("--dask goes with neither --resume nor --workers: the cluster has workers.")
    expected = [] if expect is None else list(read_digests(expect))
    with settings.opened() as stores:
        service = _checkable(stores, settings.service_name)
        other = None if donor is None else stores.blobs(donor)
        identity = f"{settings.service_name} of {Path(stores.name).absolute()}"
        with (
            _ledger(resume, identity, sample, seed, since) as ledger,
            pool_of(stores, workers, service) as pool,
            ProgressMeter(noun="item", hidden=settings.quiet) as meter,
        ):
            verdict = Conclusion(settings.service_name, ledger.scope)
            if meter.active:
                meter.items = count_items(service, ledger.scope, meter)
            seen = 0

            def progress(count: int) -> None:
                nonlocal seen
                now = check.tally.blobs + check.tally.chunks + check.tally.skipped
                meter.item_done(now - seen)
                seen = now
                meter.advance(count)

            check = Verification(service, ledger, expected=expected, pool=pool, progress=progress)
            verdict.tally, verdict.residue = check.tally, check.residue
            try:
                if dask is None:
                    verdict.findings.extend(check.run())
                else:
                    _spread(verdict, stores, dask, expected, meter)
                verdict.stop_clock()
                if other is not None and verdict.findings:
                    name = f"`{donor}`"
                    mended = repair(service, other, verdict.findings, name=name, progress=meter.advance)
                    verdict.mendings = list(mended)
                ledger.finish()
            except KeyboardInterrupt:
                if resume is not None:
                    complain(f"castore: interrupted; the next `verify --resume {resume}` goes on from here")
                raise
        none = has_no_store(stores, settings.service_name, settings)
    show(verdict, settings)
    return FAILED if none or not verdict.ok else 0


def _spread(
    verdict: Conclusion, stores: Composition, address: str, expected: list[B3Digest], meter: ProgressMeter
) -> None:
    """Have a cluster check the service."""
    from castore.cli.clusters import dask_cluster  # noqa: PLC0415 - few have one
    from castore.upkeep import spread  # noqa: PLC0415 - as above

    def progress(done: PartDone) -> None:
        tally: Counts = done.result.tally
        meter.item_done(tally.blobs + tally.chunks)
        meter.advance(tally.bytes)

    with dask_cluster(address) as submit:
        report = spread(
            "verify",
            stores,
            verdict.service,
            submit,
            scope=verdict.scope,
            expected=expected,
            progress=progress,
        )
    verdict.findings, verdict.residue, verdict.tally = report.findings, report.residue, report.tally


def _checkable(stores: Composition, name: str) -> BlobService:
    """Return the service to check; a composite is refused that would hide which of its parts is damaged."""
    service = stores.blobs(name)
    if service.capability(Inventory) is None and is_composite(stores, name):
        raise UnsupportedError(without_capability(stores, name, "be verified as a whole"))
    return service


@contextlib.contextmanager
def _ledger(
    path: str | None, identity: str, sample: float | None, seed: int | None, since: float | None
) -> Iterator[Ledger]:
    scope = Scope(
        1.0 if sample is None else sample, secrets.randbelow(1 << 32) if seed is None else seed, since
    )
    try:
        ledger = Ledger(path, service=identity, scope=scope)
    except StateFileError as error:
        raise click.UsageError(f"{error}.") from None
    with contextlib.closing(ledger):
        found = ledger.scope
        if (sample, seed) != (sample and found.sample, seed if seed is None else found.seed):
            raise click.UsageError(
                f"{path} is of a verification with another --sample or --seed; leave these out to go on"
                " with it, or remove the file."
            )
        yield ledger
