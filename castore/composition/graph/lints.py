"""What looks wrong in a composition that is right: warnings, which never keep it from being used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from castore.composition.graph.graph import Graph, Instance
from castore.composition.graph.traits import UNKNOWN, Traits, View, label
from castore.contract.blobs import BlobService
from castore.problems import Problem, escaped

_LONGEST_PATH: Final = 4096
"""A longer path is no place, as no system opens it."""

_log: Final = logging.getLogger("castore.composition")


def lint(graph: Graph, base: Path, ignored: Sequence[str] = ()) -> list[Problem]:
    """Return the warnings about a composition that has no problems.

    Arguments:
        graph: Without cycles.
        base: What relative paths start from.
        ignored: Codes of warnings that are not wanted, or a code, a colon and the name of an instance.
    """
    linter = _Linter(graph, base)
    linter.know()
    found = [*linter.of_types(), *linter.shared_places(), *linter.evicted(), *linter.unused()]
    return [problem for problem in found if not _names_of(problem) & set(ignored)]


def traits_of(graph: Graph, base: Path) -> dict[str, Traits]:
    """Return what is known of all instances, by their ids."""
    linter = _Linter(graph, base)
    linter.know()
    return linter.traits


def _names_of(problem: Problem) -> set[str]:
    """Return by what a warning can be ignored: its code, and its code with the name of the instance."""
    return {problem.code, f"{problem.code}:{''.join(map(str, problem.path[1:2]))}"}


class _Linter:
    def __init__(self, graph: Graph, base: Path) -> None:
        self.graph = graph
        self.base = base
        self.traits: dict[str, Traits] = {}
        self.faults: list[Problem] = []

    def view(self, instance: Instance) -> View:
        return View(self.base, label(instance), instance, self.graph, self.traits)

    def know(self) -> None:
        """Ask all configs for their traits, those that others need first."""
        for instance in self.graph.all_in_order():
            say = getattr(instance.config, "traits", None)
            found = None if say is None else self._ask(instance, say)
            self.traits[instance.id] = found if isinstance(found, Traits) else UNKNOWN

    def of_types(self) -> Iterator[Problem]:
        """Yield what the types have to say of their own instances, and the faults of those that cannot."""
        for instance in self.graph.instances.values():
            say = getattr(instance.config, "lints", None)
            if say is not None:
                found = self._ask(instance, lambda view, say=say: _checked(say(view))) or ()
                yield from (attrs.evolve(problem, severity="warning") for problem in found)
        yield from self.faults

    def _ask(self, instance: Instance, say: Any) -> Any:
        try:
            return say(self.view(instance))
        except Exception:  # noqa: BLE001 - a warning that fails must not keep a composition from loading
            _log.debug("`%s` cannot tell what it is like", instance.id, exc_info=True)
            message = f"the type `{instance.type.tag}` fails to say what it is like: warnings may be missing"
            hint = f"the fault is in {instance.type.owner}: tell its authors"
            fault = Problem("plugin", instance.path, message, hint, at="key", severity="warning")
            if fault not in self.faults:
                self.faults.append(fault)
            return None

    # -- what concerns several instances --

    def shared_places(self) -> Iterator[Problem]:
        """Yield a warning for each instance that keeps blobs where one before it does, or within."""
        places = _Places()
        for instance in self.graph.instances.values():
            traits = self.traits[instance.id]
            # Directories and refs in one place with blobs, or with each other, do no harm.
            if instance.kind.contract is not BlobService:
                continue
            if traits.place is None or len(str(traits.place)) > _LONGEST_PATH:
                continue
            # By the letter: following links would touch the disk.
            words = places.take(Path(os.path.normpath(traits.place)), label(instance))
            if words:
                yield Problem(
                    "shared-place",
                    _place_of(instance, traits),
                    f"it keeps its blobs {words}: neither knows what the other writes and removes",
                    "give each a place of its own, or let both names be references to one instance",
                    severity="warning",
                )

    def evicted(self) -> Iterator[Problem]:
        """Yield a warning for each place by which blobs that were stored may be evicted, with no other copy.

        That is judged where blobs are put: at what is asked by name, as a root is, and not at what is only a
        part of another instance, which may well keep a second copy. A service that evicts, and that is not a
        part of one which could do otherwise, is meant so.
        """
        warned: set[tuple[str | int, ...]] = set()
        for instance in self.graph.instances.values():
            evicts = self.traits[instance.id].evicts
            if evicts is None or not evicts.path or evicts.path in warned or self._is_a_part(instance):
                continue
            warned.add(evicts.path)
            message = (
                f"new blobs are kept here alone, and `{evicts.by}` evicts them: what was stored may be gone"
            )
            yield Problem("stored-then-evicted", evicts.path, message, evicts.hint, severity="warning")

    def _is_a_part(self, instance: Instance) -> bool:
        """Tell whether an instance is used only by others that say what becomes of blobs."""
        users = [
            entry
            for entry in self.graph.instances.values()
            if any(edge.target == instance.id for edge in entry.edges)
        ]
        named_root = not instance.anonymous and instance.name == "root"
        return bool(users) and not named_root and all(self.traits[user.id] != UNKNOWN for user in users)

    def unused(self) -> Iterator[Problem]:
        """Yield a warning for each instance that nobody refers to, other than a root.

        What only such an instance refers to is its affair. Where nothing refers to anything, the composition
        is a list of services to be asked by name.
        """
        used = {edge.target for entry in self.graph.instances.values() for edge in entry.edges}
        for instance in self.graph.instances.values() if used else ():
            if instance.id in used or instance.anonymous or instance.name == "root":
                continue
            name = escaped(instance.name)
            message = f"nothing refers to `{name}`: it is used only by who asks for it by name"
            hint = (
                f"write `&{name}` where it belongs, or remove it; if it is meant so, write above all tables\n"
                f'  ignore_warnings = ["unused-instance:{name}"]'
            )
            yield Problem("unused-instance", instance.path, message, hint, at="key", severity="warning")


def _checked(problems: Iterable[object]) -> list[Problem]:
    found = []
    for problem in problems:
        if not isinstance(problem, Problem):
            raise TypeError(f"{problem!r} is no warning")
        found.append(problem)
    return found


class _Places:
    """The places that were met, and the folders around them, each with the name of the first one there."""

    def __init__(self) -> None:
        self._taken: dict[Path, str] = {}
        self._around: dict[Path, str] = {}

    def take(self, place: Path, name: str) -> str:
        """Note a place; return how it overlaps with one before it, in words, empty if with none."""
        above = next((self._taken[folder] for folder in place.parents if folder in self._taken), None)
        words = ""
        if place in self._taken:
            words = f"where `{self._taken[place]}` keeps its own"
        elif above is not None:
            words = f"inside the folder of `{above}`"
        elif place in self._around:
            words = f"in a folder that holds that of `{self._around[place]}`"
        self._taken.setdefault(place, name)
        for folder in place.parents:
            self._around.setdefault(folder, name)
        return words


def _place_of(instance: Instance, traits: Traits) -> tuple[str | int, ...]:
    """Return the path of the value that says where an instance keeps its blobs."""
    return (
        instance.path
        if instance.anonymous or not traits.place_field
        else (*instance.path, traits.place_field)
    )
