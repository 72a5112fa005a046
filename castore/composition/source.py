"""Where a composition comes from: a file, a mapping, or the URL of a single service."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from castore.composition.graph.lints import lint
from castore.composition.graph.references import check_depths
from castore.composition.loading import Loaded, load, load_url
from castore.composition.toml.document import Document, parse
from castore.composition.types.registry import Registry
from castore.errors import CompositionError, CycleError
from castore.places import read_small
from castore.problems import Problem
from castore.urls import masked, quoted

_DEEPEST: Final = 100

MOST_BYTES: Final = 4 << 20
"""The largest file that is read as a composition."""


@attrs.frozen(repr=False)
class ConfigSource:
    """All that is needed to read a composition again, and no secrets."""

    name: str
    """What errors call it: a file name, or `<mapping>`."""
    base: Path
    """The folder that relative paths start from."""
    text: str | None = None
    mapping: Mapping[str, Any] | None = None
    url: str | None = None
    """A single blob service, which becomes `root`."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the bytes of the file."""

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read a file; raise `CompositionError` if that cannot be done."""
        try:
            content = read_small(path, MOST_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CompositionError(f"cannot read the composition {str(path)!r}: {reason}") from None
        text, problems = _decoded(content)
        return cls(str(path), _absolute(path.parent), text, problems=problems)

    def again(self) -> ConfigSource:
        """Read the same file again; raise `CompositionError` if it cannot be read, or there is none."""
        if self.text is None:
            raise CompositionError(
                f"{self.name} is no file, to be read again; give `reload` what is to be read"
            )
        return ConfigSource.of_file(self.base / Path(self.name).name).called(self.name)

    def called(self, name: str) -> ConfigSource:
        """Return the same, as errors are to call it."""
        return attrs.evolve(self, name=name)

    @classmethod
    def of_mapping(cls, mapping: Mapping[str, Any], base: Path, name: str = "<mapping>") -> Self:
        """Take the tables that a file would have."""
        if not isinstance(mapping, Mapping):
            raise CompositionError(f"{name}: expected a mapping of tables, found {type(mapping).__name__}")
        return cls(name, _absolute(base), mapping=_copied(mapping))

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Take the URL of a blob service; relative paths start from the current folder."""
        return cls(f"<{masked(url)}>", _absolute(Path()), url=url)

    def load(self, registry: Registry) -> Loaded:
        """Read and check it; raise `CompositionError` with all that is wrong."""
        if self.url is not None:
            loaded, readable = load_url(self.url, registry), None
        else:
            document = Document(self.mapping or {}) if self.text is None else parse(self.text, self.problems)
            loaded, readable = load(document, registry, self.base), document.text
        if loaded.problems:
            raise self._error(loaded.problems, readable)
        found = lint(loaded.graph, self.base, loaded.ignored)
        deep = list(check_depths(loaded.graph))
        return attrs.evolve(
            loaded,
            warnings=tuple(self._located(found, readable)),
            obstacles=tuple(self._located(deep, readable)),
        )

    def error(self, problems: Sequence[Problem]) -> CompositionError:
        """Return the error for problems whose places are known, or that have none."""
        return self._error(problems, None)

    def render(self, problems: Sequence[Problem]) -> str:
        """Return problems or warnings, whose places are known, as text."""
        from castore.composition.report import render  # noqa: PLC0415 - only mistakes need it

        return render(problems, self.name, self.text)

    def headline(self, problem: Problem) -> str:
        """Return a problem, whose place is known, in one line."""
        from castore.composition.report import headline  # noqa: PLC0415 - as above

        return headline(problem, self.name)

    def _located(self, problems: Sequence[Problem], readable: str | None) -> Sequence[Problem]:
        if readable is None or not problems:
            return problems
        from castore.composition.report import located  # noqa: PLC0415 - only mistakes need it

        return located(problems, readable)

    def _error(self, problems: Sequence[Problem], readable: str | None) -> CompositionError:
        """Return the error for *problems*, whose places are found in *readable*."""
        if self.url is not None:
            message = "\n".join(_in_one_line(problem, self.url) for problem in problems)
        else:
            problems = self._located(problems, readable)
            message = self.render(problems)
        if all(problem.code == "cycle" for problem in problems):
            return CycleError(message, problems[0].chain, problems)
        return CompositionError(message, problems)


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:
        # The current folder is gone, which is told to who needs a path that starts there.
        return path


def _in_one_line(problem: Problem, url: str) -> str:
    """Return a problem of a URL that stands alone, so that there is no place to name but the URL."""
    shown = quoted(url)
    about = problem.message if shown in problem.message else f"{shown}: {problem.message}"
    return "; ".join([about, *(problem.hint.split("\n") if problem.hint else [])])


def _decoded(content: bytes) -> tuple[str, tuple[Problem, ...]]:
    """Return the text of a file, and what is wrong with the lines that are not UTF-8."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        problem = Problem("encoding", (), "the file is in UTF-16", "save it as UTF-8", line=1, column=1)
        return content.decode("utf-16", "replace").replace("\r\n", "\n"), (problem,)
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    problems = []
    for number, line in enumerate(text.split("\n"), 1):
        wrong = re.search("[\udc80-\udcff]", line)
        if wrong:
            byte = f"{ord(wrong[0]) - 0xDC00:#04x}"
            message, hint = f"this is not UTF-8: the byte {byte}", "save the file as UTF-8"
            problems.append(Problem("encoding", (), message, hint, line=number, column=wrong.start() + 1))
    return re.sub("[\udc80-\udcff]", "\N{REPLACEMENT CHARACTER}", text), tuple(problems)


def _copied(value: Any, depth: int = 0) -> Any:
    """Return a copy of tables and arrays, which their owner may change later."""
    if depth > _DEEPEST:
        raise CompositionError("<mapping>: it is nested too deeply, or holds itself")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) and type(key) is not int:
                raise CompositionError(f"<mapping>: a key is {key!r}, but keys are strings")
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item, depth + 1) for item in value]
    return value
