"""The order of the house: which folder imports which, and that nothing goes round in circles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import castore

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/architecture.md"

# From the ground up: each line imports only what stands above it, and its own.
ORDER = [
    {"errors", "problems", "digest", "buffers", "text", "urls", "secrets", "places", "databases", "owned"},
    {"threads"},
    {"contract"},
    {"format"},
    {"streams"},
    {"chunks", "directories"},
    {"wrapping"},
    {"composites"},
    {"metrics"},
    {"drawing"},
    {"composition"},
    {"trees"},
    {"faults"},
    {"upkeep"},
    {"opening", "aio"},
    {"serving", "access"},
    {"testing", "cli"},
    {"__main__"},
]

# What `BlobService` has ready made is written on top of the contract, and called through it.
EXCEPTIONS = {
    ("castore.contract.blobs", "castore.chunks.storing"),
    ("castore.contract.blobs", "castore.chunks.reading_many"),
    ("castore.contract.directories", "castore.directories.reading"),
    ("castore.contract.directories", "castore.directories.writing"),
}

PURE = {"os", "io", "pathlib", "socket", "time", "datetime", "random", "concurrent", "asyncio", "subprocess"}
"""What nothing in `castore.format` imports: bytes in, bytes out."""


def modules(folder: Path) -> dict[str, Path]:
    """The modules below a folder by their names, but for those that are generated."""
    found = {}
    for path in folder.rglob("*.py"):
        if not path.stem.endswith("_pb2"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


CORE = modules(ROOT / "castore")
BUNDLED = {
    name: path
    for folder in sorted((ROOT / "plugins").iterdir())
    if (folder / "__init__.py").exists()
    for name, path in modules(folder).items()
}
PLUGINS = {name.partition(".")[0] for name in BUNDLED}


def imports(path: Path, *, typing: bool = False, lazy: bool = True) -> Iterator[str]:
    """The modules that a file imports; those for type checking, or in functions, only if asked for."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not lazy:
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in CORE or whole in BUNDLED else base
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return walk(ast.parse(path.read_text()))


def floor(module: str) -> int:
    """The line of a module in the order."""
    part = module.split(".")[1]
    return next(number for number, names in enumerate(ORDER) if part in names)


def test_each_folder_has_its_place_in_the_order() -> None:
    """A new folder or module of the core is given one line, and no line is left without."""
    parts = {name.split(".")[1] for name in CORE if "." in name}
    assert parts == set.union(*ORDER)


def test_imports_go_down() -> None:
    """Not even in a function does the core import what stands above it, or the front of the package."""
    wrong = [
        f"{module} imports {target}"
        for module, path in CORE.items()
        if module != "castore"
        for target in imports(path)
        if target.partition(".")[0] == "castore"
        and (module, target) not in EXCEPTIONS
        and (target == "castore" or floor(target) > floor(module))
    ]
    assert not wrong


def test_nothing_goes_round_in_circles() -> None:
    """Whichever module is imported first, its imports come to an end."""
    graph = {name: set(imports(path, lazy=False)) & CORE.keys() for name, path in CORE.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_core_knows_no_plugin_and_plugins_not_each_other() -> None:
    """Not even for type checking: a bundled plugin is written as a stranger's."""
    wrong = [
        f"{module} imports {target}"
        for module, path in {**CORE, **BUNDLED}.items()
        for target in imports(path, typing=True)
        if (top := target.partition(".")[0]) in PLUGINS and top != module.partition(".")[0]
    ]
    assert not wrong


def test_pure_modules_touch_no_file_socket_clock_or_thread() -> None:
    """Bytes in, bytes out. (`threading.local` keeps compressors apart; no thread is started.)"""
    for module, path in CORE.items():
        if module.startswith("castore.format."):
            assert not {target.partition(".")[0] for target in imports(path)} & PURE, module


def test_threads_are_started_in_one_folder() -> None:
    """Whatever else starts a thread could not be waited for, or stopped, as all are."""
    starts = {"Thread", "ThreadPoolExecutor", "Timer"}
    for module, path in {**CORE, **BUNDLED}.items():
        if module.startswith(("castore.threads.", "castore.aio.", "castore.testing.")):
            continue
        calls = {
            ast.unparse(node.func).rpartition(".")[2]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & starts, module


PRINTS = {"print", "echo", "secho", "echo_via_pager"}
STREAMS = {"sys.stdout", "sys.__stdout__"}


def test_stdout_is_written_to_in_one_module() -> None:
    """There a short write, a full disk and a reader who is gone are dealt with, for every command."""
    wrong = []
    for module, path in {**CORE, **BUNDLED}.items():
        # The other one writes nothing: it keeps what plugins print away from stdout.
        if module in {"castore.cli.output", "castore.composition.types.strangers"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in PRINTS:
                wrong.append(f"{module}:{node.lineno} prints")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in STREAMS:
                wrong.append(f"{module}:{node.lineno} uses stdout by itself")
    assert not wrong


def test_locks_are_made_where_forks_and_interrupts_are_known() -> None:
    """Only then is a lock free in a child of a fork, and what waits whole after an interrupt."""
    makes = {f"threading.{name}" for name in ("Lock", "Condition", "Event", "Semaphore", "Barrier")}
    for module, path in {**CORE, **BUNDLED}.items():
        if module.startswith(("castore.threads.", "castore.testing.")) or module == "castore.aio.threads":
            continue
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & makes, module


def test_no_two_public_classes_have_one_name() -> None:
    """A reader who meets a name knows which class it is."""
    found: dict[str, set[str]] = {}
    for module, path in {**CORE, **BUNDLED}.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(module)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_the_page_on_the_house_has_each_line() -> None:
    """The drawing on the page is the order here, the ground last."""
    drawing = PAGE.read_text().split("```text\n")[1].split("```")[0].splitlines()
    shown = [set(line.partition("  ")[0].replace("/", "").split()) for line in drawing]
    assert shown == [names for names in reversed(ORDER) if names != {"__main__"}]


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a statement imports, in a process of its own."""
    program = f"import sys\nbefore = {{*sys.modules}}\n{statement}\nprint(*{{*sys.modules}} - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


HEAVY = {
    "click",
    "fastcdc",
    "fsspec",
    "google",
    "grpc",
    "hypothesis",
    "pyfastcdc",
    "pytest",
    "rich",
    "s3fs",
    "zstandard",
}


def test_importing_castore_imports_next_to_nothing() -> None:
    """What is heavy comes when it is first used."""
    assert not loaded_after("import castore") & {*HEAVY, *PLUGINS, "cattrs", "tomli", "pluggy", "attrs"}


def test_a_composition_imports_only_what_its_types_need() -> None:
    """A memory service needs neither fsspec nor zstandard; an object store in a folder needs no fsspec."""
    tables = {"blobservices": {"root": {"type": "memory"}}}
    memory = f"import castore; castore.Composition.from_mapping({tables}).blobs()"
    assert not loaded_after(memory) & HEAVY
    local = "import castore; castore.from_url('objectstore+file:/nowhere').has(castore.B3Digest(bytes(32)))"
    assert "fsspec" not in loaded_after(local)


def test_every_public_name_can_be_imported() -> None:
    """`__all__` and the homes of the names agree."""
    for name in castore.__all__:
        assert getattr(castore, name) is not None
    assert set(castore._HOMES) <= set(castore.__all__)
    assert {*castore.__all__} <= {*dir(castore)}
