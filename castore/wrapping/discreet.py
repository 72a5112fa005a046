"""A shell around a service whose config has secrets: no error leaves it with one of them in its words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast

from castore.contract.blobs import BlobService
from castore.contract.directories import DirectoryService
from castore.contract.operations import Operation
from castore.errors import CastoreError, describe
from castore.secrets import scrub
from castore.wrapping.directories import WrapperDirectoryService
from castore.wrapping.forwarding import Entering
from castore.wrapping.wrapper import S, WrapperService, Wrapping

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

_OWN: Final = frozenset({"inner", "name", "high_latency", "whole_trees", "_forwarded", "_secrets"})
"""The attributes of a shell; all others are those of its service."""


class Discreet(Wrapping[S]):
    """Passes everything on, and takes *secrets* out of what goes wrong."""

    def __init__(self, inner: S, secrets: Sequence[str]) -> None:
        super().__init__(inner)
        self._secrets = secrets

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Say what `isinstance` is to say: that of the service."""
        return type(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _OWN:
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)

    def __repr__(self) -> str:
        return scrub(repr(self.inner), self._secrets)

    def around(self, operation: Operation, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call; raise, or answer, errors without the secrets."""
        try:
            answer: Any = call(*args, **kwargs)
        except Exception as error:
            clean = without_secrets(error, self._secrets)
            if clean is error:
                raise
            raise clean from clean.__cause__
        if isinstance(call, Entering):
            within = call.stack.pop_all()
            call.stack.push(partial(self._leave, within))
        if operation.yields == "iterator":
            first, rest = answer
            answer = [self._answer(item) for item in first], self._each(rest)
        elif operation.receives and isinstance(answer, Mapping):
            answer = {item: self._answer(value) for item, value in answer.items()}
        found: T = answer
        return found

    def _each(self, rest: Iterator[Any]) -> Iterator[Any]:
        try:
            for item in rest:
                yield self._answer(item)
        except CastoreError as error:
            clean = without_secrets(error, self._secrets)
            if clean is error:
                raise
            raise clean from clean.__cause__

    def _leave(self, within: contextlib.ExitStack, *raised: Any) -> bool:
        try:
            return bool(within.__exit__(*raised))
        except Exception as error:
            clean = without_secrets(error, self._secrets)
            if clean is error:
                raise
            raise clean from clean.__cause__

    def _answer(self, value: Any) -> Any:
        if isinstance(value, CastoreError):
            return without_secrets(value, self._secrets)
        if type(value) is tuple and len(value) == 2 and isinstance(value[1], CastoreError):
            return value[0], without_secrets(value[1], self._secrets)
        return value

    def _capability(self, kind: Callable[..., A], own: A | None) -> A | None:  # noqa: ARG002 - it has none
        if not isinstance(kind, type) or issubclass(kind, (BlobService, DirectoryService)):
            return cast("A | None", self.inner.capability(kind))
        # What this class says of itself is said of the service within.
        return cast("A | None", super()._capability(kind, None))

    def close(self) -> None:
        """Close the service."""
        try:
            self.inner.close()
        except Exception as error:
            clean = without_secrets(error, self._secrets)
            if clean is error:
                raise
            raise clean from clean.__cause__


class DiscreetService(Discreet[BlobService], WrapperService):
    """The shell of a service of blobs."""


class DiscreetDirectoryService(Discreet[DirectoryService], WrapperDirectoryService):
    """The shell of a service of directories."""


def discreet(service: BlobService | DirectoryService, secrets: Sequence[str]) -> Any:
    """Return *service* in a shell that takes *secrets* out of what goes wrong."""
    if isinstance(service, BlobService):
        return DiscreetService(service, secrets)
    return DiscreetDirectoryService(service, secrets)


def without_secrets(error: BaseException, secrets: Sequence[str]) -> Any:
    """Return *error* as it is if neither it nor what led to it shows a secret, else one like it without."""
    # Also of those that led to it: a traceback shows them all.
    if all(_is_clean(link, secrets) for link in _links(error)):
        return error
    return _Cleaner(secrets).cleaned(error)


def _is_clean(error: BaseException, secrets: Sequence[str]) -> bool:
    return all(scrub(text, secrets) == text for text in _words(error))


def _words(error: BaseException) -> Iterator[str]:
    yield str(error)
    yield repr(error)
    yield from (value for value in vars(error).values() if isinstance(value, str))


class _Cleaner:
    """Makes errors that say the same but for secrets, each once: they may lead to each other in a circle."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._made: dict[int, BaseException | None] = {}

    def cleaned(self, error: BaseException) -> BaseException:
        known = self._made.get(id(error), error)
        if known is not error:
            return CastoreError("the same as before") if known is None else known
        self._made[id(error)] = None
        clean = self._like(error).with_traceback(error.__traceback__)
        self._made[id(error)] = clean
        if error.__cause__ is not None:
            clean.__cause__ = self.cleaned(error.__cause__)
        clean.__suppress_context__ = True
        return clean

    def _like(self, error: BaseException) -> BaseException:
        if isinstance(error, CastoreError):
            make, (cls, args, state) = error.__reduce__()
            clean: BaseException = make(cls, self._scrubbed(args), self._scrubbed(vars(error) or state))
            return clean
        if isinstance(error, OSError) and error.errno is not None:
            name = None if error.filename is None else scrub(str(error.filename), self._secrets)
            return OSError(error.errno, scrub(str(error.strerror), self._secrets), name)
        return CastoreError(scrub(describe(error), self._secrets))

    def _scrubbed(self, value: Any) -> Any:
        match value:
            case str():
                return scrub(value, self._secrets)
            case BaseException():
                return self.cleaned(value)
            case dict():
                return {key: self._scrubbed(item) for key, item in value.items()}
            case tuple() if type(value) is tuple:
                return tuple(map(self._scrubbed, value))
            case list():
                return list(map(self._scrubbed, value))
        return value


def _links(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__, getattr(link, "cause", None)]
            for held in vars(link).values():
                waiting += held.values() if isinstance(held, dict) else ()
