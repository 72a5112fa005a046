"""References between instances, as they are written in a config."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_origin

import attrs

from castore.problems import InvalidValueError, escaped
from castore.secrets import Secret, keep_secret
from castore.urls import looks_like_url, masked, quoted

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
        return keep_secret(self.text[1:], self.text) if self.text.startswith("&") else None

    @property
    def url(self) -> str | None:
        """The URL of an anonymous instance, or `None` if this is a name."""
        return None if self.text.startswith("&") else self.text

    def __repr__(self) -> str:
        return f"Ref({masked(self.text)!r})"


def is_ref(annotation: Any) -> bool:
    """Tell whether an annotation is `Ref`, of one kind or of any."""
    return annotation is Ref or get_origin(annotation) is Ref


def check_reference(text: str) -> None:
    """Raise `InvalidValueError`, saying what to write, unless *text* is `&name` or a URL."""
    if text == "&" or not text:
        raise InvalidValueError("an empty reference", "write `&` and the name of an instance, or a URL")
    if text.startswith("&") or looks_like_url(text):
        return
    if text.startswith((".", "/", "~")) and not isinstance(text, Secret):
        hint = f"write it as a URL, such as `objectstore+file:{escaped(text)}`"
        raise InvalidValueError(f"{quoted(text)} is a path, and no reference", hint)
    hint = "write `&name` for an instance, or a URL"
    if not isinstance(text, Secret):
        hint = f"write `&{escaped(text)}` for the instance of that name"
    raise InvalidValueError(f"{quoted(text)} is no reference: the `&` is missing", hint)
