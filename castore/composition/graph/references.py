"""Where references lead: to nothing, to another kind, or in a circle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from castore.composition.graph.graph import DEEPEST, Edge, Graph, Instance, instance_id
from castore.composition.toml.document import Document
from castore.composition.types.registry import Registry
from castore.composition.types.service_type import Kind
from castore.problems import Problem, did_you_mean, dotted, escaped, listing, shortened
from castore.secrets import Secret

if TYPE_CHECKING:
    from castore.composition.toml.spans import Path

_MOST_COMPARED: Final = 100
"""How many names that lead to nothing are compared with all that there are, for a suggestion."""

_LONGEST: Final = 8
"""How many names of a circle are listed."""


def check_references(
    instances: Mapping[str, Instance], declared: Mapping[str, Path], registry: Registry, document: Document
) -> Iterator[Problem]:
    """Yield a problem for each reference to what is not *declared*, or is of another kind."""
    found = 0
    for instance in instances.values():
        for edge in instance.edges:
            if edge.ref.name is not None and edge.target not in declared:
                kind = instance.kind if edge.ref.kind is None else registry.kind(edge.ref.kind)
                found += 1
                # To compare each of many names with each of many others takes minutes, and nobody reads that.
                few = found <= _MOST_COMPARED
                others = {key: path for key, path in declared.items() if key != instance.id} if few else {}
                problem = _dangling(edge, edge.ref.name, kind, others, declared, registry)
                # What is named may stand in what could not be read.
                if problem.code == "wrong-kind" or not document.may_lack((kind.table,)):
                    yield problem


def _dangling(  # noqa: PLR0917 - two of them are of one sort: what is compared, and what there is
    edge: Edge,
    name: str,
    kind: Kind,
    others: Mapping[str, Path],
    declared: Mapping[str, Path],
    registry: Registry,
) -> Problem:
    names = [str(path[1]) for path in others.values() if len(path) == 2 and path[0] == kind.table]
    hint = _suggestion(kind, name, names)
    for other in registry.kinds.values():
        if other != kind and instance_id(other, name) in declared:
            message = f"`&{escaped(name)}` is a {other.label}, but a {kind.label} belongs here"
            return Problem("wrong-kind", edge.path, message, hint)
    message = f"no {kind.label} is named `{shortened(name)}`"
    return Problem("dangling-reference", edge.path, message, hint)


def _suggestion(kind: Kind, name: str, names: Sequence[str]) -> str:
    if isinstance(name, Secret):
        # What is near to a secret is not for everyone to see.
        return f"the other {kind.label}s are {listing('&' + entry for entry in names)}"
    meant = did_you_mean(name, names, prefix="&")
    if meant or not names:
        return meant or f"declare it: `[{dotted((kind.table, name))}]`"
    return f"the other {kind.label}s are {listing('&' + entry for entry in names)}"


def check_cycles(graph: Graph) -> Iterator[Problem]:
    """Yield a problem for each circle of references, at the reference that its first instance holds."""
    for cycle in graph.cycles():
        names = [instance.name for instance in cycle]
        steps = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        first = next(edge for edge in cycle[0].edges if edge.target == steps[0][1].id)
        if len(cycle) == 1:
            message, hint = f"`{escaped(names[0])}` refers to itself", "refer to another instance, or to none"
        else:
            message = f"a circle of references: {_chain([*names, names[0]])}"
            hint = f"break it: remove {_listed([_step(source, target) for source, target in steps])}"
        yield Problem("cycle", first.path, message, hint, chain=tuple(names))


def check_depths(graph: Graph) -> Iterator[Problem]:
    """Yield a problem for each row of services that is too long to be used, at its first one.

    The graph must have no cycles.
    """
    depths = graph.depths()
    deep = {key: depth for key, depth in depths.items() if depth > DEEPEST}
    within = {edge.target for key in deep for edge in graph.instances[key].edges}
    for key in deep.keys() - within if deep else ():
        yield Problem(
            "too-deep",
            graph.instances[key].path,
            f"{deep[key]} services stand in a row from here on, each using the next; at most {DEEPEST} work",
            "put services side by side, as in a `mirror` or a `fallback`, or leave some out",
            at="key",
        )


def _chain(names: Sequence[str]) -> str:
    shown = [f"`{escaped(name)}`" for name in names]
    if len(shown) > _LONGEST:
        left_out = f"… {len(shown) - _LONGEST + 1} more …"
        shown = [*shown[: _LONGEST // 2], left_out, *shown[1 - _LONGEST // 2 :]]
    return " → ".join(shown)


def _step(source: Instance, target: Instance) -> str:
    """Return the fields by which *source* refers to *target*."""
    return " and ".join(f"`{source.name}.{edge.label}`" for edge in source.edges if edge.target == target.id)


def _listed(steps: Sequence[str]) -> str:
    shown = list(steps[:_LONGEST])
    if len(steps) > _LONGEST:
        shown.append(f"or one of {len(steps) - _LONGEST} more")
        return ", ".join(shown)
    return ", ".join(shown[:-1]) + ", or " + shown[-1]
