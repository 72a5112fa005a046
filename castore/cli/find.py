"""`castore find`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import click

from castore.cli.entries import show_entries
from castore.cli.options import as_size, shared_options
from castore.cli.output import emit
from castore.cli.roots import as_place
from castore.cli.settings import Settings
from castore.cli.short_digests import as_digest
from castore.contract.short_digests import ShortDigest
from castore.digest import B3Digest
from castore.errors import InvalidDirectoryError
from castore.format.nodes import DirectoryNode, FileNode, Node, SymlinkNode, TreePath
from castore.trees.naming import TreeLookup, TreePlace

_EPILOG = """\b
Examples:
  castore find ROOT --name '*.jpg' --size +1MiB
  castore find ROOT docs --type l
  castore find ROOT --digest DIGEST
  castore find -0 ROOT --type x | xargs -0 -n1 echo

\b
With --json, one object on each line, as `castore ls --json` prints them.
"""

Test: TypeAlias = Callable[[TreePath, Node], bool]

_KINDS: Final[dict[str, Callable[[Node], bool]]] = {
    "f": lambda node: isinstance(node, FileNode),
    "d": lambda node: isinstance(node, DirectoryNode),
    "l": lambda node: isinstance(node, SymlinkNode),
    "x": lambda node: isinstance(node, FileNode) and node.executable,
}


def as_bounds(text: str) -> tuple[int, int | None]:
    """Read `N`, `+N` or `-N` as the least and the most bytes that a file has; `+` is more, `-` is less."""
    sign, number = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    size = as_size(number)
    if sign == "-" and not size:
        raise click.BadParameter("no file has less than 0 bytes")
    return {"+": (size + 1, None), "-": (0, size - 1)}.get(sign, (size, size))


@click.command("find", epilog=_EPILOG)
@click.argument("root", metavar="ROOT[:PATH]", type=as_place)
@click.argument("path", metavar="[PATH]", required=False)
@click.option(
    "--name",
    "names",
    metavar="PATTERN",
    multiple=True,
    help="Only what has a name like this; `*`, `?` and `[...]` stand for others.",
)
@click.option(
    "--type",
    "kinds",
    type=click.Choice(list(_KINDS)),
    multiple=True,
    help="Only files, directories, links, or files that may be executed.",
)
@click.option(
    "--size",
    "bounds",
    metavar="[+|-]N",
    multiple=True,
    type=as_bounds,
    help="Only files of N bytes, of more (+N), or of fewer (-N); N may have a unit.",
)
@click.option(
    "--digest", "digests", metavar="DIGEST", multiple=True, type=as_digest, help="Only what has this digest."
)
@click.option("-l", "--long", "long", is_flag=True, help="Show the kind, the size and the digest as well.")
@click.option("-0", "--null", is_flag=True, help="End each path with a zero byte, and quote none.")
@click.option("--full", is_flag=True, help="Print all 64 digits, also on a terminal.")
@shared_options
@click.pass_obj
def command(
    settings: Settings,
    *,
    root: TreePlace,
    path: str | None,
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    bounds: tuple[tuple[int, int | None], ...],
    digests: tuple[B3Digest | ShortDigest, ...],
    long: bool,
    null: bool,
    full: bool,
) -> None:
    """Find things in a tree by their names, kinds, sizes and digests. No blob is read.

    Of an option that is given several times one must hold, but of --size all; of different ones all. The
    exit code is 0 also if nothing is found.
    """
    tests = _tests(names, kinds, bounds, digests)
    with settings.opened() as stores:
        lookup = TreeLookup(stores, settings.service_name)
        found = _matching(lookup, _below(root, path), tests)
        if null and not settings.json:
            for each, _ in found:
                emit(bytes(each) + b"\0", flush=False)
            return
        show_entries(found, long=long, full=full, as_json=settings.json)


def _below(root: TreePlace, path: str | None) -> TreePlace:
    if path is None:
        return root
    try:
        below = TreePath.parse_loosely(path.strip("/"))
    except InvalidDirectoryError as error:
        raise click.BadParameter(str(error), param_hint="[PATH]") from None
    return root.join(below)


def _matching(lookup: TreeLookup, place: TreePlace, tests: list[Test]) -> Iterator[tuple[TreePath, Node]]:
    found = lookup.look(place)
    is_directory = isinstance(found.node, DirectoryNode)
    entries = lookup.walk(found) if is_directory else iter([(place.path, found.node)])
    for path, each in entries:
        if all(test(path, each) for test in tests):
            yield path, each


def _tests(
    names: tuple[str, ...],
    kinds: tuple[str, ...],
    bounds: tuple[tuple[int, int | None], ...],
    digests: tuple[B3Digest | ShortDigest, ...],
) -> list[Test]:
    tests: list[Test] = []
    if names:
        patterns = [re.compile(fnmatch.translate(name)) for name in names]
        tests.append(lambda path, _: any(each.match(_last(path)) for each in patterns))
    if kinds:
        tests.append(lambda _, node: any(_KINDS[kind](node) for kind in kinds))
    if digests:
        tests.append(lambda _, node: _has_digest(node, digests))
    for least, most in bounds:
        tests.append(
            lambda _, node, least=least, most=most: (  # type: ignore[misc]
                isinstance(node, FileNode) and least <= node.size and (most is None or node.size <= most)
            )
        )
    return tests


def _last(path: TreePath) -> str:
    return path[-1].decode("utf-8", "surrogateescape") if path else ""


def _has_digest(node: Node, digests: tuple[B3Digest | ShortDigest, ...]) -> bool:
    if isinstance(node, SymlinkNode):
        return False
    return any(
        node.digest == each if isinstance(each, B3Digest) else node.digest.hex().startswith(each.digits)
        for each in digests
    )
