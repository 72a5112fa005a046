"""The messages of the troubleshooting page are those that castore gives: else nobody finds them."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs/how-to/troubleshooting.md").read_text("utf-8")
MESSAGES: Final = [
    message
    for table in re.findall(r"\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)
    for message in re.findall(r"^\| `+ ?(.*?) ?`+ \|", table, re.MULTILINE)
]
ANYTHING: Final = "\0"
"""Stands for what is filled in."""


@cache
def texts() -> tuple[str, ...]:
    """All texts in the sources, and those of the system."""
    found = [os.strerror(number) for number in errno.errorcode]
    for folder in ("castore", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += texts_in(ast.parse(path.read_text("utf-8")))
    return tuple(found)


def texts_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # What a logger or `%` fills in.
            yield re.sub(r"%[-.\d]*[a-z]", ANYTHING, node.value)


def is_there(message: str) -> bool:
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    return any(re.search(pattern.replace(re.escape(ANYTHING), "."), text, re.DOTALL) for text in texts())


def test_the_page_has_messages() -> None:
    """Many."""
    assert len(MESSAGES) > 40


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_castore(message: str) -> None:
    """Word for word, but for what is filled in."""
    assert is_there(message), message


def test_a_message_that_nobody_gives_is_found_out() -> None:
    """Else the tests above would say nothing."""
    assert not is_there("the moon ... is full")
