"""`docs/reference/api.md` names all that is public, and nothing that is not there."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import castore
from castore import BlobService, CastoreError, Composition, Registry
from castore.aio import AsyncBlobService

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs/reference/api.md").read_text("utf-8")
TABLES, _, SIGNATURES = PAGE.partition("## Signatures")
NAMED: Final = re.findall(r"^\| `(castore\.[\w.]+)", TABLES, re.MULTILINE)

ALL_OF: Final = ["castore", "castore.aio", "castore.composition", "castore.testing"]
"""Modules whose `__all__` is public."""

DEFINED_IN: Final = [
    "castore.contract.capabilities",
    "castore.contract.upkeep",
    "castore.contract.operations",
    "castore.chunks.backend",
    "castore.streams.readers",
    "castore.streams.writers",
    "castore.chunks.reader",
    "castore.chunks.writer",
    "castore.threads.pool",
    "castore.wrapping.forwarding",
    "castore.wrapping.wrapper",
]
"""Modules of which every class and function without an underscore is public."""

BLOBS: Final = {"EMPTY", "HELLO", "BLOB_A", "BLOB_B", "ZEROS_1M", "P3M"}
"""Named in the line on `castore.testing.BLOBS`."""


def public() -> Iterator[str]:
    for module in ALL_OF:
        for name in importlib.import_module(module).__all__:
            # Some of castore's own names can be imported from `castore.composition`, too.
            if (module == "castore" or name not in castore.__all__) and name not in BLOBS:
                yield f"{module}.{name}"
    for module in DEFINED_IN:
        for name, value in vars(importlib.import_module(module)).items():
            made_there = getattr(value, "__module__", "") == module and callable(value)
            if made_there and not name.startswith("_") and name not in castore.__all__:
                yield f"{module}.{name}"


def found(dotted: str) -> tuple[ModuleType, str, object]:
    """Return the module of a name on the page, the name in that module, and what it is."""
    module, _, rest = dotted.rpartition(".")
    while module not in sys.modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
            rest = f"{name}.{rest}"
    value: object = sys.modules[module]
    for name in rest.split("."):
        value = getattr(value, name)
    return sys.modules[module], rest, value


def test_each_public_name_has_a_line() -> None:
    assert sorted(set(public()) - set(NAMED)) == [], "write a line on each in docs/reference/api.md"


def test_the_blobs_with_known_digests_are_named() -> None:
    assert {str(blob) for blob in importlib.import_module("castore.testing").BLOBS} == BLOBS
    (line,) = [line for line in TABLES.splitlines() if line.startswith("| `castore.testing.BLOBS`")]
    assert all(f"`{name}`" in line for name in BLOBS)


def test_each_name_on_the_page_is_there_and_has_its_signature() -> None:
    """It can be imported from where the page says, and the list of signatures has it by its home."""
    entries = re.findall(r"automodule:: (\S+)\n +:members: (.*)", SIGNATURES)
    unlisted = {}
    for name in NAMED:
        module, rest, value = found(name)
        if "." not in rest:
            listed = [home for home, members in entries if rest in members.split(", ")]
            # `castore.open` and `castore.aio.open` are two.
            if not any(vars(importlib.import_module(home)).get(rest) is value for home in listed):
                unlisted[name] = getattr(value, "__module__", module.__name__)

    assert unlisted == {}, "add each to the members of its home in the signatures"


def test_no_name_has_two_lines() -> None:
    assert sorted(NAMED) == sorted(set(NAMED))


def test_the_codes_of_the_errors_are_right() -> None:
    shown = dict(re.findall(r"^\| `castore\.(\w+Error)` \| `([\w-]+)` \|$", TABLES, re.MULTILINE))
    errors = [getattr(castore, name) for name in castore.__all__]

    assert shown == {
        error.__name__: error.code
        for error in errors
        if inspect.isclass(error) and issubclass(error, CastoreError)
    }


@pytest.mark.parametrize("owner", [BlobService, Composition, AsyncBlobService])
def test_the_members_of_what_is_used_most_are_named(owner: type) -> None:
    """Each method and attribute has its line; what is for castore's own use is listed here."""
    own_use = {"instance", "released"}
    members = {name for name in vars(owner) if not name.startswith("_")} - own_use

    assert members <= set(re.findall(r"`(?:\w+\.)?(\w+)(?:\([^`]*\))?`", TABLES)), "not on the page"


def test_what_a_plugin_registers_is_named() -> None:
    """The methods of a registry that its hook may call."""
    calls = {name for name in vars(Registry) if name.startswith(("register", "add_"))}

    assert {f"castore.Registry.{name}" for name in calls} <= set(NAMED)


def imported_by_plugins() -> dict[str, set[str]]:
    """What the bundled plugins import from castore, by its dotted name, with who does.

    Of a module that is imported as such, it is what is used of it.
    """
    found: dict[str, set[str]] = {}
    for path in (ROOT / "plugins").rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "castore":
                for alias in node.names:
                    dotted = f"{node.module}.{alias.name}"
                    if is_module(dotted):
                        modules[alias.asname or alias.name] = dotted
                    else:
                        found.setdefault(dotted, set()).add(path.parts[len(ROOT.parts) + 1])
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                # A variable of the same name has other attributes.
                if module is not None and hasattr(importlib.import_module(module), node.attr):
                    found.setdefault(f"{module}.{node.attr}", set()).add(path.parts[len(ROOT.parts) + 1])
    return found


def is_module(dotted: str) -> bool:
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        return False
    return True


def test_what_bundled_plugins_import_is_named() -> None:
    """They use no door that a stranger has not. A name may have several homes, and one line."""
    on_page = [(dotted.rpartition(".")[2], found(dotted)[2]) for dotted in NAMED]
    missing = {
        dotted: users
        for dotted, users in imported_by_plugins().items()
        if not any(name == dotted.rpartition(".")[2] and value is found(dotted)[2] for name, value in on_page)
    }

    assert missing == {}, "write a line on each in docs/reference/api.md, or do without"


def test_no_plugin_imports_a_module_of_castore_by_its_whole_name() -> None:
    """What is used of `import castore.x` would not be seen by the test above."""
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not [a.name for a in node.names if a.name.startswith("castore.")], path
