"""No page of the repository has a link that leads nowhere, or names what is not there."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/*/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
    if "_build" not in path.parts
)

# A link or a picture, and a reference-style definition. Not in code: that is taken out before.
INLINE: Final = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
DEFINED: Final = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
FENCE: Final = re.compile(r"^( *)(`{3,}|:{3,})[^\n]*\n.*?^\1\2 *$", re.MULTILINE | re.DOTALL)
CODE: Final = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
ELSEWHERE: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links(text: str) -> list[str]:
    """The targets of the links of a page that stay in the repository."""
    prose = CODE.sub("code", FENCE.sub("", text))
    return [t for t in (*INLINE.findall(prose), *DEFINED.findall(prose)) if not ELSEWHERE.match(t)]


def anchors(text: str) -> set[str]:
    """The headings as they are in addresses: lower case, dashes for spaces, numbered where they are equal."""
    names: dict[str, int] = {}
    for title in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", FENCE.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        names[name] = names.get(name, 0) + 1
    return {f"{name}-{i}" if i else name for name, count in names.items() for i in range(count)}


def dangling(page: Path, text: str) -> list[str]:
    """The links of *text*, the page at *page*, that lead nowhere, or out of the repository."""
    wrong = []
    for link in links(text):
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        there = place.exists() and place.is_relative_to(ROOT)
        if there and anchor:
            there = anchor in anchors(text if place == page else place.read_text("utf-8"))
        if not there:
            wrong.append(link)
    return wrong


NAMED_PATH: Final = re.compile(r"`((?:castore|plugins|tests|examples|docs|bench)/[\w./-]*)`")
NAMED_TEST: Final = re.compile(r"`(test_\w+\.py)`")
NAMED_CODE: Final = re.compile(r"`(castore(?:_[a-z_]+)?(?:\.\w+)+)(?<!\.lock)(?<!\.proto)[(`]")
STRANGERS: Final = {"castore_flat", "castore_shelf", "castore_catalogue", "castore_onefile"}
"""Packages that a page or an example makes."""


def astray(text: str) -> list[str]:
    """The files and the names of castore that a page has in its prose and that are not there."""
    prose = FENCE.sub("", text)
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    paths = [path for path in NAMED_PATH.findall(prose) if not (ROOT / path).exists()]
    paths += [name for name in NAMED_TEST.findall(prose) if name not in tests]
    names = [name for name in NAMED_CODE.findall(prose) if name.partition(".")[0] not in STRANGERS]
    return paths + [name for name in names if not is_there(name)]


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, rest = dotted, []
    while not _has_module(module):
        module, _, last = module.rpartition(".")
        if not module:
            return False
        rest.insert(0, last)
    value = importlib.import_module(module)
    for name in rest:
        if not hasattr(value, name):
            # Attributes of instances are annotated, and have no value on the class.
            return name in getattr(value, "__annotations__", {})
        value = getattr(value, name)
    return True


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_what_pages_name_is_there() -> None:
    """Files and folders of the repository, and modules, classes and functions of castore, in code spans."""
    wrong = {str(page.relative_to(ROOT)): astray(page.read_text("utf-8")) for page in PAGES}

    assert {page: names for page, names in wrong.items() if names} == {}


def test_every_link_leads_somewhere() -> None:
    """Files, folders, pictures, and headings after a `#`."""
    wrong = {str(page.relative_to(ROOT)): dangling(page, page.read_text("utf-8")) for page in PAGES}

    assert {page: links for page, links in wrong.items() if links} == {}


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    """By links, from page to page."""
    seen = {ROOT / "README.md"}
    waiting = list(seen)
    while waiting:
        page = waiting.pop()
        for link in links(page.read_text("utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in seen:
                seen.add(target)
                waiting.append(target)

    # The index is the front of the built pages.
    docs = {page for page in PAGES if ROOT / "docs" in page.parents}
    assert docs - seen - {ROOT / "docs/index.md"} == set()


def test_each_decision_is_in_the_table_by_its_own_title() -> None:
    """Which numbers have no page is said below the table."""
    folder = ROOT / "docs/decisions"
    rows = re.findall(
        r"^\| (\d+) \| \[(.+)\]\((0\S+)\) \| \S", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    titles = {path.name: path.read_text("utf-8").split("\n")[0] for path in folder.glob("0*.md")}

    assert [name for _, _, name in rows] == sorted(titles)
    assert {name: f"# {number}. {title}" for number, title, name in rows} == titles


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](docs/index.md)", []),
        ("[a](docs/none.md)", ["docs/none.md"]),
        ("![a picture](docs/none.svg)", ["docs/none.svg"]),
        ("[a](docs)", []),
        ("[a](../outside.md)", ["../outside.md"]),
        ("[a](#here)\n\n## Here!\n", []),
        ("[a](#there)\n\n## Here!\n", ["#there"]),
        ("[a](docs/reference/composition.md#problems)", []),
        ("[a](docs/reference/composition.md#no-problems)", ["docs/reference/composition.md#no-problems"]),
        ("[a](https://example.org/none) `[a](none)`\n\n```text\n[a](none)\n```\n", []),
        ("[a][b]\n\n[b]: none.md\n", ["none.md"]),
        ("[`code`](none.md)", ["none.md"]),
    ],
)
def test_dangling_links_are_found(text: str, wrong: list[str]) -> None:
    """The check itself: a check that passes everything would make the others worthless."""
    assert dangling(ROOT / "README.md", text) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`tests/test_links.py` and `castore/cli/`", []),
        ("`tests/none.py` `test_none.py`", ["tests/none.py", "test_none.py"]),
        ("`castore.BlobService.put_file` `castore.contract.blobs` `castore.contract.blobs.Answer`", []),
        ("`castore.BlobService.none(x)`", ["castore.BlobService.none"]),
        ("`castore.none.BlobService`", ["castore.none.BlobService"]),
        ("`castore_memory.none`", ["castore_memory.none"]),
    ],
)
def test_names_of_nothing_are_found(text: str, wrong: list[str]) -> None:
    """The check itself, as above."""
    assert astray(text) == wrong


def test_what_people_search_for_leads_to_pages_that_are_there() -> None:
    """`docs/conf.py` names a page for each word, once; the first page links every other one."""
    tree = ast.parse((ROOT / "docs/conf.py").read_text("utf-8"))
    (searched,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SEARCHED"
    ]
    words = [word for group in searched.values() for word in group]

    assert len(words) == len(set(words))
    assert {"delete", "encrypt", "restic", "dvc", "windows", "macos", "tuning", "upgrade"} <= set(words)
    assert [page for page in searched if not (ROOT / f"docs/{page}.md").exists()] == []


def test_the_first_page_links_every_other_one() -> None:
    """But for the decisions, which have a page of their own."""
    first = (ROOT / "docs/index.md").read_text("utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith(("decisions/0", "_build"))} - {"index.md"}

    assert {page for page in pages if f"]({page}" not in first} == set()
