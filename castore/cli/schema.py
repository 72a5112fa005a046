"""`castore schema`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options_without_composition, tables_in
from castore.cli.output import emit_json
from castore.composition.schema import schema_of
from castore.composition.types.registry import Registry

_EPILOG = """\b
Example:
  castore schema > composition.schema.json

and as the first line of composition.toml, for editors with Taplo (such as Even Better TOML):

\b
  #:schema ./composition.schema.json

\b
With FILE the schema is for that one alone: an editor then offers the keys of
each instance's type and no others, and the names for references.
"""


@click.command("schema", epilog=_EPILOG)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(readable=False))
@shared_options_without_composition
def command(*, file: str | None) -> None:
    """Print the JSON Schema of composition.toml with the installed types, for editors.

    With FILE, a composition that may be half written, it knows what is declared there.
    """
    tables = {} if file is None else tables_in(file)
    emit_json(schema_of(Registry.default(), tables))
