"""Fields of a config in the query of its URL: `sqlite:blobs.sqlite?busy_timeout=5%20s`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs

from castore.composition.config.structure import ConfigStructurer
from castore.problems import Problem, ProblemsError, dotted
from castore.urls import ServiceUrl

C = TypeVar("C")


def read_query(cls: type[C], url: ServiceUrl, values: Mapping[str, object]) -> C:
    """Return an object of a config class as a table would make it; for the `from_url` of the class.

    Each text of the query is read as its field asks: `3`, `true`, `256 KiB`. The chunkers that plugins bring
    can be named in tables alone.

    Arguments:
        cls: An attrs class.
        url: The URL; its query has fields of the class by their names.
        values: The fields that the rest of the URL stands for, which the query must not have.

    Raises:
        ValueError: A key is no field, or is one of *values*; or a value is not what its field asks for. All
            that is wrong is in it.
    """
    table = dict(values)
    problems = []
    for key, text in url.query:
        if key in values:
            message = f"`{dotted((key,))}` is not for the query: the URL has it before the `?`"
            problems.append(Problem("bad-url", (), message, part=str(key)))
        else:
            table[key] = text
    reading = ConfigStructurer().read(table, cls)
    problems += (_in_query(problem) for problem in reading.problems)
    if problems:
        raise ProblemsError(problems)
    config: C = reading.config
    return config


def _in_query(problem: Problem) -> Problem:
    """Return a problem of a table as one of the URL that stands for it."""
    name = problem.path[-1] if problem.path else ""
    named = problem.at == "key" or not problem.path
    message = problem.message if named else f"`{dotted((name,))}`: {problem.message}"
    part = problem.part or str(name)
    return attrs.evolve(problem, code="bad-url", path=(), message=message, at="value", part=part)
