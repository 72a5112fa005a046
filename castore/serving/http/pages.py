"""The pages for people: what is in a directory, and what a file looks like. They need no script.

Names, targets and contents are anybody's. Each is escaped for the place that it stands in: text, attribute, or
a part of a URL.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

from castore.format.nodes import DirectoryNode, FileNode, Node, PathComponent
from castore.text import size_text

PAGE: Final = 1000
"""How many entries a page has."""

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1d2129;--soft:#646d7c;--line:#e3e6eb;--ground:#fff;--tint:#f5f7fa;--link:#1756b3}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ec;--soft:#98a2b3;--line:#2c323c;--ground:#14171c;
--tint:#1c2027;--link:#8ab4f8}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main,header,footer{max-width:64rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}footer{padding:1.5rem 1rem 3rem;color:var(--soft);font-size:.875rem}
nav.way{font-size:1.25rem;font-weight:600;overflow-wrap:anywhere}nav.way span{color:var(--soft);font-weight:400}
nav.way [aria-current]{color:var(--ink);font-weight:600}
a{color:var(--link);text-decoration:none}a:hover,a:focus-visible{text-decoration:underline}
a:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:2px}
p.facts{margin:.25rem 0 1rem;color:var(--soft);font-size:.875rem}
.digest{font-family:ui-monospace,monospace;font-size:.8125rem;overflow-wrap:anywhere;user-select:all}
th.digest{font-family:inherit}
p.actions{display:flex;flex-wrap:wrap;gap:.5rem;align-items:baseline;color:var(--soft)}p.actions a{padding:.35rem .8rem;border:1px solid var(--line);
border-radius:.4rem;background:var(--tint)}
table{width:100%;border-collapse:collapse}th{text-align:left;font-size:.8125rem;font-weight:600}
th,td{padding:.45rem .5rem;border-bottom:1px solid var(--line);vertical-align:baseline}
td.name{overflow-wrap:anywhere}td.name span{color:var(--soft)}
td.name bdi{white-space:pre-wrap}td .digest{white-space:nowrap}.none{color:var(--soft)}
main.one h1{font-size:1.5rem;margin:1.5rem 0 .5rem}
td.size,th.size{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
tr:hover td{background:var(--tint)}td .digest{color:var(--soft)}
pre{margin:0;padding:1rem;overflow-x:auto;background:var(--tint);border:1px solid var(--line);border-radius:.4rem;
font:.8125rem/1.5 ui-monospace,monospace;tab-size:4}
img,video,audio{max-width:100%;border:1px solid var(--line);border-radius:.4rem}
ul.refs{padding:0;list-style:none}ul.refs li{padding:.4rem 0;border-bottom:1px solid var(--line)}
@media(max-width:40rem){th.digest,td.digest{display:none}header{padding-top:1rem}}
"""


def hash_of(text: str) -> str:
    """Return what a policy names a style or a script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


POLICY: Final = (
    f"default-src 'none'; style-src '{hash_of(STYLE)}'; img-src 'self'; media-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the pages may do: show what they are made of."""


def shown(name: bytes) -> str:
    r"""Return a name as text: bytes that are no UTF-8, and control codes, as `\xNN`."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def link_to(name: bytes) -> str:
    """Return a name as one part of a URL: all but letters, digits, `-`, `.`, `_` and `~` is encoded."""
    return quote(name, safe="")


def page(title: str, body: str) -> bytes:
    """Return a whole page; *body* is HTML, *title* is text."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    ).encode("utf-8", "backslashreplace")


def message(title: str, words: str, home: str) -> bytes:
    """Return a page that says one thing, and leads to *home*."""
    said = f"{words[:1].upper()}{words[1:]}" + ("" if words.endswith((".", "?")) else ".")
    return page(
        title,
        f'<header><nav class="way" aria-label="Path"><a href="{escape(home)}">castore</a></nav></header>'
        f'<main class="one"><h1>{escape(title)}</h1><p>{escape(said)}</p></main>',
    )


