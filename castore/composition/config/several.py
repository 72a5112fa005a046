"""Lists of services in a config: `services = ["&a", { ref = "&b", timeout = "2 s" }]`.

Such a field has the type `tuple[Ref[BlobService] | Entry, ...]`, where `Entry` is an attrs class with a field
`ref`. A service is known by the name of its instance, and one that a URL makes by its place, `services[1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from castore.composition.config.refs import Ref
from castore.problems import InvalidValueError, did_you_mean, escaped, listing


def ref_of(entry: Any) -> Ref[Any]:
    """Return the reference of an entry, which is one or has one as `ref`."""
    ref: Ref[Any] = entry if isinstance(entry, Ref) else entry.ref
    return ref


def service_names(entries: Sequence[Any], field: str = "services") -> list[str]:
    """Return the names of the services in a list, which is the value of *field*."""
    return [ref_of(entry).name or f"{field}[{number}]" for number, entry in enumerate(entries)]


def at_least(count: int) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return a validator of a list of services: so many at least, and none of them twice."""

    def check(_: Any, field: attrs.Attribute[Any], entries: Sequence[Any]) -> None:
        if len(entries) < count:
            needed = "one service" if count == 1 else f"{count} services"
            raise InvalidValueError(f"at least {needed} must be listed", 'write `["&name", ...]`')
        seen: dict[str, int] = {}
        for number, (entry, name) in enumerate(zip(entries, service_names(entries, field.name), strict=True)):
            if name in seen:
                # Two of one name would be one store that counts twice.
                where = (number,) if isinstance(entry, Ref) else (number, "ref")
                message = f"`{escaped(name)}` is listed already, as number {seen[name] + 1}"
                raise InvalidValueError(message, "refer to another instance, or remove it", under=where)
            seen[name] = number

    return check


def one_of(services: str) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return a validator of a field that is `None` or the name of a service in the field *services*."""

    def check(config: Any, _: attrs.Attribute[Any], name: str | None) -> None:
        names = service_names(getattr(config, services), services)
        if name is None or name in names:
            return
        if name.startswith("&") and name[1:] in names:
            raise InvalidValueError("a name belongs here, and no reference", f'write `"{escaped(name[1:])}"`')
        hint = did_you_mean(name, names) or f"the services here are {listing(set(names))}"
        raise InvalidValueError(f"none of the `{services}` is named `{escaped(name)}`", hint)

    return check
