"""The seams of the house: who may import whom, and what `import castore` costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())

# From the ground up: a module may import those of earlier layers, and those of its own.
LAYERS = [
    ["castore.errors", "castore.buffers", "castore.text"],
    ["castore.digest", "castore.contract.inputs"],
    ["castore.contract.blobs", "castore.contract.directories"],
    ["castore.contract.capabilities"],
    ["castore.streams.readers", "castore.streams.writers"],
    ["castore.wrapping.forwarding"],
    ["castore.wrapping.wrapper"],
    ["castore.metrics.model", "castore.metrics.meters"],
    ["castore.metrics.shell"],
    ["castore.format.chunking"],
    ["castore.format.proto"],
    ["castore.format.frames", "castore.format.blob_index"],
    [
        "castore.threads.pool",
        "castore.threads.deadlines",
        "castore.chunks.hasher",
        "castore.chunks.segments",
        "castore.threads.process_locks",
    ],
    ["castore.threads.crew"],
    ["castore.chunks.read_ahead", "castore.chunks.pipeline"],
    [
        "castore.chunks.reader",
        "castore.chunks.writer",
        "castore.chunks.known_content",
        "castore.chunks.small_files",
    ],
    ["castore.composites.members", "castore.composites.hedging"],
    ["castore.composites.failover_reading", "castore.composites.union", "castore.composites.timed_writing"],
    ["castore.drawing"],
    ["castore.composition.types.hookspecs", "castore.composition.types.plugins"],
    ["castore.composition"],
    ["castore.opening", "castore.metrics.prometheus"],
    ["castore.aio"],
    ["castore.upkeep"],
    ["castore.testing"],
    ["castore.cli"],
    ["castore.__main__"],
]
PAGE = ROOT / "docs/explanation/architecture.md"
PURE = ["castore.format.chunking", "castore.format.frames", "castore.format.blob_index"]


def modules(folder: Path, base: Path) -> dict[str, Path]:
    found = {}
    for path in folder.rglob("*.py"):
        if not path.stem.endswith("_pb2"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


CORE = modules(ROOT / "castore", ROOT)
BUNDLED = modules(ROOT / "plugins", ROOT / "plugins")


def imports(path: Path, *, at_run_time: bool = True) -> set[str]:
    """The modules that a file imports, wherever in it; those for type checking only if asked for."""
    tree = ast.parse(path.read_text())
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            base = node.module or ""
            found.update(
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in CORE else base for alias in node.names
            )
    return found


def layer(module: str) -> int:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    raise AssertionError(f"{module} has no layer: add it to LAYERS")


@pytest.mark.parametrize("module", sorted(set(CORE) - {"castore"}))
def test_imports_go_one_way(module: str) -> None:
    """No module of the core imports one of a later layer, nor the package itself."""
    for target in imports(CORE[module]):
        if target == "castore" or target.startswith("castore."):
            assert target != "castore", f"{module} imports the front of the package"
            assert layer(target) <= layer(module), f"{module} imports {target}, which is above it"


def test_the_drawing_of_the_layers_is_right() -> None:
    """The page on the architecture has a line for each layer, the last one first."""
    drawing = PAGE.read_text().split("```text\n")[1].split("```")[0].splitlines()
    # A line that ends with a comma goes on in the next one.
    left = "\n".join(line.partition("  ")[0] for line in drawing).replace(",\n", ", ").split("\n")
    shown = [set(re.findall(r"castore\.\w+", line)) for line in left]

    assert shown == [set(names) for names in reversed(LAYERS) if names != ["castore.__main__"]]


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_imports_no_plugin(module: str) -> None:
    """Not even for type checking, and not by name."""
    for target in imports(CORE[module], at_run_time=False):
        assert target.partition(".")[0] not in PLUGINS, f"{module} imports {target}"


@pytest.mark.parametrize("module", sorted(BUNDLED))
def test_plugins_do_not_import_each_other(module: str) -> None:
    """A bundled plugin is written as a stranger's: it knows castore and itself.

    What `faulty` brings into a composition is a part of the kit for tests, and no other plugin may use that.
    """
    own = module.partition(".")[0]
    for target in imports(BUNDLED[module], at_run_time=False):
        top = target.partition(".")[0]
        assert top not in PLUGINS or top == own, f"{module} imports {target}"
        if not (own == "castore_wrappers.faulty" and target.startswith("castore.faults")):
            assert not target.startswith(("castore.cli", "castore.testing", "castore.opening"))


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_touch_no_file_socket_clock_or_thread(module: str) -> None:
    """Bytes in, bytes out. (`threading.local` keeps compressors apart; no thread is started.)"""
    forbidden = {
        "os",
        "io",
        "pathlib",
        "socket",
        "time",
        "datetime",
        "random",
        "concurrent",
        "asyncio",
        "subprocess",
    }
    assert not {target.partition(".")[0] for target in imports(CORE[module])} & forbidden


def loaded_after(statement: str) -> set[str]:
    program = (
        f"import sys\nbefore = set(sys.modules)\n{statement}\nprint('\\n'.join(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


HEAVY = {
    "fsspec",
    "zstandard",
    "google",
    "rich",
    "click",
    "hypothesis",
    "pytest",
    "pyfastcdc",
    "fastcdc",
    "s3fs",
}


def test_importing_castore_imports_nothing_heavy() -> None:
    """No dependency of a plugin, of the command line or of the kit; nor the plugins themselves."""
    assert not loaded_after("import castore") & {*HEAVY, *PLUGINS, "cattrs", "tomli", "pluggy", "attrs"}


def test_opening_a_composition_imports_only_what_its_types_need() -> None:
    """A memory service needs neither fsspec nor zstandard; an object store in a folder needs no fsspec."""
    memory = (
        "import castore; castore.Composition.from_mapping({'blobservices': {'root': {'type': 'memory'}}})"
    )
    assert not loaded_after(memory) & HEAVY
    local = "import castore; castore.from_url('objectstore+file:/nowhere').has(castore.B3Digest(bytes(32)))"
    assert "fsspec" not in loaded_after(local)


def test_every_public_name_can_be_imported() -> None:
    """`__all__` and the homes of the names agree."""
    import castore  # noqa: PLC0415 - the import is what is tested

    for name in castore.__all__:
        assert getattr(castore, name) is not None
    assert set(castore._HOMES) <= set(castore.__all__)
    assert {*castore.__all__} <= {*dir(castore)}