def _way(top: str, base: str, names: Sequence[bytes], home: str, *, is_file: bool) -> str:
    """Return links to all that leads to a place; *base* is the URL of the top, with a slash at its end."""
    parts = [f'<a href="{escape(home)}">castore</a>'] if home else []
    parts.append(
        f'<a href="{escape(base)}">{_named(top)}</a>'
        if names
        else f'<span aria-current="page">{_named(top)}</span>'
    )
    url = base
    for number, name in enumerate(names):
        last = number == len(names) - 1
        url += link_to(name) + ("" if last and is_file else "/")
        text = _named(shown(name))
        parts.append(
            f'<span aria-current="page">{text}</span>' if last else f'<a href="{escape(url)}">{text}</a>'
        )
    return f'<nav class="way" aria-label="Path">{" <span>/</span> ".join(parts)}</nav>'


def _named(text: str) -> str:
    """Return a name as HTML: what it is, whichever way it is read, changes nothing of what stands beside it."""
    return f"<bdi>{escape(text)}</bdi>"


def in_order(entries: Mapping[PathComponent, Node], by: str, *, down: bool) -> list[PathComponent]:
    """Return the names of entries with the folders first, by their names or by their sizes."""
    folders: list[PathComponent] = []
    others: list[PathComponent] = []
    for name, node in entries.items():
        (folders if type(node) is DirectoryNode else others).append(name)
    for some in (folders, others):
        some.sort(reverse=down)
    if by == "size":
        others.sort(key=lambda name: getattr(entries[name], "size", 0), reverse=down)
    return folders + others


