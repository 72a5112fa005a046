"""The colours and letters of a drawing, in light and in dark."""

from __future__ import annotations

import zlib

from castore.drawing.words import CAPTION, DETAIL, FIELD, NAME, STATE, TYPE

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; without black and
# yellow, which vanish on a dark or on a light ground. They carry no text.
_ACCENTS = ("#0072b2", "#009e73", "#56b4e9", "#cc79a7", "#d55e00", "#e69f00")

# The start of the checksum is chosen so that the most usual types (cache, grpc, lru, memory, objectstore,
# redb) have a colour each.
_START = 21

# Custom properties would be shorter, but librsvg and Inkscape do not know them.
_LIGHT = {
    "paper": "fill:#f6f8fa;stroke:#d8dee4",
    "card": "fill:#fff",
    "shade": "fill:#1f2328;fill-opacity:.06",
    "outline": "stroke:#d0d7de",
    "root": "stroke:#818b98",
    "name": "fill:#1f2328",
    "type": "fill:#424a53",
    "detail": "fill:#59636e",
    "caption": "fill:#59636e",
    "edge": "stroke:#818b98",
    "head": "fill:#818b98",
    "part": "stroke:#b1bac4",
    "pill": "fill:#fff;stroke:#d0d7de",
    "field": "fill:#424a53",
    "well": "fill:#dafbe1;stroke:#aceebb",
    "well-word": "fill:#116329",
    "heed": "fill:#fff1c2;stroke:#eac54f",
    "heed-word": "fill:#6b4400",
}
_DARK = {
    "paper": "fill:#0d1117;stroke:#30363d",
    "card": "fill:#1c2128",
    "shade": "fill:#000;fill-opacity:.3",
    "outline": "stroke:#3d444d",
    "root": "stroke:#7d8590",
    "name": "fill:#f0f6fc",
    "type": "fill:#c9d1d9",
    "detail": "fill:#9ea7b0",
    "caption": "fill:#9ea7b0",
    "edge": "stroke:#7d8590",
    "head": "fill:#7d8590",
    "part": "stroke:#484f58",
    "pill": "fill:#262c36;stroke:#3d444d",
    "field": "fill:#c9d1d9",
    "well": "fill:#0f2d1a;stroke:#1a7f37",
    "well-word": "fill:#7ee787",
    "heed": "fill:#341a00;stroke:#9e6a03",
    "heed-word": "fill:#f2cc60",
}


def accent(type_: str) -> str:
    """Return the style class of a service type's colour, the same in every drawing and every process."""
    # Not `hash`, which differs from process to process.
    return f"a{zlib.crc32(type_.encode('utf-8', 'replace'), _START) % len(_ACCENTS)}"


def stylesheet() -> str:
    """Return the CSS of a drawing: light, and dark where the reader prefers it."""
    rules = [
        *[
            f".{x.style}{{font-family:{x.face.value};font-size:{x.size}px;font-weight:{x.weight}}}"
            for x in (NAME, TYPE, DETAIL, FIELD, STATE, CAPTION)
        ],
        ".anonymous{font-style:italic}",
        ".edge{fill:none;stroke-width:1.6}",
        ".outline{fill:none}",
        ".root{stroke-width:1.6}",
        ".part{stroke-dasharray:1 6;stroke-linecap:round}",
        ".unreached{opacity:.75}",
        ".unreached .outline,.unreached .edge{stroke:#818b98;stroke-dasharray:5 4}",
        *[f".a{number}{{fill:{colour}}}" for number, colour in enumerate(_ACCENTS)],
        ".unreached .stripe{fill:#8c959f}",
        *[f".{name}{{{style}}}" for name, style in _LIGHT.items()],
        "@media (prefers-color-scheme:dark){",
        *[f".{name}{{{style}}}" for name, style in _DARK.items()],
        "}",
    ]
    return "\n" + "\n".join(rules) + "\n"
