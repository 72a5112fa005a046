"""What is wrong with a statement of TOML, in words of who writes it.

tomli stops where it cannot go on, which is often behind the mistake: at the end of the file for a string
that was never closed, at the second word of `key = two words`. Here is found what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import tomli

from castore.composition.toml.mistakes import (
    Brackets,
    Mistake,
    begins_pair,
    begins_table,
    opened_at,
    opens_lines,
    uncommented,
)
from castore.composition.toml.spans import Path, scan
from castore.problems import Problem, dotted, toml_string

_NEVER_ENDS: Final = {"Illegal character '\\n'", "Found invalid character '\\n'", "Unterminated string"}
_PLAIN_QUOTES: Final = 'write straight quotes: `"..."`'
_OTHER_QUOTES: Final = "“”„«»‘’‚´`"  # noqa: RUF001 - they are meant
_PAIR_OR_TABLE: Final = 'write `key = "value"`, or `[blobservices.NAME]` for the table of an instance'


def explain(mistake: Mistake) -> Problem:
    """Return what is wrong, where, and what to write."""
    if not isinstance(mistake.error, tomli.TOMLDecodeError):
        return _too_much(mistake)
    message = mistake.error.msg
    if message in _NEVER_ENDS or message.startswith("Expected \"'"):
        return _open_string(mistake)
    if mistake.char.isspace() and mistake.char not in {" ", "\t", "\n"}:
        # A space for Python and for who looks at it, but not for TOML.
        return _control_character(mistake)
    for beginning, diagnose in _DIAGNOSES.items():
        if message.startswith(beginning):
            return diagnose(mistake)
    return mistake.problem(message[:1].lower() + message[1:])


def _too_much(mistake: Mistake) -> Problem:
    line = mistake.text[mistake.position : mistake.line_end(mistake.position)]
    if isinstance(mistake.error, RecursionError):
        deep = re.search(r"[\[{]{2,}", line)
        offset, width = (deep.start(), len(deep[0])) if deep else (0, len(line.rstrip()))
        message = "arrays or tables are nested too deeply"
        return mistake.problem(message, at=mistake.position + offset, width=width)
    number = re.search(r"[0-9_]{1000,}", line)
    offset, width = (number.start(), len(number[0])) if number else (0, len(line.rstrip()))
    return mistake.problem("this number has too many digits", at=mistake.position + offset, width=width)


# -- strings --


def _open_string(mistake: Mistake) -> Problem:
    found = Brackets(mistake.text, mistake.begin, mistake.position)
    quotes = [offset for offset, symbol in found.opened if symbol[0] in "\"'"]
    start = found.unclosed if found.unclosed is not None else quotes[0] if quotes else mistake.position
    quote = mistake.text[start : start + 1]
    if mistake.text.startswith(quote * 3, start):
        return mistake.problem("this string never ends", f"close it with `{quote * 3}`", at=start, width=3)
    width = len(mistake.text[start : mistake.line_end(start)].rstrip())
    return mistake.problem(
        "this string does not end on its line", f"close it with `{quote}`", at=start, width=width
    )


def _control_character(mistake: Mistake) -> Problem:
    code = f"U+{ord(mistake.char):04X}" if mistake.char else "nothing"
    if mistake.char == "\r":
        return mistake.problem(
            "a carriage return without a line feed", "save the file with the line ends of Unix or Windows"
        )
    in_string = any(
        symbol[0] == '"' for _, symbol in opened_at(mistake.text, mistake.begin, mistake.position)
    )
    hint = f"write `\\u{ord(mistake.char):04x}`" if in_string else "remove it"
    what = "an odd kind of space" if mistake.char.isspace() else "a control character"
    return mistake.problem(f"{what}, {code}", hint)


def _escape(mistake: Mistake) -> Problem:
    start = mistake.text.rfind("\\", mistake.begin, mistake.position)
    shown = mistake.text[start : start + 2].rstrip("\n")
    hint = "write `\\\\` for a backslash, or put the string in single quotes"
    if "scalar" in str(mistake.error):
        return mistake.problem(
            "there is no character with this number", at=start, width=mistake.position - start
        )
    number = shown[1:] in {"x", "u", "U"}
    message = (
        f"`{shown}` begins a character's number, but none follows" if number else f"`{shown}` means nothing"
    )
    return mistake.problem(
        f"{message} in a string" if not number else message, hint, at=start, width=len(shown)
    )


# -- values --


def _invalid_value(mistake: Mistake) -> Problem:
    opener = _left_open(mistake)
    if opener is not None:
        return _never_closed(mistake, *opener)
    if mistake.at_line_end or mistake.char in {",", "]", "}"}:
        return mistake.problem("a value is missing here")
    nested = bool(opened_at(mistake.text, mistake.begin, mistake.position))
    word = _item(mistake.rest) if nested else mistake.rest
    if word[0] in _OTHER_QUOTES:
        return mistake.problem("these are not the quotes of TOML", _PLAIN_QUOTES, width=len(word))
    if word.lower() in {"true", "false"}:
        return mistake.problem(
            "TOML writes this in small letters", f"write `{word.lower()}`", width=len(word)
        )
    if word.lower() in {"null", "nil", "none"}:
        return mistake.problem("TOML has no word for nothing", "leave the key out", width=len(word))
    return _needs_quotes(mistake, mistake.position, word)


def _needs_quotes(mistake: Mistake, start: int, word: str) -> Problem:
    hint = (
        f"write `{toml_string(word)}`" if "\n" not in word and "'" not in word and '"' not in word else None
    )
    return mistake.problem("text needs quotes around it", hint, at=start, width=len(word))


def _invalid_date(mistake: Mistake) -> Problem:
    return mistake.problem("there is no such date or time", width=len(mistake.rest.split(",")[0]))


def _left_over(mistake: Mistake) -> Problem:
    """Explain what stands behind a whole statement."""
    width = len(mistake.rest)
    if mistake.char == "\r":
        return _control_character(mistake)
    if mistake.line.startswith("["):
        if mistake.char == "]":
            return mistake.problem("there is a `]` too many", width=width)
        return mistake.problem("nothing can follow the name of a table on its line", _NEW_LINE, width=width)
    if re.match(r"[\w.-]+[ \t]*=", mistake.rest):
        return mistake.problem("there are two keys on one line", _NEW_LINE, width=width)
    if mistake.char in {",", ";"}:
        return mistake.problem(f"no `{mistake.char}` belongs after a value", "remove it")
    return _behind_value(mistake)


def _behind_value(mistake: Mistake) -> Problem:
    width = len(mistake.rest)
    match = _VALUE.match(mistake.text, mistake.begin)
    start = match.end() if match else mistake.position
    word = uncommented(mistake.text[start : mistake.line_end(start)])
    if word.startswith(("[", "{")):
        return mistake.problem(f"the {'array' if word[0] == '[' else 'table'} ends before this", width=width)
    if word.startswith(('"', "'")):
        hint = 'for a `"` in a string, write `\\"`' if word[0] == '"' else None
        return mistake.problem("the string ends before this", hint, width=width)
    if re.fullmatch(r"[+-]?0[0-9_]+", word):
        hint = f"write `{word.lstrip('+-0') or 0}`, or in quotes if it is text"
        return mistake.problem("a number does not begin with 0", hint, at=start, width=len(word))
    return _needs_quotes(mistake, start, word)


_NEW_LINE: Final = "begin a new line"
_VALUE: Final = re.compile(r"""(?:[^="'\n]|"[^"\n]*"|'[^'\n]*')*=[ \t]*""")


def _left_open(mistake: Mistake) -> tuple[int, str] | None:
    """Return the bracket that is still open where another statement seems to begin, or the file ends."""
    line_start = mistake.text.rfind("\n", 0, mistake.position) + 1
    until = max(line_start, mistake.begin) if mistake.char else mistake.position
    opened = opened_at(mistake.text, mistake.begin, until)
    if not opened:
        return None
    offset, bracket = opened[-1]
    line = mistake.text[line_start : mistake.line_end(line_start)]
    begins = begins_table(line) or (begins_pair(line) and not opens_lines(mistake.text, offset))
    return (offset, bracket) if begins or not mistake.char else None


def _never_closed(mistake: Mistake, start: int, bracket: str) -> Problem:
    closer, what = ("]", "array") if bracket == "[" else ("}", "table")
    return mistake.problem(f"this `{bracket}` is never closed", f"close the {what} with `{closer}`", at=start)


def _unclosed(mistake: Mistake) -> Problem:
    """Tell an array or inline table that is not closed from one that lacks a comma."""
    opener = _left_open(mistake)
    if opener is not None:
        return _never_closed(mistake, *opener)
    if mistake.char in {"]", "}"}:
        what, closer = ("array", "]") if mistake.char == "}" else ("table", "}")
        return mistake.problem(f"`{mistake.char}` closes nothing", f"the {what} ends with `{closer}`")
    line_start = mistake.text.rfind("\n", 0, mistake.position) + 1
    number = re.search(r"[0-9][0-9_.]*[ \t]*$", mistake.text[line_start : mistake.position])
    if number and mistake.char.isalpha():
        offset = line_start + number.start()
        return _needs_quotes(mistake, offset, _item(mistake.text[offset : mistake.line_end(offset)]))
    return mistake.problem("a `,` is missing before this", width=len(_item(mistake.rest)))


def _item(line: str) -> str:
    """Return what is left in *line* of an item of an array or inline table."""
    return re.split(r"[,\]}\n#]", line)[0].rstrip()


# -- keys and headers --


def _no_equals(mistake: Mistake) -> Problem:
    """Explain what stands behind a key in the place of `=`."""
    opened = opened_at(mistake.text, mistake.begin, mistake.position)
    inside = mistake.text[opened[-1][0] + 1 : mistake.position] if opened else ""
    start = (
        max(mistake.position - len(inside.split(",")[-1].lstrip()), mistake.begin)
        if opened
        else mistake.begin
    )
    start += len(mistake.text[start : mistake.position]) - len(
        mistake.text[start : mistake.position].lstrip()
    )
    if mistake.char == ":":
        return mistake.problem("there is a `:` in the place of `=`", 'write `key = "value"`')
    end = mistake.line_end(start)
    key, equals, _ = mistake.text[start:end].partition("=")
    if equals and "," not in key and "}" not in key:
        return _key_needs_quotes(mistake, start, key.rstrip())
    word = uncommented(mistake.text[start:end])
    if opened:
        return mistake.problem("a `=` and a value are missing here")
    if re.fullmatch(r"[\w-]+(\.[\w-]+)+", word):
        return mistake.problem("this is no table", f"write `[{word}]`", at=start, width=len(word))
    message = "this is neither a key with a value nor a table"
    return mistake.problem(message, _PAIR_OR_TABLE, at=start, width=len(word))


def _key_needs_quotes(mistake: Mistake, start: int, key: str) -> Problem:
    odd = next((c for c in key if not re.match(r"[A-Za-z0-9_.\"'-]", c)), " ")
    hint = f"write `{toml_string(key)} = ...`" if '"' not in key and "'" not in key else None
    name = "a space" if odd.isspace() else f"`{odd}`"
    return mistake.problem(f"a key with {name} in it needs quotes", hint, at=start, width=len(key))


CONFLICT: Final = re.compile(r"<{7}(?!<)|={7}(?!=)|>{7}(?!>)")
"""The lines that `git` puts around the two sides of a conflict."""


def _invalid_statement(mistake: Mistake) -> Problem:
    line = mistake.rest
    if CONFLICT.match(line):
        return mistake.problem("a merge conflict begins here", "decide which part stays", width=len(line))
    if re.match(r"//|/\*|;|--|%", line):
        return mistake.problem("this is no comment", "a comment begins with `#`", width=len(line))
    if line[0] in "=]},":
        is_equals = line[0] == "="
        message = "the key before the `=` is missing" if is_equals else f"this `{line[0]}` belongs to nothing"
        return mistake.problem(message, None if is_equals else "remove it")
    key, equals, _ = line.partition("=")
    if equals:
        return _key_needs_quotes(mistake, mistake.position, key.rstrip())
    return mistake.problem("this is neither a key with a value nor a table", _PAIR_OR_TABLE, width=len(line))


def _key_part(mistake: Mistake) -> Problem:
    """Explain a part of a key that begins with what no key can begin with, or is not there."""
    odd = re.match(r"[^\s.=\[\]{},#\"']+", mistake.text[mistake.position :])
    if not odd:
        return mistake.problem("a name is missing here")
    return mistake.problem(
        f"a name with `{odd[0][0]}` in it needs quotes", f"write `{toml_string(odd[0])}`", width=len(odd[0])
    )


def _header(mistake: Mistake) -> Problem:
    """Explain a table's header that does not end behind its name."""
    closer = "]]" if mistake.line.startswith("[[") else "]"
    if mistake.at_line_end or mistake.char == "]":
        return mistake.problem(f"the `{closer}` after the name of the table is missing")
    start = max(mistake.text.rfind(symbol, mistake.begin, mistake.position) for symbol in "[.") + 1
    name = re.split(r"[.\]\n]", mistake.text[start:])[0].rstrip()
    if mistake.char == "=":
        return mistake.problem(f"the `{closer}` after the name of the table is missing")
    odd = (
        "a space"
        if mistake.char.isascii() and mistake.text[mistake.position - 1].isspace()
        else f"`{mistake.char}`"
    )
    return mistake.problem(
        f"a name with {odd} in it needs quotes", f"write `{toml_string(name)}`", at=start, width=len(name)
    )


# -- what is there already --


def _declared_twice(mistake: Mistake) -> Problem:
    """Explain a key or a table that is declared once more."""
    key = mistake.line
    if not key.startswith("["):
        match = _KEY.match(mistake.text, mistake.begin)
        key = match[0].strip() if match else key
    path = _path_of(key, mistake.table)
    places = scan(mistake.text[: mistake.begin])
    # What is there already, or what it would be a part of.
    there = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in places), path)
    line = places[there].key.line if there in places else 0
    return mistake.problem(
        *_why_not(mistake, key, path, there, line), at=mistake.text.index(key, mistake.begin), width=len(key)
    )