def listing(
    top: str,
    base: str,
    names: Sequence[bytes],
    node: DirectoryNode,
    entries: Mapping[PathComponent, Node],
    *,
    by: str = "name",
    down: bool = False,
    number: int = 1,
    home: str = "",
) -> bytes:
    """Return the page of a directory.

    Arguments:
        top: What the root is called.
        base: The URL of the root, with a slash at its end.
        names: The path below the root.
        node: The directory.
        entries: What is in it.
        by: What to sort by: `name` or `size`.
        down: Whether what is last comes first.
        number: Which page of `PAGE` entries, from 1.
        home: The URL of the first page; empty if this is it.
    """
    ordered = in_order(entries, by, down=down)
    pages = max((len(ordered) + PAGE - 1) // PAGE, 1)
    number = min(max(number, 1), pages)
    begin = (number - 1) * PAGE
    part = ordered[begin : begin + PAGE]
    rows = "".join(_row(name, entries[name]) for name in part)
    if not ordered:
        rows = '<tr><td class="none" colspan="3">This folder is empty.</td></tr>'
    up = (
        '<tr><td class="name"><a href="../" aria-label="The folder above">../</a></td><td></td><td class="digest"></td></tr>'
        if names
        else ""
    )

    def head(column: str) -> str:
        turned = by == column and not down
        arrow = (" ↓" if down else " ↑") if by == column else ""
        order = "&amp;order=down" if turned else ""
        return f'<a href="?sort={column}{order}">{column.capitalize()}{arrow}</a>'

    sort = f"sort={by}" + ("&amp;order=down" if down else "")
    turning = ""
    if pages > 1:
        before = f'<a rel="prev" href="?{sort}&amp;page={number - 1}">Previous</a>' if number > 1 else ""
        after = f'<a rel="next" href="?{sort}&amp;page={number + 1}">Next</a>' if number < pages else ""
        turning = f'<p class="actions">{before}{after} page {number} of {pages}</p>'
    count = f"{len(ordered):,} {'entry' if len(ordered) == 1 else 'entries'}"
    if pages > 1:
        count += f", {begin + 1:,} to {begin + len(part):,}"
    title = shown(names[-1]) if names else top
    body = (
        f"<header>{_way(top, base, names, home, is_file=False)}"
        f'<p class="facts">{count} · <span class="digest">{node.digest}</span></p>'
        '<p class="actions">Download as <a href="?archive=tar" download>tar</a><a href="?archive=tar.zst" download>tar.zst</a>'
        '<a href="?archive=zip" download>zip</a></p></header><main>'
        f'<table><thead><tr><th scope="col">{head("name")}</th><th scope="col" class="size">{head("size")}</th>'
        f'<th scope="col" class="digest">Digest</th></tr></thead><tbody>{up}{rows}</tbody></table>{turning}</main>'
    )
    return page(title, body)


def _row(name: bytes, node: Node) -> str:
    text, url = _named(shown(name)), escape(link_to(name))
    if isinstance(node, DirectoryNode):
        cell, size, digest = f'<a href="{url}/">{text}/</a>', "", str(node.digest)
    elif isinstance(node, FileNode):
        mark = " <span>(program)</span>" if node.executable else ""
        cell, size, digest = f'<a href="{url}?view">{text}</a>{mark}', size_text(node.size), str(node.digest)
    else:
        cell = f'<a href="{url}?view">{text}</a> <span>→ {_named(shown(node.target))}</span>'
        size = digest = ""
    short = f'<span class="digest" title="{digest}">{digest[:16]}</span>' if digest else ""
    return f'<tr><td class="name">{cell}</td><td class="size">{size}</td><td class="digest">{short}</td></tr>'


def preview(
    top: str,
    base: str,
    names: Sequence[bytes],
    node: FileNode,
    media: str,
    beginning: bytes,
    *,
    home: str = "",
) -> bytes:
    """Return the page of a file: what is an image or a film is shown, all else as text or in hex.

    *media* is its type by its name, *beginning* are its first bytes; the others are as in `listing`.
    """
    url = escape(link_to(names[-1])) if names else "?raw"
    kind = media.partition("/")[0]
    more = "" if len(beginning) == node.size else f"<p>… the first {size_text(len(beginning))} of it.</p>"
    if not node.size:
        inner = '<p class="none">This file is empty.</p>'
    elif kind == "image":
        inner = f'<img src="{url}" alt="{escape(shown(names[-1])) if names else ""}">'
    elif kind in {"video", "audio"}:
        inner = f'<{kind} src="{url}" controls preload="metadata"></{kind}>'
    elif (text := _as_text(beginning, whole=not more)) is not None:
        inner = f'<pre tabindex="0">{escape(text)}</pre>{more}'
    else:
        part = beginning[:1024]
        more = "" if len(part) == node.size else f"<p>… the first {size_text(len(part))} of it.</p>"
        inner = f'<pre tabindex="0">{escape(in_hex(part))}</pre>{more}'
    title = shown(names[-1]) if names else top
    return page(
        title,
        f"<header>{_way(top, base, names, home, is_file=True)}"
        f'<p class="facts">{size_text(node.size)} · {escape(media)} · <span class="digest">{node.digest}</span></p>'
        f'<p class="actions"><a href="{url}">Open</a><a href="{url}?download" download>Download</a></p></header>'
        f"<main>{inner}</main>",
    )


def _as_text(data: bytes, *, whole: bool) -> str | None:
    """Return what is text as it is; `None` for what is none. A last character may be cut in two."""
    if b"\0" in data:
        return None
    for cut in range(1 if whole else 4):
        try:
            return data[: len(data) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None


def in_hex(data: bytes) -> str:
    """Return bytes in hex, sixteen on a line, with what of them is text."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in part)
        lines.append(f"{start:08x}  {part.hex(' '):47}  {text}")
    return "\n".join(lines)


def home(base: str, refs: Sequence[str], *, live: bool = False) -> bytes:
    """Return the first page of a server that has no one tree: the refs, and what else there is below *base*.

    With *live* it leads to the live view, too.
    """
    items = "".join(
        f'<li><a href="{escape(base)}tree/{"/".join(link_to(part.encode()) for part in name.split("/"))}/">{escape(name)}</a></li>'
        for name in refs
    )
    listed = f'<ul class="refs">{items}</ul>' if items else "<p>There are no refs yet.</p>"
    view = (
        f'<p class="actions"><a href="{escape(base)}ui/composition">The composition, live</a></p>'
        if live
        else ""
    )
    return page(
        "castore",
        '<header><nav class="way">castore</nav><p class="facts">The trees that have names</p>'
        f"{view}</header><main>{listed}<p>Any other tree is at <code>{escape(base)}tree/DIGEST/</code>, a blob at <code>{escape(base)}blob/DIGEST</code>.</p></main>",
    )
