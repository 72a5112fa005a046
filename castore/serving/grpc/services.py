"""What a service of gRPC is here: a name, and methods with their messages and rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from castore.serving.access import Right


@attrs.frozen
class Method:
    """A method that clients can call.

    Answers are bytes, the messages as they are sent; so are requests without a *parse*.
    """

    name: str
    parse: Callable[[bytes], Any] | None
    work: Callable[..., Any]
    right: Right
    takes_many: bool = False
    sends_many: bool = False

    @property
    def streams(self) -> bool:
        """Whether it may take its time, as a client sends or takes many messages."""
        return self.takes_many or self.sends_many


class Calls(Protocol):
    """A service of gRPC."""

    name: str

    def methods(self) -> list[Method]:
        """Return what clients can call."""
        ...
