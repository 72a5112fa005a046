"""Which versions of castore a plugin says that it works with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, version
from typing import Final, TypeAlias

_REQUIREMENT: Final = re.compile(r"\s*castore\s*(?:\[[^\]]*\])?\s*\(?([^;()@]*)\)?\s*(;.*)?", re.IGNORECASE)
_BOUND: Final = re.compile(r"\s*(~=|===?|!=|<=|>=|<|>)\s*v?([0-9]+(?:\.[0-9]+)*)(\.\*)?[^,]*")
_RELEASE: Final = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)")

_Release: TypeAlias = tuple[int, ...]

_RELATIONS: Final[dict[str, Callable[[_Release, _Release], bool]]] = {
    ">=": lambda have, want: have >= want,
    "<=": lambda have, want: have <= want,
    ">": lambda have, want: have > want,
    "<": lambda have, want: have < want,
    "==": lambda have, want: have == want,
    "===": lambda have, want: have == want,
    "!=": lambda have, want: have != want,
}


def unmet(distribution: Distribution | None) -> str | None:
    """Return what a distribution wants of castore and does not have, in words; `None` if all is well.

    `pip` looks at this when it installs one, and not when it brings another castore later. Versions are
    compared by their numbers (PEP 440, release segments); what cannot be read is taken to be met.
    """
    for requirement in (distribution.requires or []) if distribution is not None else []:
        match = _REQUIREMENT.fullmatch(requirement)
        # What only an extra wants need not be there.
        if match is None or "extra" in (match[2] or "") or not match[1].strip():
            continue
        try:
            installed = version("castore")
        except PackageNotFoundError:
            return None  # It runs from its sources, and has no version.
        if not satisfies(installed, match[1].split(",")):
            return f"it needs castore{match[1].strip()}, and this is castore {installed}"
    return None


def satisfies(installed: str, bounds: Sequence[str]) -> bool:
    """Tell whether a version is within all of *bounds*, such as `>=1.2` and `<2`."""
    return all(_satisfies(installed, bound) for bound in bounds)


def _satisfies(installed: str, bound: str) -> bool:
    match, release = _BOUND.fullmatch(bound), _RELEASE.match(installed)
    if match is None or release is None:
        return True
    relation, wanted, prefix = match[1], _numbers(match[2]), bool(match[3])
    have = _numbers(release[1])
    if relation == "~=":
        return have >= wanted and have[: len(wanted) - 1] == wanted[:-1]
    if prefix:
        return (_padded(have, len(wanted))[: len(wanted)] == wanted) == (relation != "!=")
    length = max(len(have), len(wanted))
    return _RELATIONS[relation](_padded(have, length), _padded(wanted, length))


def _numbers(text: str) -> _Release:
    return tuple(int(part) for part in text.split("."))


def _padded(release: _Release, length: int) -> _Release:
    return release + (0,) * (length - len(release))
