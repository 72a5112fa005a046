"""From an exception to what the user sees of it: one message and an exit code, never a traceback.

====  ======================================================================================
code  meaning
====  ======================================================================================
0     done
1     not there, or a check failed; also: unavailable, corrupt, cannot be read or written
2     wrong usage or configuration; trying again does not help
130   interrupted; 141: whoever read the output has gone away
====  ======================================================================================
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from castore.cli.output import OutputGoneError, complain
from castore.cli.settings import Settings
from castore.errors import (
    BuildError,
    CastoreError,
    CompositionError,
    InvalidDigestError,
    InvalidRefError,
    PluginError,
    UnavailableError,
    UnsupportedError,
    describe,
)

if TYPE_CHECKING:
    from castore.problems import Problem

FAILED: Final = 1
INCOMPLETE: Final = 3
"""Done, but for what was allowed to be left out."""
USAGE: Final = 2
INTERRUPTED: Final = 130
OUTPUT_GONE: Final = 141

_NO_MEMORY: Final = "there is not enough memory; fewer `--workers`, where the command has them, need less"

_MISUSE: Final = (CompositionError, InvalidDigestError, InvalidRefError, PluginError, UnsupportedError)


@contextlib.contextmanager
def reported(settings: Settings) -> Iterator[None]:
    """End the process with a message and an exit code if the block raises."""
    try:
        yield
    except (SystemExit, click.exceptions.Exit):
        raise
    except OutputGoneError:
        raise SystemExit(OUTPUT_GONE) from None
    except (KeyboardInterrupt, click.Abort) as error:
        _show_traceback(error, settings)
        raise SystemExit(INTERRUPTED) from None
    except click.ClickException as error:
        _report(document_of(error, settings), _usage(error), settings)
        _show_traceback(error, settings)
        raise SystemExit(error.exit_code) from None
    except Exception as error:  # noqa: BLE001 - the last resort: a message, whatever it is
        _report(document_of(error, settings), _words(error, settings), settings)
        _show_traceback(error, settings)
        raise SystemExit(exit_code(error)) from None


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error of castore or of the system."""
    if isinstance(error, BuildError):
        # A service that cannot be reached is not a mistake in the config; anything else is.
        return FAILED if isinstance(error.cause, (UnavailableError, OSError)) else USAGE
    return USAGE if isinstance(error, _MISUSE) else FAILED


def document_of(error: BaseException, settings: Settings) -> dict[str, Any]:
    """Return an error as it is shown with `--json`."""
    if isinstance(error, click.ClickException):
        return {"code": "usage", "message": error.format_message()}
    if isinstance(error, MemoryError):
        return {"code": "memory", "message": _NO_MEMORY}
    document: dict[str, Any] = {
        "code": error.code if isinstance(error, CastoreError) else "unexpected",
        "message": settings.scrubbed(str(error) if isinstance(error, CastoreError) else describe(error)),
    }
    if isinstance(error, CompositionError):
        document["problems"] = problems_of(error, settings)
    return document


def problems_of(error: CompositionError, settings: Settings) -> list[dict[str, Any]]:
    """Return the problems of a composition, one at least, as they are shown with `--json`."""
    if not error.problems:
        return [{"code": error.code, "path": "", "message": settings.scrubbed(error.message)}]
    return [row_of(problem, settings) for problem in error.problems]


def row_of(problem: Problem, settings: Settings) -> dict[str, Any]:
    """Return a problem, or a warning, as it is shown with `--json`."""
    return {
        "code": problem.code,
        "path": problem.dotted,
        "message": settings.scrubbed(problem.message),
        "hint": problem.hint,
        "line": problem.line or None,
        "column": problem.column or None,
    }


def _report(document: dict[str, Any], words: str, settings: Settings) -> None:
    complain(json.dumps({"error": document}) if settings.json else words)


def _usage(error: click.ClickException) -> str:
    words = f"castore: {error.format_message()}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{words}\nTry `{context.command_path} --help`." if context else words


def _words(error: Exception, settings: Settings) -> str:
    if isinstance(error, CompositionError) and error.problems:
        # Each problem begins with its place, as a compiler's messages do: editors can go there.
        return settings.scrubbed(error.message)
    if isinstance(error, (CastoreError, OSError)):
        return f"castore: {settings.scrubbed(describe(error))}"
    if isinstance(error, ExceptionGroup):
        return "\n".join(_words(inner, settings) for inner in error.exceptions)
    if isinstance(error, MemoryError):
        return f"castore: {_NO_MEMORY}"
    hint = "" if settings.debug else "\nThis is a mistake in castore or in a plugin; `--debug` shows where."
    return f"castore: {settings.scrubbed(describe(error))}{hint}"


def _show_traceback(error: BaseException, settings: Settings) -> None:
    if settings.debug:
        complain(settings.scrubbed("".join(traceback.format_exception(error))))
