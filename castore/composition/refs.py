"""References between instances, as they are written in a config."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from castore.composition.urls import looks_like_url, masked

T = TypeVar("T")


@attrs.frozen(repr=False)
class Ref(Generic[T]):
    """A reference to another instance: `&name`, or a URL for an instance of its own.

    A config field of type `Ref[BlobService]` is an edge of the graph. `context.resolve(ref)` gives the
    service when it is time to build.
    """

    text: str
    kind: type | None = None
    """The contract of what it refers to; `None`: the same kind as the instance that holds it."""

    @property
    def name(self) -> str | None:
        """The name of an instance, or `None` if this is a URL."""
        return self.text[1:] if self.text.startswith("&") else None

    @property
    def url(self) -> str | None:
        """The URL of an anonymous instance, or `None` if this is a name."""
        return None if self.text.startswith("&") else self.text

    def __repr__(self) -> str:
        return f"Ref({masked(self.text)!r})"


def check_reference(text: str) -> None:
    """Raise `ValueError`, saying what to write, unless *text* is `&name` or a URL."""
    if text == "&" or not text:
        raise ValueError("an empty reference: write `&` and the name of an instance, or a URL")
    if text.startswith("&") or looks_like_url(text):
        return
    raise ValueError(f"{text!r} is no reference: write `&{text}` for the instance of that name, or a URL")
