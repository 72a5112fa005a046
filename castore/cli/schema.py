"""`castore schema`."""

from __future__ import annotations

import click

from castore.cli.options import shared_options_without_composition
from castore.cli.output import emit_json
from castore.composition.schema import schema_of
from castore.composition.types.registry import Registry

_EPILOG = """\b
Example:
  castore schema > composition.schema.json

and as the first line of composition.toml, for editors with Taplo (such as Even Better TOML):

\b
  #:schema ./composition.schema.json
"""


@click.command("schema", epilog=_EPILOG)
@shared_options_without_composition
def command() -> None:
    """Print the JSON Schema of composition.toml with the installed types, for editors."""
    emit_json(schema_of(Registry.default()))
