"""`castore check`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import attrs
import click

from castore.cli.faults import FAILED, exit_code, problems_of, row_of
from castore.cli.options import shared_options, timeout_option
from castore.cli.output import complain, emit_json, emit_text, emphasised, folded, printable, table
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.composition.graph.graph import Instance
from castore.composition.probing import Probe
from castore.composition.reloading import ReloadPlan
from castore.contract.blobs import BlobService
from castore.errors import CompositionError

_EPILOG = """\b
Examples:
  castore check
  castore check staging.toml --connect
  castore check new.toml --against composition.toml

\b
With --json, also if there are problems; the last four of an instance are of
--connect:
  {"composition", "ok", "warnings": [like "problems"],
   "instances": [{"kind", "name", "type", "ok", "result", "seconds",
                  "route"}],
   "reload" (with --against): [{"id", "fate", "reasons"}],
   "problems": [{"code", "path", "message", "hint", "line", "column"}]}
"""


@click.command("check", epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option("--connect", is_flag=True, help="Build each instance and ask it for a blob that is nowhere.")
@click.option(
    "--against",
    "running",
    metavar="FILE",
    type=click.Path(readable=False),
    help="Say what would become of each instance of FILE if this one were read in its place.",
)
@click.option("--strict", is_flag=True, help="Let warnings fail the check, with exit code 1.")
@timeout_option
@shared_options
@click.pass_obj
def command(
    settings: Settings, *, file: str | None, connect: bool, running: str | None, strict: bool, timeout: float
) -> int:
    """Check a composition, FILE or the one that other commands would use, and say all that is wrong.

    What only looks wrong is a warning, on stderr. Without --connect nothing is opened, made or contacted.
    With it, the exit code is 1 if an instance does not answer in time; --service NAME asks only that one and
    those that it needs.

    With --against, FILE is a composition that runs: an instance that is kept goes on with its connections,
    one that changed is built anew, and so is what uses it.
    """
    settings.composition = file or settings.composition
    with contextlib.ExitStack() as stack:
        try:
            stores = stack.enter_context(settings.opened())
            stores.check_buildable()
            instances = _instances(stores, settings)
            plan = None if running is None else _plan(stores, running)
        except CompositionError as error:
            if not settings.json:
                raise
            emit_json(
                {
                    "composition": settings.composition,
                    "ok": False,
                    "instances": [],
                    "problems": problems_of(error, settings),
                    "warnings": [],
                }
            )
            return exit_code(error)
        probes = stores.probe(instances, timeout=timeout) if connect else []
        failed = any(not probe.ok for probe in probes) or (strict and bool(stores.warnings))
        if settings.json:
            warnings = [row_of(warning, settings) for warning in stores.warnings]
            document = _document(stores, instances, probes, settings) | {"warnings": warnings}
            if plan is not None:
                document["reload"] = [attrs.asdict(change) for change in plan.changes]
            emit_json(document)
        else:
            if stores.warnings:
                complain(settings.scrubbed(stores.describe_warnings()) + "\n")
            emit_text(_table(probes, settings) if connect else _summary(stores, instances))
            if plan is not None:
                emit_text("\n" + _fates(plan))
    return FAILED if failed else 0


def _plan(stores: Composition, running: str) -> ReloadPlan:
    """Return what becomes of a composition that runs if *stores* takes its place."""
    with contextlib.closing(Composition.from_toml(running)) as old:
        return old.plan_reload(stores)


def _fates(plan: ReloadPlan) -> str:
    words = {"kept": "kept", "changed": "built anew", "added": "new", "removed": "closed"}
    rows = [
        (printable(change.id), words[change.fate], printable("; ".join(change.reasons)))
        for change in plan.changes
    ]
    return table(("instance", "becomes", "why"), rows)


def _instances(stores: Composition, settings: Settings) -> list[Instance]:
    """Return the named instances: all, or those that the chosen service needs."""
    if settings.service is None:
        chosen = list(stores.graph.instances.values())
    else:
        chosen = list(stores.graph.reachable(stores.instance(BlobService, settings.service)))
    return [instance for instance in chosen if not instance.anonymous]


def _document(
    stores: Composition, instances: list[Instance], probes: list[Probe], settings: Settings
) -> dict[str, Any]:
    rows = [
        {"kind": instance.kind.label, "name": instance.name, "type": instance.type.tag}
        for instance in instances
    ]
    for row, probe in zip(rows, probes, strict=False):
        answer = {"ok": probe.ok, "result": settings.scrubbed(probe.result), "seconds": probe.seconds}
        row.update(answer, route=probe.route)  # type: ignore[arg-type]
    ok = all(probe.ok for probe in probes)
    return {"composition": stores.name, "ok": ok, "instances": rows, "problems": []}


def _summary(stores: Composition, instances: list[Instance]) -> str:
    return "\n".join([f"{printable(stores.name)}: {emphasised('ok', fg='green')}", *_kinds(instances)]) + "\n"


def _kinds(instances: list[Instance]) -> Iterator[str]:
    for kind in dict.fromkeys(instance.kind for instance in instances):
        names = [f"{entry.name} ({entry.type.tag})" for entry in instances if entry.kind == kind]
        yield folded(
            printable(f"  {len(names)} {kind.label}{'s' if len(names) > 1 else ''}: {', '.join(names)}")
        )


def _table(probes: list[Probe], settings: Settings) -> str:
    rows = [
        (
            probe.instance.name,
            probe.instance.type.tag,
            "" if probe.seconds is None else f"{probe.seconds * 1000:.1f} ms",
            settings.scrubbed(probe.result).replace("\n", " ") + _by(probe),
        )
        for probe in probes
    ]
    return table(("instance", "type", "latency", "result"), rows, right=(2,))


def _by(probe: Probe) -> str:
    return f", by {probe.route}" if probe.route else ""