def _why_not(mistake: Mistake, key: str, path: Path, there: Path, line: int) -> tuple[str, str]:
    """Return why a key cannot be declared, and what to do."""
    if there != path:
        message = f"nothing can be added to `{dotted(there)}`, which line {line} gives as a whole"
        return message, "write all of it in one place"
    if not key.startswith("["):
        return f"the key `{dotted(path[-1:])}` is here twice: line {line} has it already", _ONE_TOO_MANY
    if not mistake.text.split("\n")[line - 1].lstrip().startswith("["):
        return f"`{dotted(path)}` cannot be a table: line {line} gives it a value", _ONE_TOO_MANY
    return (
        f"the table `{dotted(path)}` is here twice: line {line} has it already",
        "rename one, or make them one",
    )


_ONE_TOO_MANY: Final = "remove one of the two"
_KEY: Final = re.compile(r"""[ \t]*(?:[^="'\n]|"[^"\n]*"|'[^'\n]*')*(?==)""")


def _path_of(key: str, table: Path) -> Path:
    """Return the path of a header, or of the key of a pair in *table*."""
    try:
        if key.startswith("["):
            return first_path(tomli.loads(key))
        return (*table, *first_path(tomli.loads(f"{key} = 0")))
    except (ValueError, RecursionError):
        return (key,)


