"""The `castore` command and the list of its subcommands."""

from __future__ import annotations

import contextlib
import io
from collections.abc import MutableMapping, Sequence
from importlib import import_module
from typing import Any, Final

import click

from castore.cli.faults import USAGE, reported
from castore.cli.options import shared_options
from castore.cli.output import complain, emit, emit_text, finish_output, leave_output
from castore.cli.settings import Settings

SECTIONS: Final = {
    "Blobs": {
        "put": "Store files and print their digests.",
        "get": "Write a blob to a file or to stdout.",
        "has": "Tell which blobs are there.",
        "stat": "Show the size of a blob, or of all that there is.",
        "list": "List the blobs.",
    },
    "Trees": {
        "import": "Store folders, each as a tree, and print its root.",
        "ingest": "The same as import.",
        "export": "Make a folder of a tree.",
        "ls": "List what is in a tree.",
        "tree": "Draw what is in a tree.",
        "find": "Find things in a tree.",
        "du": "Tell how large trees are.",
        "cat": "Write files of a tree to stdout.",
        "diff": "Tell what two trees differ in.",
        "merge": "Make one tree of several.",
        "filter": "Make a tree of a part of another one.",
        "ref": "Give names to roots, look at them, forget them.",
    },
    "Looking after services": {
        "locate": "Tell who holds a blob: all of it, or a part.",
        "explain": "Tell what has, get and put of a blob would do.",
        "copy": "Copy blobs from one service to another.",
        "verify": "Check all that a service keeps, and mend it.",
        "gc": "Remove what no root reaches.",
    },
    "Doors": {
        "serve": "Serve blobs and directories to other programs, over gRPC.",
        "http": "Serve blobs and trees to browsers, over HTTP.",
        "mount": "Show a tree, or all refs, as a folder.",
        "umount": "End what mount has mounted.",
    },
    "Compositions": {
        "check": "Check a composition, and with --connect its services.",
        "graph": "Draw a composition.",
        "plugins": "Show the installed types of services and their fields.",
        "schema": "Print the JSON Schema of composition.toml.",
        "help": "Show this, or with COMMAND what that does.",
    },
}
"""The subcommands by what they are about, and what help says of each."""

COMMANDS: Final = {name: words for section in SECTIONS.values() for name, words in section.items()}
"""All subcommands; each is the object `command` of the module of its name, or of one that is named below."""

_MODULES: Final = {"import": "importing"}

_EPILOG: Final = """\b
Examples:
  castore put photo.raw          store a file in the service `root`
  castore get DIGEST -o copy     and get it back
  castore import photos/         store a folder; `castore export` makes it again
  castore graph                  see what the composition declares

The composition is FILE of --composition, else $CASTORE_COMPOSITION, else composition.toml here or in the
nearest folder above; without any of these, blobs are kept in your data folder.

With --json a command prints one JSON object on stdout, or for what is in trees one on each line; errors
are {"error": {"code", "message", ...}} on stderr, and so is what --stats shows:
{"stats": {"instances": [...]}}.

Exit codes: 0 done; 1 not there, or a check failed; 2 wrong usage or configuration.

\b
Shell completion, of commands, options and the names of services:
  bash   eval "$(_CASTORE_COMPLETE=bash_source castore)"      in ~/.bashrc
  zsh    eval "$(_CASTORE_COMPLETE=zsh_source castore)"       in ~/.zshrc
  fish   _CASTORE_COMPLETE=fish_source castore | source       in ~/.config/fish/config.fish
"""


class App(click.Group):
    """A group that imports a subcommand when it is called, and reports whatever goes wrong."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command line and exit with its code."""
        settings = Settings()
        try:
            with reported(settings):
                code = super().main(
                    args, prog_name or "castore", standalone_mode=False, obj=settings, **_kept(extra)
                )
                finish_output()
        except SystemExit:
            leave_output(whole=settings.json)
            raise
        finally:
            if settings.stats:
                _show_stats(settings)
        raise SystemExit(code or 0)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Note first what the arguments say of errors: their order must not matter for that."""
        words = args[: args.index("--")] if "--" in args else args
        settings = extra.get("obj")
        if isinstance(settings, Settings):
            settings.json = "--json" in words
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. Errors are caught here: click would take some of them for its own."""
        with reported(ctx.ensure_object(Settings)):
            return super().invoke(ctx)

    def _main_shell_completion(
        self, ctx_args: MutableMapping[str, Any], prog_name: str, complete_var: str | None = None
    ) -> None:
        """Answer a shell that completes a line, by way of what writes to stdout."""
        answer = io.BytesIO()
        try:
            with contextlib.redirect_stdout(io.TextIOWrapper(answer, "utf-8", write_through=True)):
                super()._main_shell_completion(ctx_args, prog_name, complete_var)
        except SystemExit:
            emit(answer.getvalue())
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the subcommands, in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"castore.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a subcommand; say what to do instead if there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(no_command(name))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the list of subcommands without importing any."""
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), words) for name, words in section.items()])


def no_command(name: str) -> str:
    """Return what is said of a word that is no command."""
    # Only mistakes need these.
    import difflib  # noqa: PLC0415

    from castore.cli.hints import HINTS  # noqa: PLC0415

    words = f"There is no command {name!r}."
    word = name.lower().lstrip("-")
    if word in HINTS:
        return f"{words}\n{HINTS[word]}"
    if word in _tags():
        return f"{words}\n`{word}` is a type of service: `castore plugins {word}` tells about it."
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    if near:
        return f"{words} Did you mean `{near[0]}`?"
    alike = difflib.get_close_matches(word, HINTS, n=1, cutoff=0.8)
    return f"{words}\n{HINTS[alike[0]]}" if alike else words


def _tags() -> set[str]:
    """Return the tags of the installed types."""
    from castore.composition.types.registry import Registry  # noqa: PLC0415 - as above
    from castore.errors import CastoreError  # noqa: PLC0415

    try:
        return {entry.tag for entry in Registry.default().all_types()}
    except CastoreError:
        return set()  # Another command will say what is wrong with a plugin.


def _show_stats(settings: Settings) -> None:
    from castore.cli.stats import show_stats  # noqa: PLC0415 - only who asks for them needs it

    show_stats(settings)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 - takes its time

        emit_text(f"castore {version('castore')}\n")
        ctx.exit()


def _kept(extra: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in extra.items() if key not in {"standalone_mode", "obj"}}


@click.group(
    cls=App,
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@shared_options
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="Show the version and exit.",
    callback=_show_version,
)
@click.pass_context
def app(ctx: click.Context) -> int | None:
    """Store blobs in, and get them from, a stack of content-addressed stores."""
    if ctx.invoked_subcommand is not None:
        return None
    complain(ctx.get_help())
    ctx.exit(USAGE)
