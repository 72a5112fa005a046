"""How blobs and trees are served over HTTP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal

import attrs

_FOR_EVER: Final = "max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


@attrs.frozen(kw_only=True)
class HttpOptions:
    """How blobs and trees are served.

    Attributes:
        root: The tree at `/`, as `TreePlace.parse` reads it; without one there is a list of refs.
        auto_index: Whether directories are listed; else they are 403.
        index_names: The files that stand for their directory, the first one that is there.
        site: Whether the tree at `/` is a site that is trusted: its pages may do what pages do, and nothing
            but the tree is served.
        writable: Whether blobs may be stored, by who has a token for that.
        private: Whether reading takes a token as well.
        hosts: The hosts that requests may name, without a port; `None` takes any. On a machine's own address
            it keeps pages of others from reading by a name that leads there.
        cors: The origins whose pages may read, such as `https://example.org`.
        check_frames: Whether frames that are sent as they are stored are unpacked and checked before.
        live: Who sees the live view of the composition, which shows places and hosts: nobody (`off`),
            `anybody` who may read, or who has a `token` for reading, also where nothing else takes one.
        only_live: Whether nothing else is served, and `/` leads to it.
        most_body: How many bytes a blob may have that is stored.
        idle: After how many seconds a client that takes, or sends, nothing is given up.
    """

    root: str | None = None
    auto_index: bool = True
    index_names: Sequence[str] = ()
    site: bool = False
    writable: bool = False
    private: bool = False
    hosts: Collection[str] | None = None
    cors: Collection[str] = ()
    check_frames: bool = True
    live: Literal["off", "anybody", "token"] = "off"
    only_live: bool = False
    most_body: int = 1 << 40
    idle: float = 30.0

    @property
    def keep_for_ever(self) -> str:
        """The `Cache-Control` of what never changes. What takes a token is nobody else's, as a proxy's."""
        return f"{'private' if self.private else 'public'}, {_FOR_EVER}"

    @property
    def ask_again(self) -> str:
        """The `Cache-Control` of what may be another thing next time."""
        return f"private, {_ASK_AGAIN}" if self.private else _ASK_AGAIN
