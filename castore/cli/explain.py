"""`castore explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from castore.cli.holdings import holding_row
from castore.cli.options import as_seconds, shared_options
from castore.cli.output import emit_json, emit_text, emphasised, folded, printable
from castore.cli.roots import BlobFinder, BlobPlace, as_blob
from castore.cli.settings import Settings
from castore.cli.short_digests import complete_digest, completed_anywhere
from castore.contract.plans import OPERATIONS, Operation, Plan, Step
from castore.trees.naming import TreePlace
from castore.upkeep import explain
from castore.upkeep.surveying import TIMEOUT

_EPILOG = """\b
Examples:
  castore explain DIGEST
  castore explain DIGEST --op get

\b
With --json; a step is a remark, or an instance that is described beside it:
  {"digest",
   "operations": [{"operation", "outcome", "instance",
     "instances": [{"instance", "type", "outcome", "says",
                    "holds": {as in `castore locate`},
                    "steps": [{"label", "instance"} or {"says"}]}]}]}
"""


@click.command("explain", epilog=_EPILOG)
@click.argument("blob", metavar="DIGEST", type=as_blob, shell_complete=complete_digest)
@click.option("--op", type=click.Choice(OPERATIONS), help="Only one of the operations.")
@click.option(
    "--timeout",
    metavar="TIME",
    default=f"{TIMEOUT:g} s",
    type=as_seconds,
    help="How long to wait for a service, such as `2 s`. Default: 10 s.",
)
@shared_options
@click.pass_obj
def command(settings: Settings, blob: BlobPlace, op: Operation | None, timeout: float) -> None:
    """Tell what a has, a get and a put of a blob would do, step by step, without doing it.

    Stores are asked whether they have it, its index and its chunks; nothing else is read, and nothing is
    written. One that fails or hangs is shown as unavailable.
    """
    operations = OPERATIONS if op is None else (op,)
    with settings.opened() as stores:
        if isinstance(blob, TreePlace):
            digest = BlobFinder(stores, settings.service_name).digest(blob)
        else:
            digest = completed_anywhere(blob, stores, settings.service_name, timeout)
        plans = explain(stores, digest, name=settings.service_name, operations=operations, timeout=timeout)
    if settings.json:
        emit_json({"digest": str(digest), "operations": [_document(plan, settings) for plan in plans]})
        return
    blocks = [settings.scrubbed(printable("\n".join(_tree(plan)))) for plan in plans]
    emit_text("\n\n".join(_emphasised(folded(block)) for block in blocks) + "\n")


def _emphasised(block: str) -> str:
    head, _, rest = block.partition("\n")
    return f"{emphasised(head, bold=True)}\n{rest}"


def _tree(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan: those beneath an instance only once, as `castore graph` does."""
    yield plan.operation
    done: set[str] = set()
    # A list of what is still to come, not recursion: a chain may be longer than Python's stack.
    rest = [("", "", Step(plan=plan))]
    while rest:
        lead, branch, step = rest.pop()
        told = step.plan
        if told is None:
            yield f"{lead}{branch}{step.says}"
            continue
        field = f"{step.label} → " if step.label else ""
        seen = told.instance in done and told.steps
        words = f"{told.instance}  {told.type}: {told.says}{'  (see above)' if seen else ''}"
        yield f"{lead}{branch}{field}{words}"
        if seen:
            continue
        done.add(told.instance)
        below = lead + {"": "", "├── ": "│   ", "└── ": "    "}[branch]
        branches = ["├── "] * (len(told.steps) - 1) + ["└── "] * bool(told.steps)
        rest += reversed([(below, mark, entry) for mark, entry in zip(branches, told.steps, strict=True)])


def _document(plan: Plan, settings: Settings) -> dict[str, Any]:
    plans: dict[str, Plan] = {}
    waiting = [plan]
    while waiting:
        entry = waiting.pop()
        if entry.instance not in plans:
            plans[entry.instance] = entry
            waiting += reversed([step.plan for step in entry.steps if step.plan is not None])
    return {
        "operation": plan.operation,
        "outcome": plan.outcome,
        "instance": plan.instance,
        "instances": [
            {
                "instance": entry.instance,
                "type": entry.type,
                "outcome": entry.outcome,
                "says": settings.scrubbed(entry.says),
                "holds": holding_row(entry.holding, settings),
                "steps": _steps(entry.steps, settings),
            }
            for entry in plans.values()
        ],
    }


def _steps(steps: Sequence[Step], settings: Settings) -> list[dict[str, str]]:
    return [
        {"says": settings.scrubbed(step.says)}
        if step.plan is None
        else {"label": step.label, "instance": step.plan.instance}
        for step in steps
    ]
