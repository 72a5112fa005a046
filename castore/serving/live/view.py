"""Answers what is asked of the live view of a composition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus

from castore.composition.composition import Composition
from castore.composition.graph.graph import Graph
from castore.digest import B3Digest
from castore.drawing import FORMATS, Picture
from castore.errors import CastoreError, InvalidDigestError
from castore.serving.live import page, words
from castore.serving.live.watch import Look, Watch
from castore.upkeep import explain, locate

TIMEOUT: Final = 3.0
"""How long each store is waited for that is asked for a digest, in seconds."""

_MOST_TEXT: Final = 200
"""No digest has more letters."""


class LiveView:
    """The live view of one composition; its methods are called on threads.

    Arguments:
        stores: The composition; whoever has opened it closes it. If it is not measured all numbers are 0.
        service: The blob service that is asked for digests.
        alone: Whether nothing else is served, so that no blob can be opened.
    """

    def __init__(self, stores: Composition, service: str = "root", *, alone: bool = False) -> None:
        self._stores = stores
        self._service = service
        self._alone = alone
        self._watch = Watch(stores)
        self._known: tuple[Graph, Picture, str] | None = None

    def close(self) -> None:
        """End the threads that ask how stores are."""
        self._watch.close()

    def page(self, base: str, query: Mapping[str, str]) -> bytes:
        """Return the page; *query* may have a `digest`, as URLs have it. *base* is the URL of the top."""
        asked = unquote_plus(query.get("digest", ""))[:_MOST_TEXT].strip()
        look = self._watch.look()
        picture, key = self._picture_of(look)
        answer = self._answer(asked, base) if asked else ""
        return page.composition_page(picture, words.document(look, key), base, asked, answer)

    def state(self) -> bytes:
        """Return what changes on the page, as JSON."""
        look = self._watch.look()
        _, key = self._picture_of(look)
        return json.dumps(words.document(look, key)).encode() + b"\n"

    def _picture_of(self, look: Look) -> tuple[Picture, str]:
        known = self._known
        if known is None or known[0] is not look.graph:
            picture = self._stores.picture()
            drawn = "\0".join((FORMATS["json"](picture), page.STYLE, page.SCRIPT)).encode()
            known = self._known = (look.graph, picture, str(B3Digest.of(drawn))[:16])
        return known[1:]

    def _answer(self, asked: str, base: str) -> str:
        try:
            digest = B3Digest.parse(asked)
        except InvalidDigestError as error:
            return page.refusal(str(error))
        clean = self._watch.scrubbed
        try:
            where = locate(self._stores, digest, name=self._service, timeout=TIMEOUT)
            plans = explain(self._stores, digest, name=self._service, timeout=TIMEOUT)
        except CastoreError as error:
            return page.refusal(clean(str(error)))
        url = "" if self._alone else f"{base}blob/{digest}"
        return page.digest_answer(digest, url, where, plans, clean)
