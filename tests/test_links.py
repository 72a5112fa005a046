"""No page of the repository has a link that leads nowhere."""

from __future__ import annotations

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_page_leads_somewhere(page: Path) -> None:
    """Files, folders, pictures, and headings after a `#`."""
    assert dangling(page, page.read_text("utf-8")) == []


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

    # The decisions are listed by a pattern; the index is the front of the built pages.
    docs = {page for page in PAGES if ROOT / "docs" in page.parents}
    assert docs - seen - set(ROOT.glob("docs/decisions/0*.md")) - {ROOT / "docs/index.md"} == set()


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
