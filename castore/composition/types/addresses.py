"""From the URL of a service to its config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from castore.composition.config.tables import problems_of
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind, RegisteredType
from castore.problems import Problem, escaped, nearest
from castore.secrets import Secret
from castore.urls import ServiceUrl, masked, quoted

Addressed: TypeAlias = tuple[RegisteredType, Any]
"""A type and an object of its config class."""


def config_from_url(registry: Registry, kind: Kind, text: str) -> Addressed | list[Problem]:
    """Return the type and the config that a URL stands for, or what is wrong with it."""
    try:
        url = ServiceUrl.parse(text)
    except ValueError as error:
        problem = attrs.evolve(problems_of(error)[0], code="bad-url")
        hint = (
            problem.hint
            if isinstance(text, Secret)
            else problem.hint or _prefixed(registry, kind, f"file:{text}")
        )
        return [attrs.evolve(problem, hint=hint)]
    entry = registry.find(kind, url.tag)
    if entry is None:
        scheme = text[: len(url.tag)]
        contested = registry.why_contested(kind, url.tag)
        if contested is not None:
            message, _, hint = contested.rpartition("; ")
            return [Problem("ambiguous-type", (), message, hint, part=scheme)]
        if isinstance(text, Secret):
            message = f"{quoted(text)} does not begin with a type of {kind.label}"
            return [Problem("unknown-scheme", (), message)]
        message = f"no type of {kind.label} has URLs that begin with `{scheme}:`"
        meant = nearest(url.tag, registry.types(kind))
        hint = f"did you mean `{meant}:`?" if meant else _prefixed(registry, kind, text)
        hint = hint or registry.why_unknown(kind, url.tag)
        return [Problem("unknown-scheme", (), message, hint, part=scheme)]
    make: Callable[[str], Any] | None = getattr(entry.config, "from_url", None)
    if make is not None:
        return _made(entry, make, text)
    hint = f'declare an instance, `[{kind.table}.NAME]` with `type = "{entry.tag}"`, and write `&NAME`'
    return [Problem("bad-url", (), f"the type `{entry.tag}` cannot be written as a URL", hint)]


def _prefixed(registry: Registry, kind: Kind, text: str) -> str | None:
    """Return a hint if there is a type that takes *text* behind its own name and a `+`."""
    for entry in registry.types(kind).values():
        make = getattr(entry.config, "from_url", None)
        longer = f"{entry.tag}+{text}"
        if make is not None and not isinstance(_made(entry, make, longer), list):
            return f"did you mean `{escaped(masked(longer))}`?"
    return None


def _made(entry: RegisteredType, make: Callable[[str], Any], text: str) -> Addressed | list[Problem]:
    try:
        config = make(text)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this URL
        return [
            attrs.evolve(problem, code="bad-url", path=(), message=f"{quoted(text)}: {problem.message}")
            for problem in problems_of(error)
        ]
    if not isinstance(config, entry.config):
        message = f"the type `{entry.tag}` made {type(config).__name__} of the URL"
        return [Problem("bad-url", (), message, "the fault is in the plugin: tell its authors")]
    return entry, config
