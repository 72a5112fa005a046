"""`castore plugins`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from shutil import get_terminal_size
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from castore.cli.options import shared_options_without_composition
from castore.cli.output import emit_json, emit_text, emphasised, printable, stdout_is_terminal
from castore.cli.settings import Settings
from castore.composition.config.fields import Field, describe_fields, summary_of, toml, words_for
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import RegisteredType
from castore.problems import escaped

_WIDEST: Final = 110
_NARROWEST: Final = 40

_EPILOG = """\b
Examples:
  castore plugins
  castore plugins cache
  castore plugins --json | jq -r '.types[].tag'

\b
With --json; "toml" is the default as a composition would have it:
  {"types": [{"tag", "kind", "table", "plugin", "distribution", "formerly",
              "doc", "url_form", "fields": [{"name", "type", "required",
                                             "default", "toml", "doc"}]}],
   "chunkers": [{"tag", "doc"}],
   "broken": [{"plugin", "distribution", "reason"}], "contested": [TEXT]}
"""


def _complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    registry = Registry.default()
    types = {entry.tag: summary_of(entry.config).partition("\n")[0] for entry in registry.all_types()}
    names = {**types, **dict.fromkeys(registry.chunkers, "")}
    return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


@click.command("plugins", epilog=_EPILOG)
@click.argument("names", metavar="[NAME...]", nargs=-1, shell_complete=_complete_name)
@shared_options_without_composition
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...]) -> None:
    """Show the installed types of services, a line for each; or all of the type, or chunker, NAME.

    Plugins that do not load are shown with the reason, and so are tags that two of them bring.
    """
    registry = Registry.default()
    types = [_type_document(entry, registry) for entry in registry.all_types()]
    chunkers = [{"tag": tag, "doc": summary_of(chunker)} for tag, chunker in registry.chunkers.items()]
    broken = [
        {"plugin": entry.plugin.name, "distribution": entry.plugin.distribution, "reason": entry.cause}
        for entry in registry.broken
    ]
    if names:
        _require_known(names, [entry["tag"] for entry in (*types, *chunkers)], registry)
        types = [entry for entry in types if entry["tag"] in names]
        chunkers = [entry for entry in chunkers if entry["tag"] in names]
    if settings.json:
        contested = registry.contested
        emit_json({"types": types, "chunkers": chunkers, "broken": broken, "contested": contested})
        return
    page = _Page()
    if names:
        for document in types:
            page.add_type(document)
        if chunkers:
            page.add_list("chunkers", [(entry["tag"], entry["doc"]) for entry in chunkers])
    else:
        _add_all(page, types, [entry["tag"] for entry in chunkers])
        if broken:
            reasons = [(entry["plugin"], f"{entry['distribution']}: {entry['reason']}") for entry in broken]
            page.add_list("plugins that do not load", reasons)
        if registry.contested:
            page.add_text("tags that cannot be used", registry.contested)
    emit_text("\n".join(page.rows) + "\n")


def _require_known(names: Iterable[str], known: list[str], registry: Registry) -> None:
    for name in names:
        if name not in known:
            why = "\n".join(registry.why_unknown(kind, name) for kind in list(registry.kinds.values())[:1])
            raise click.UsageError(f"No type or chunker is named `{escaped(name)}`. {why}")


def _add_all(page: _Page, types: list[dict[str, Any]], chunkers: list[str]) -> None:
    """Add a line for each type, by its kind."""
    width = max((len(entry["tag"]) for entry in types), default=0)
    for kind in dict.fromkeys(entry["kind"] for entry in types):
        of_kind = [entry for entry in types if entry["kind"] == kind]
        owners = dict.fromkeys(entry["distribution"] or "the program" for entry in of_kind)
        lines = []
        for entry in of_kind:
            owner = f" [{entry['distribution'] or 'the program'}]" if len(owners) > 1 else ""
            summary = entry["doc"].partition("\n")[0].removesuffix(" It has no URL form.")
            lines.append((entry["tag"].ljust(width), summary + owner))
        words = f"from {next(iter(owners))}" if len(owners) == 1 else ""
        page.add_list(f"{kind}s", lines, words, short=True)
    page.add_text("", [f"chunkers: {', '.join(chunkers)}", "`castore plugins NAME` shows the fields of one."])


def _type_document(entry: RegisteredType, registry: Registry) -> dict[str, Any]:
    return {
        "tag": entry.tag,
        "kind": entry.kind.label,
        "table": entry.kind.table,
        "plugin": entry.plugin.name if entry.plugin else None,
        "distribution": entry.plugin.distribution if entry.plugin else None,
        "formerly": list(entry.formerly),
        "doc": summary_of(entry.config),
        "url_form": hasattr(entry.config, "from_url"),
        "fields": [_field_document(field, registry) for field in describe_fields(entry.config, registry)],
    }


def _field_document(field: Field, registry: Registry) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": words_for(field.shape, registry),
        "required": field.required,
        "default": field.default,
        "toml": "" if field.default is None else toml(field.default),
        "doc": field.doc,
    }


class _Page:
    """Rows of text, wrapped on a terminal and left long elsewhere."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        width = min(get_terminal_size().columns, _WIDEST)
        self._width = max(width, _NARROWEST) if stdout_is_terminal() else None

    def add_type(self, document: dict[str, Any]) -> None:
        """Add a type with its fields."""
        self._head(document["tag"], f"{document['kind']}, from {document['distribution'] or 'the program'}")
        self._text(document["doc"], indent=2)
        fields = document["fields"]
        column = 4 + max((len(field["name"]) for field in fields), default=0)
        for field in fields:
            default = f"; default {field['toml']}" if field["toml"] else ""
            state = "; required" if field["required"] else default
            self._row(f"  {field['name']}", field["type"] + state, column)
            self._text(field["doc"], indent=column)

    def add_list(
        self, head: str, entries: list[tuple[str, str]], words: str = "", *, short: bool = False
    ) -> None:
        """Add names with a text each; a *short* one is cut where the line ends."""
        self._head(head, words)
        column = 4 + max(len(name) for name, _ in entries)
        for name, text in entries:
            if short and self._width is not None and column + len(text) > self._width:
                text = textwrap.shorten(text, max(self._width - column, 10), placeholder=" …")  # noqa: PLW2901
            self._row(f"  {name}", text, column)

    def add_text(self, head: str, lines: Iterable[str]) -> None:
        """Add lines of text, below a head if there is one."""
        if head:
            self._head(head)
        elif self.rows:
            self.rows.append("")
        for line in lines:
            self._text(line, 2 if head else 0)

    def _head(self, head: str, words: str = "") -> None:
        if self.rows:
            self.rows.append("")
        self.rows.append(f"{emphasised(printable(head), bold=True)}  {printable(words)}".rstrip())

    def _row(self, name: str, text: str, column: int) -> None:
        first, *more = self._wrapped(text, column) or [""]
        self.rows.append((printable(name).ljust(column) + first.lstrip()).rstrip())
        self.rows += more

    def _text(self, text: str, indent: int) -> None:
        self.rows += self._wrapped(text, indent)

    def _wrapped(self, text: str, indent: int) -> list[str]:
        space = " " * indent
        return [
            row
            for paragraph in printable(text).split("\n")
            for row in textwrap.wrap(
                paragraph,
                self._width or sys.maxsize,
                initial_indent=space,
                subsequent_indent=space,
                break_long_words=False,
                break_on_hyphens=False,
            )
        ]
