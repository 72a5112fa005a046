"""`castore graph`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import attrs
import click

from castore.cli.files import replacing
from castore.cli.options import shared_options, timeout_option
from castore.cli.output import emit_text, folded
from castore.cli.settings import Settings
from castore.composition.composition import Composition
from castore.contract.blobs import BlobService
from castore.drawing import FORMATS

if TYPE_CHECKING:
    from castore.drawing import Picture

_BY_ENDING: Final = {".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot", ".svg": "svg"}

_EPILOG = """\b
Examples:
  castore graph
  castore graph -o stack.svg
  castore graph --connect
  castore graph staging.toml --format dot | dot -Tpng > stack.png

With --json it is --format json.
"""


@click.command("graph", epilog=_EPILOG)
@click.argument("file", required=False, type=click.Path(readable=False))
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    type=click.Choice(list(FORMATS)),
    help=f"One of {', '.join(FORMATS)}.  [default: by the ending of the output, else tree]",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, readable=False), help="Write to FILE."
)
@click.option("--connect", is_flag=True, help="Build each instance, ask it, and draw how it is.")
@timeout_option
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    file: str | None,
    format_: str | None,
    output: str | None,
    connect: bool,
    timeout: float,
) -> None:
    """Draw a composition, FILE or the one that other commands would use: its instances and who uses whom.

    No secrets are shown. Without --connect nothing is opened or contacted. With it, each instance is asked
    for a blob that is nowhere, and drawn with its state: whether it answers, and what it tells of itself,
    such as an open breaker or what waits in a queue. Nothing is written.

    --service NAME draws only that one and what it needs.
    """
    settings.composition = file or settings.composition
    chosen = _format(settings, format_, output)
    draw = FORMATS[chosen]
    with settings.opened() as stores:
        drawing = draw(_picture(stores, settings, connect=connect, timeout=timeout))
    if output is None:
        emit_text(folded(drawing) if chosen == "tree" else drawing)
        return
    with replacing(output) as write:
        write(drawing.encode("utf-8", "backslashreplace"))


def _format(settings: Settings, wanted: str | None, output: str | None) -> str:
    if settings.json and wanted not in {None, "json"}:
        raise click.UsageError(f"`--json` and `--format {wanted}` are two things: choose one.")
    ending = os.path.splitext(output or "")[1].lower()  # noqa: PTH122 - a string of the user's
    return wanted or ("json" if settings.json or ending == ".json" else _BY_ENDING.get(ending, "tree"))


def _picture(stores: Composition, settings: Settings, *, connect: bool, timeout: float) -> Picture:
    if settings.service is None:
        return stores.picture(stores.probe(timeout=timeout) if connect else ())
    start = stores.instance(BlobService, settings.service)
    chosen = list(stores.graph.reachable(start))
    picture = stores.picture(stores.probe(chosen, timeout=timeout) if connect else ())
    kept = {instance.id for instance in chosen}
    return attrs.evolve(
        picture,
        nodes=tuple(node for node in picture.nodes if node.id in kept),
        edges=tuple(edge for edge in picture.edges if edge.source in kept),
        roots=(start.id,),
        unreachable=frozenset(),
    )
