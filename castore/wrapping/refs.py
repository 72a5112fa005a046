"""The base of services of refs that stand around one other, as `castore.wrapping.wrapper` has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from castore.contract.refs import ANY, Expected, FoundRefs, NamedRoot, RefService
from castore.wrapping.forwarding import forwarded_capability
from castore.wrapping.wrapper import Wrapping

A = TypeVar("A")


class WrapperRefService(Wrapping[RefService], RefService):
    """Passes everything on to *inner*, each operation through `around`.

    Closing it leaves *inner* open, which who has made it closes.

    Attributes:
        inner: The service within.
        name: The name of this instance, for errors.
    """

    def __init__(self, inner: RefService, *, name: str = "wrapper") -> None:
        super().__init__(inner, name=name)
        self._refs = forwarded_capability(RefService, inner, self.around)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names there."""
        return self._refs.names(prefix)

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Return the refs there."""
        return self._refs.get_many(names)

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Set the ref there."""
        return self._refs.set(name, ref, expect=expect)

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Delete the ref there."""
        return self._refs.delete(name, expect=expect)

    def capability(self, kind: Callable[..., A]) -> A | None:
        """Return the capability of the service within, each of its methods passed through `around`."""
        return self._capability(kind, super().capability(kind))
