"""Paths that begin with the name of a ref, which may have parts itself: `team/site/docs/index.html`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from castore.contract.refs import NamedRoot, RefService
from castore.errors import CastoreError, InvalidRefError, NodeNotFoundError
from castore.trees.ref_names import RefName, find_ref

MOST_PARTS: Final = 16
"""So many parts a name may have that a path begins with: each of them is asked for."""


def find_leading_ref(refs: RefService, parts: Sequence[str]) -> tuple[RefName, NamedRoot, int] | None:
    """Return the ref that a path begins with, what it stands for, and how many parts its name has.

    The shortest one counts. The first part is asked for alone, as most names have one, and all longer names
    with one call. `None` if there is none; raises what is wrong with one.
    """
    names = _names(parts)
    if not names:
        return None
    plain = [name for name in names if name.at is None]
    for some in (plain[:1], plain[1:]):
        found = refs.get_many([name.name for name in some]) if some else {}
        for name in some:
            root = found.get(name.name)
            if isinstance(root, CastoreError):
                raise root
            if root is not None:
                return name, root, names.index(name) + 1
    last = names[-1]
    if last.at is not None:
        try:
            return last, find_ref(refs, last)[1], len(names)
        except NodeNotFoundError:
            return None
    return None


def _names(parts: Sequence[str]) -> list[RefName]:
    """Return the names that may be meant; one with `@` is the last."""
    names: list[RefName] = []
    for count in range(1, min(len(parts), MOST_PARTS) + 1):
        try:
            names.append(RefName.parse("/".join(parts[:count])))
        except InvalidRefError:
            break
        if names[-1].at is not None:
            break
    return names
