"""Every block of code in the README and in `docs/` is run, each page in a folder of its own.

What happens to a block depends on its language:

`python`   is executed; the blocks of a page share their names. One that begins with `# folder/module.py` is
           that file: all such files are there from the start, and what they define is known to the page. A
           file `test_*.py` is given to pytest; `# a method of Name` adds to the class of that name.
`pycon`    is a session of the interpreter, compared as doctest does.
`toml`     is a composition: it is written to `composition.toml`, or to the file that its first line names,
           and loaded. A `pyproject.toml` makes its entry points plugins of the page.
`console`  is run line by line; `...` in the output stands for anything, and columns may be wider. Variables
           and `cd` last. After a command that fails comes `echo $?`, or the page is wrong.

A block in any other language is the output of the command in the comment `<!-- output of: ... -->` that
stands before it. What is not run is in `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import ast
import doctest
import errno
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from shutil import copytree
from typing import Any, Final
from unittest import mock

import attrs
import pytest
from sybil import Document, Example, Region, Sybil
from sybil.document import PythonDocStringDocument
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from castore import Composition, Registry
from castore.composition.types.plugins import Plugin

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = [
    "README.md",
    "examples/embed/README.md",
    "examples/web/README.md",
    *sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts
    ),
]

NOT_RUN: Final = {
    ("README.md", "make demo    # sets everything up in .venv, and shows the main job on real files"): (
        "sets up the machine; `make demo` is run by tests/examples/test_examples.py and by .ci/run"
    ),
    ("README.md", "python3 -m venv .venv"): "sets up the machine: it is what the Makefile does",
    ("docs/index.md", "python3 -m venv .venv"): "sets up the machine, as the README does",
    ("docs/tutorial/first-stack.md", "python3 -m venv .venv"): "sets up the machine, as the README does",
    ("examples/web/README.md", "uvicorn --factory app:create_app &"): (
        "leaves a server running; tests/examples/test_web.py makes the same requests over HTTP"
    ),
    (
        "docs/how-to/share-with-snix.md",
        "castore serve --listen unix:/run/castore/castore.sock --listen localhost:8000",
    ): ("goes on; tests/serving/test_serve.py starts servers"),
    (
        "docs/how-to/share-with-snix.md",
        "castore serve --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem --tokens tokens.txt",
    ): "as above",
    (
        "docs/how-to/serve-http.md",
        "pip install 'castore[web]'",
    ): "goes on; tests/cli/test_http.py does the same",
    ("docs/how-to/mount.md", "apt-get install fuse3"): (
        "needs FUSE, which not every machine has; tests/cli/test_mount.py mounts where it is"
    ),
    ("docs/how-to/mount.md", "castore mount /mnt/all"): "as above",
    ("docs/how-to/check-a-large-store.md", "$ castore gc --dask tcp://scheduler:8786"): (
        "needs a cluster; tests/upkeep/test_spreading_dask.py has one"
    ),
    ("docs/how-to/check-a-large-store.md", "$ castore verify --service root --dask tcp://scheduler:8786"): (
        "needs a cluster; tests/upkeep/test_spreading_dask.py has one"
    ),
    ("docs/how-to/check-a-large-store.md", "from distributed import Client"): "as above",
    ("docs/how-to/check-a-large-store.md", "import ray"): "needs Ray, which no environment here has",
    ("docs/how-to/serve-http.md", "castore http --tokens tokens.txt --writable"): "goes on; as above",
    ("docs/how-to/run-under-systemd.md", "# /etc/systemd/system/castore.service"): "a unit of systemd",
    ("docs/how-to/run-under-systemd.md", "# /etc/systemd/system/castore-http.service"): "as above",
    ("docs/how-to/run-under-systemd.md", "# /etc/systemd/system/castore.socket"): "as above",
    ("docs/how-to/run-under-systemd.md", "# /etc/systemd/system/castore-http.socket"): "as above",
    (
        "docs/how-to/run-under-systemd.md",
        "systemd-socket-activate -l 8080 castore http --insecure",
    ): "goes on",
    ("docs/how-to/share-with-snix.md", "# name     rights        token"): "a file of tokens",
    (
        "docs/how-to/use-fsspec.md",
        "from upath import UPath",
    ): "universal_pathlib is not among what tests need",
    ("docs/explanation/what-a-tree-keeps.md", "#mtree"): "a file; tests/trees hold its format",
    (
        "docs/reference/refs.md",
        (
            '{"comment":"","metadata":null,"node":{"digest":"blake3-rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJq'
            'TyuQfMmI=","size":0,"type":"directory"},"source":"/home/me/www","time":"2026-11-30T14:05:0'
            '0Z","version":1}'
        ),
    ): "a file; tests of refs hold its format",
    ("docs/reference/errors.md", "CastoreError                        castore"): (
        "a drawing; tests/test_errors.py holds it against the classes"
    ),
    (
        "docs/explanation/architecture.md",
        "cli/ testing/              the command line; the contract as clauses to test with",
    ): ("a drawing; tests/test_house.py holds it against the imports"),
    (
        "docs/explanation/architecture.md",
        "          round n                                            round n + 1",
    ): "a drawing",
    ("docs/explanation/architecture.md", "open_read(digest)"): "a drawing",
    ("docs/explanation/architecture.md", "composition.toml"): "a drawing",
    ("docs/explanation/pipeline.md", "a blob goes in"): "a drawing",
    ("docs/explanation/pipeline.md", "many files go in"): "a drawing",
    ("docs/explanation/pipeline.md", "a blob comes out"): "a drawing",
}
"""By page and first line of the block: why it is not run."""

DIRECTIVE: Final = re.compile(r"\{(?!code-block)[\w-]+\}.*")
FILE: Final = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")
METHOD: Final = re.compile(r"# a method of (\w+)\n")
COMMENT: Final = re.compile(r"<!-- output of: (?P<command>.*?) -->\s*\Z", re.DOTALL)


@attrs.define
class Runner:
    """Runs the blocks of one page, in the current folder and with the variables of this process."""

    folder: Path
    state: Path
    plugins: list[Plugin] = attrs.field(factory=list)
    status: int = 0

    # -- the languages --

    def python(self, example: Example) -> None:
        source = example.parsed
        if METHOD.match(source):
            self._add_method(METHOD.match(source)[1], example)
        elif not FILE.match(source):
            PythonEvaluator()(example)
        elif Path(FILE.match(source)[1]).name.startswith("test_"):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILE.match(source)[1]]
            output, status = self._run(command, PYTHONPATH=str(self.folder))
            assert status == 0, output
        else:
            name = ".".join(Path(FILE.match(source)[1]).with_suffix("").parts).removesuffix(".__init__")
            module = importlib.import_module(name)
            example.namespace.update({k: v for k, v in vars(module).items() if not k.startswith("_")})

    def _add_method(self, owner: str, example: Example) -> None:
        before = dict(example.namespace)
        PythonEvaluator()(example)
        for name, value in example.namespace.items():
            if before.get(name) is not value and isinstance(value, (classmethod, type(lambda: None))):
                setattr(example.namespace[owner], name, value)

    def pycon(self, example: Example) -> str:
        test = doctest.DocTestParser().get_doctest(
            example.parsed, example.namespace, "page", example.path, example.line
        )
        report: list[str] = []
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        doctest.DocTestRunner(optionflags=flags).run(test, out=report.append, clear_globs=False)
        example.namespace.update(test.globs)
        return "".join(report)

    def toml(self, example: Example) -> None:
        named = FILE.match(example.parsed)
        path = Path(named[1] if named else "composition.toml")
        path.write_text(example.parsed)
        if path.name == "pyproject.toml":
            self._install(tomllib.loads(example.parsed)["project"])
        else:
            with Composition.from_toml(path, registry=self._registry()) as stores:
                assert stores.graph.instances
                assert not stores.warnings, stores.describe_warnings()

    def _install(self, project: dict[str, Any]) -> None:
        for name, module in project["entry-points"]["castore"].items():
            label = f"{project['name']} {project['version']}"
            self.plugins.append(Plugin(name, label, EntryPoint(name, module, "castore")))

    def _registry(self) -> Registry:
        registry = Registry.default()
        for plugin in self.plugins:
            registry.load(plugin)
        assert not registry.broken
        return registry

    def console(self, example: Example) -> str:
        commands = list(_commands(example.parsed))
        for (command, expected), following in zip(commands, [*commands[1:], None], strict=True):
            found = self.shell(command)
            if not _matches(expected, found):
                return f"$ {command}\n-- expected:\n{expected}-- found:\n{found}"
            if self.status and (following is None or following[0] != "echo $?"):
                return f"$ {command}\nends with {self.status}, and the page does not say so; found:\n{found}"
        return ""

    def output(self, example: Example) -> str:
        command = _output_of(example)
        assert command is not None
        found = self.shell(command)
        if _matches(example.parsed, found):
            return ""
        return f"$ {command}\n-- expected:\n{example.parsed}-- found:\n{found}"

    # -- the shell --

    def shell(self, command: str) -> str:
        """Run a command as if all commands of the page were typed into one shell; return what it shows."""
        keep = f"env -0 > {self.state}/env; pwd > {self.state}/cwd"
        script = f"(exit {self.status})\n{command}\nstatus=$?; {keep}; exit $status"
        output, self.status = self._run(["sh", "-c", script])
        pairs = (self.state / "env").read_text().rstrip("\0").split("\0")
        os.environ.clear()
        os.environ.update(pair.split("=", 1) for pair in pairs if not pair.startswith("_="))
        os.chdir((self.state / "cwd").read_text().removesuffix("\n"))
        return output

    def _run(self, command: list[str], **variables: str) -> tuple[str, int]:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **variables},
            check=False,
        )
        return done.stdout, done.returncode


def _commands(session: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console with their output; `> ` continues a command."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        count = next((i for i, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
        command = "".join([lines[0], *(line[2:] for line in lines[1:count])])
        yield command.removesuffix("\n"), "".join(lines[count:])


def _matches(expected: str, found: str) -> bool:
    pattern = "".join(map(_pattern, _lines(expected)))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(found))) is not None


def _pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*"
    # How wide a column is may depend on how long something took.
    return re.sub(r"(\\ ){2,}", r" {2,}", re.escape(line)).replace(r"\.\.\.", ".*") + r"\n"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip("\n").split("\n")] if text.strip() else []


# -- finding the blocks --


def _language(region: Region) -> str:
    return str(region.lexemes["language"]).removeprefix("{code-block} ").strip()


def _output_of(example: Example) -> str | None:
    match = COMMENT.search(example.document.text[: example.region.start])
    return match["command"] if match else None


def _evaluate(example: Example) -> str | None:
    runner: Runner = example.namespace["runner"]
    way = way_of(example)
    return getattr(runner, way)(example) if way else None


def way_of(example: Example) -> str | None:
    """How a block is run: a method of `Runner`, or `None` for one that is not run."""
    language = _language(example.region)
    return (
        language
        if language in {"python", "pycon", "toml", "console"}
        else "output"
        if _output_of(example)
        else None
    )


def _fences(document: Document) -> Iterator[Region]:
    for region in RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))(document):
        if not DIRECTIVE.fullmatch(region.lexemes["language"]):
            region.parsed = region.lexemes["source"]
            region.evaluator = _evaluate
            yield region


SYBIL: Final = Sybil([_fences], patterns=["*.md"], path=str(ROOT))


def examples_of(page: str) -> list[Example]:
    """The blocks of a page, without those that are directives of MyST."""
    return list(SYBIL.parse(ROOT / page))


def _is_excused(page: str, example: Example) -> bool:
    return (page, example.parsed.split("\n")[0]) in NOT_RUN


# -- the tests --


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A runner in an empty folder, with a home of its own and without the variables of this machine."""
    folder, home, state = (tmp_path / name for name in ("work", "home", "state"))
    for new in (folder, home, state):
        new.mkdir()
    before, modules = Path.cwd(), set(sys.modules)
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }
    with (
        mock.patch.dict(os.environ, variables, clear=True),
        mock.patch.object(sys, "path", [str(folder), *sys.path]),
    ):
        os.chdir(folder)
        try:
            yield Runner(folder, state)
        finally:
            os.chdir(before)
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                    del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_the_page_run(page: str, runner: Runner) -> None:
    """Each block does what the page says."""
    if page.startswith("examples/"):
        copytree((ROOT / page).parent, runner.folder, dirs_exist_ok=True)
    examples = examples_of(page)
    for example in examples:
        named = FILE.match(example.parsed) if _language(example.region) == "python" else None
        if named:
            path = runner.folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(example.parsed)
    for example in examples:
        example.namespace["runner"] = runner
        if not _is_excused(page, example):
            example.evaluate()


