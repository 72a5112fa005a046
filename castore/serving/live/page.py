"""The page of a composition: its graph, its instances in a table, and what is said of a digest.

It is whole without its script, as things were when it was made; the script puts in what changes. Both its
styles and its script are within the page, and its policy names them by their hashes: nothing else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from castore.contract.plans import Plan, Step
from castore.digest import B3Digest
from castore.drawing.look import stylesheet
from castore.drawing.picture import Picture
from castore.drawing.words import shown
from castore.serving.http import pages
from castore.serving.live.graph import graph
from castore.serving.live.words import NUMBERS
from castore.upkeep import Location

_HERE: Final = files("castore.serving.live")
STYLE: Final = pages.STYLE + stylesheet() + _HERE.joinpath("live.css").read_text("utf-8")
SCRIPT: Final = _HERE.joinpath("live.js").read_text("utf-8")

POLICY: Final = (
    f"default-src 'none'; style-src '{pages.hash_of(STYLE)}'; script-src '{pages.hash_of(SCRIPT)}';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_HEADS: Final[Mapping[str, str]] = {
    "calls": "Calls",
    "hits": "Hits",
    "misses": "Misses",
    "bytes_in": "Written",
    "bytes_out": "Read",
    "under_way": "Under way",
}
_DEEPEST: Final = 6
"""So far rows are indented."""


def composition_page(
    picture: Picture, found: Mapping[str, Any], base: str, asked: str = "", answer: str = ""
) -> bytes:
    """Return the page.

    Arguments:
        picture: The graph.
        found: What `words.document` says of it, with instances in the same order.
        base: The URL of the top, with a slash at its end.
        asked: What was put into the field for a digest.
        answer: What is said of that, as HTML.
    """
    title = shown(picture.title) or "A composition"
    body = (
        f'<header class="wide"><h1><a href="{escape(base)}">castore</a> <span>/</span> {escape(title)}</h1>'
        f'<p class="now"><strong id="headline">{escape(found["headline"])}</strong> · '
        f'<span class="if-still">as it was at {escape(found["at"])}. <a href="?">Look again</a></span>'
        f'<span class="if-live">now, <span id="at">{escape(found["at"])}</span></span>'
        '<span class="if-lost" role="alert">The server does not answer. These are old numbers.</span></p></header>'
        '<main class="wide"><p class="away" role="status" id="said"></p>'
        '<form class="look" method="get" role="search"><label for="digest">Where is a blob, and what would be done with it? Paste a digest.</label>'
        f'<input id="digest" name="digest" value="{escape(asked)}" autocomplete="off" autocapitalize="off" spellcheck="false"'
        ' placeholder="64 hex digits, b3:… or blake3-…" required><button>Look up</button></form>'
        f"{answer}"
        f'<div class="graph" tabindex="0" role="region" aria-label="The graph, whose numbers are in the table below">{graph(picture, found)}</div>'
        f"<h2>Instances</h2>{_table(picture, found)}</main>"
        '<footer class="wide">Counted since the composition was opened, at the door of each instance: what others ask of it.</footer>'
    )
    return (
        f'<!doctype html><html lang="en" data-key="{escape(found["key"])}" data-overall="{found["overall"]}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)} · castore</title><style>{STYLE}</style></head><body>{body}"
        f"<script>{SCRIPT}</script></body></html>\n"
    ).encode("utf-8", "backslashreplace")


def _table(picture: Picture, found: Mapping[str, Any]) -> str:
    numbers = {node.id: number for number, node in enumerate(picture.nodes)}
    heads = "".join(f'<th scope="col" class="n">{head}</th>' for head in _HEADS.values())
    rows = []
    for id_, depth, label in in_rows(picture):
        node, number = picture.by_id()[id_], numbers[id_]
        texts = found["texts"]

        def cell(slot: str, number: int = number, texts: Mapping[str, str] = texts) -> str:
            return f'<span data-s="{number}.{slot}">{escape(texts[f"{number}.{slot}"])}</span>'

        def exact(slot: str, number: int = number, texts: Mapping[str, str] = texts) -> str:
            key = f"{number}.{slot}"
            value = found["exact"][key]
            return f'<data data-s="{key}" value="{value}" title="{value}">{escape(texts[key])}</data>'

        by = f'<span class="by">{escape(shown(label))} → </span>' if label else ""
        name = (
            f'<b dir="auto">{escape(shown(node.headline))}</b>'
            if node.name
            else f"<i>{escape(shown(node.type))}</i>"
        )
        what = " · ".join(escape(shown(each)) for each in (picture.second_line(node), node.detail) if each)
        cells = "".join(
            f'<td class="n" data-label="{_HEADS[slot]}">{exact(slot)}'
            + (
                f' <span class="by" data-s="{number}.share">{escape(texts[f"{number}.share"])}</span>'
                if slot == "hits"
                else ""
            )
            + "</td>"
            for slot in NUMBERS
        )
        rows.append(
            f'<tr class="d{min(depth, _DEEPEST)}" data-i="{number}" data-state="{found["states"][number]}" data-name="{escape(shown(node.headline))}">'
            f'<th scope="row" class="d{min(depth, _DEEPEST)}">{by}{name}<span class="what">{what}</span></th>'
            f'<td class="s">{cell("state")}</td>{cells}'
            f'<td class="n bad" data-label="Errors">{exact("errors")}<span class="kinds" data-s="{number}.kinds">{escape(texts[f"{number}.kinds"])}</span></td>'
            f'<td class="tells">{cell("gauges")}</td></tr>'
        )
    return (
        f'<table class="all"><thead><tr><th scope="col">Instance</th><th scope="col">State</th>{heads}'
        f'<th scope="col" class="n">Errors</th><th scope="col">Notes</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def in_rows(picture: Picture) -> Iterator[tuple[str, int, str]]:
    """Yield each instance once, those that it uses below it: its id, its depth, and the field that leads to it."""
    edges = picture.edges_from()
    seen: set[str] = set()
    waiting = [(id_, 0, "") for id_ in reversed(picture.entries())]
    while waiting:
        id_, depth, label = waiting.pop()
        if id_ not in seen:
            seen.add(id_)
            yield id_, depth, label
            waiting += [(edge.target, depth + 1, edge.label) for edge in reversed(edges[id_])]


def digest_answer(
    digest: B3Digest,
    url: str,
    where: Sequence[Location],
    plans: Sequence[Plan],
    clean: Callable[[str], str],
) -> str:
    """Return what `locate` and `explain` say, as HTML; *clean* takes secrets out of a text.

    It leads to the blob at *url*, unless that is empty, or a get would not find it.
    """
    found = any(each.operation == "get" and each.found for each in plans)
    way = f'<p class="actions"><a href="{escape(url)}">Open the blob</a></p>' if url and found else ""
    rows = "".join(
        f'<tr><th scope="row"><b>{escape(shown(each.instance))}</b> <span class="by">{escape(shown(each.type))}</span></th>'
        f"<td>{escape(shown(clean(each.holding.in_short)))}</td></tr>"
        for each in where
    )
    blocks = "".join(_plan(each, clean) for each in plans)
    return (
        f'<section aria-label="What is known of the digest"><h2>Who has <span class="digest">{digest}</span></h2>'
        f'{way}<table class="where"><thead><tr><th scope="col">Instance</th><th scope="col">Has</th></tr></thead><tbody>{rows}</tbody></table>'
        f'<div class="plans">{blocks}</div></section>'
    )


def refusal(words: str) -> str:
    """Return that there is no answer, as HTML."""
    return f'<p class="refused" role="alert">{escape(shown(words))}</p>'


def _plan(plan: Plan, clean: Callable[[str], str]) -> str:
    """Return a plan as nested lists; what stands beneath an instance only once."""
    parts = [f'<div class="plan"><h3>{escape(plan.operation)}</h3><ul>']
    done: set[str] = set()
    # A list of what is still to come, not recursion: a chain may be longer than Python's stack.
    waiting: list[Step | str] = [Step(plan=plan)]
    while waiting:
        step = waiting.pop()
        if isinstance(step, str):
            parts.append(step)
            continue
        told = step.plan
        if told is None:
            parts.append(f"<li>{escape(shown(clean(step.says)))}</li>")
            continue
        field = f'<span class="by">{escape(shown(step.label))} →</span> ' if step.label else ""
        seen = told.instance in done and told.steps
        parts.append(
            f"<li>{field}<b>{escape(shown(told.instance))}</b> <span>{escape(shown(told.type))}:</span>"
            f" {escape(shown(clean(told.says)))}{' <span>(see above)</span>' if seen else ''}"
        )
        waiting.append("</li>")
        if told.steps and not seen:
            done.add(told.instance)
            parts.append("<ul>")
            waiting += ["</ul>", *reversed(told.steps)]
    parts.append("</ul></div>")
    return "".join(parts)