def first_path(table: object) -> Path:
    """Return the keys that lead to the innermost of tables that have one entry each."""
    path: list[str] = []
    while isinstance(table, (dict, list)) and table:
        if isinstance(table, dict):
            path.append(next(iter(table)))
            table = table[path[-1]]
        else:
            table = table[0]
    return tuple(path)


def _inline_twice(mistake: Mistake) -> Problem:
    name = str(mistake.error).partition("'")[2].rpartition("'")[0]
    keys = list(
        re.finditer(rf"{re.escape(name)}(?=[\"']?\s*=)", mistake.text[mistake.begin : mistake.position])
    )
    start = mistake.begin + keys[-1].start() if keys else mistake.position
    message = f"the key `{name}` is in this table twice"
    return mistake.problem(message, "remove one of the two", at=start, width=len(name))


_DIAGNOSES: Final[dict[str, Callable[[Mistake], Problem]]] = {
    "Illegal character": _control_character,
    "Found invalid character": _control_character,
    "Unescaped": _escape,
    "Invalid hex value": _escape,
    "Escaped character": _escape,
    "Invalid value": _invalid_value,
    "Invalid date": _invalid_date,
    "Expected newline": _left_over,
    "Unclosed": _unclosed,
    "Expected '='": _no_equals,
    "Invalid statement": _invalid_statement,
    "Invalid initial character": _key_part,
    "Expected ']": _header,
    "Cannot": _declared_twice,
    "Duplicate inline table key": _inline_twice,
}