def test_no_block_is_left_out_without_a_reason() -> None:
    """A block is run, or is listed in `NOT_RUN`."""
    left_out = [
        f"{page}:{example.line}: {example.parsed.splitlines()[0]}"
        for page in PAGES
        for example in examples_of(page)
        if way_of(example) is None and not _is_excused(page, example)
    ]

    assert not left_out, "neither run nor in NOT_RUN"


def test_every_reason_is_about_a_block_that_is_there() -> None:
    """What is listed as not run exists, so that the list says no more than is true."""
    blocks = {(page, example.parsed.split("\n")[0]) for page in PAGES for example in examples_of(page)}

    assert set(NOT_RUN) <= blocks


def _literals() -> str:
    """All texts in the code, with a mark for each value that is put into one."""
    texts = []
    for folder in ("castore", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    texts.append(
                        "".join(
                            str(getattr(part, "value", "\0")) if isinstance(part, ast.Constant) else "\0"
                            for part in node.values
                        )
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_each_message_in_troubleshooting_is_one_of_the_code() -> None:
    """Who looks for the words that are on the screen finds them, as far as they are castore's."""
    page = (ROOT / "docs/how-to/troubleshooting.md").read_text()
    tables = re.findall(r"^\| message \|.*\n\|---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    messages = [re.match(r"\| `(.+?)` \|", line)[1] for table in tables for line in table.splitlines()]
    code = _literals() + os.strerror(errno.ENOSPC)
    lost = [
        part
        for message in messages
        for part in message.split("...")
        if part.strip(" :;,") and part.strip() not in code
    ]

    assert len(messages) > 20
    assert lost == []


def _docstring_examples() -> list[Any]:
    found = []
    for path in sorted((ROOT / "plugins").glob("*/config.py")):
        for _, _, text in PythonDocStringDocument.extract_docstrings(path.read_text()):
            for number, match in enumerate(re.finditer(r"Example::\n\n((?: {4}.*\n|\n)+)", text + "\n")):
                source = "\n".join(line[4:] for line in match[1].split("\n"))
                found.append(pytest.param(source, id=f"{path.parent.name}-{number}"))
    return found


@pytest.mark.parametrize("source", _docstring_examples())
def test_the_example_in_the_docstring_of_a_config_loads(source: str, runner: Runner) -> None:
    """What a plugin's config module shows as an example is a composition without problems."""
    Path("composition.toml").write_text(source)

    with Composition.from_toml("composition.toml") as stores:
        if "grpc+http:" in source:
            return  # Its peer is in tests/serving.
        digest = stores.blobs().write(b"Hello World!")
        assert stores.blobs().read(digest) == b"Hello World!"


def test_each_bundled_plugin_has_an_example() -> None:
    """The module that documents a type's config shows how it is used."""
    plugins = {path.parent.name for path in (ROOT / "plugins").glob("*/config.py")}

    assert {str(param.id).rpartition("-")[0] for param in _docstring_examples()} == plugins


# -- the machinery itself: a runner that passes everything would make all of the above worthless --


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n...\n", "a\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a...c\n", "a b c\n", True),
        ("a...c\n", "a\nc\n", False),
        ("a  b\n", "a     b\n", True),
        ("a  b\n", "a b\n", False),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_three_dots_stand_for_anything(expected: str, found: str, same: bool) -> None:
    assert _matches(expected, found) is same


BAD_PAGES: Final = {
    "python that raises": "```python\nassert False\n```\n",
    "pycon with another answer": "```pycon\n>>> 1 + 1\n3\n```\n",
    "toml with a mistake": '```toml\n[blobservices.root]\ntype = "no such type"\n```\n',
    "console with another output": "```console\n$ echo 1\n2\n```\n",
    "console whose command fails": "```console\n$ false\n```\n",
    "text with another output": "<!-- output of: echo 1 -->\n```text\n2\n```\n",
    "a block in a list": "- item\n\n  ```python\n  assert False\n  ```\n",
}


@pytest.mark.parametrize("text", BAD_PAGES.values(), ids=BAD_PAGES)
def test_a_page_with_a_mistake_fails(text: str, runner: Runner) -> None:
    document = Document(text, "bad.md")
    (region,) = _fences(document)
    document.add(region)
    (example,) = document
    example.namespace["runner"] = runner

    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is: the page does not pass
        example.evaluate()
