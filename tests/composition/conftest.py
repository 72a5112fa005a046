"""What the tests of compositions share: registries, services that tell their story, plugins to install."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from castore import BlobReader, BlobService, BlobWriter, Ref, Registry
from castore.composition import BuildContext
from castore.composition.types.plugins import Plugin, discover
from castore.digest import B3Digest

SITE = Path(__file__).parents[1] / "testdata" / "compositions" / "site"
BUNDLED = ("cache", "memory", "objectstore")


class Probe(BlobService):
    """A service that keeps nothing, and tells when it is built and closed."""

    def __init__(self, name: str, parts: list[Any], log: list[str], fails_to_close: bool = False) -> None:
        self.name = name
        self.parts = parts
        self.log = log
        self.fails_to_close = fails_to_close
        log.append(f"build {name}")

    def has(self, digest: B3Digest) -> bool:
        return False

    def open_read(self, digest: B3Digest) -> BlobReader | None:
        return None

    def open_write(self) -> BlobWriter:
        raise NotImplementedError

    def close(self) -> None:
        self.log.append(f"close {self.name}")
        if self.fails_to_close:
            raise OSError(f"{self.name} does not close")


@pytest.fixture
def log() -> list[str]:
    """What happened to the services of the type `probe`."""
    return []


@pytest.fixture(scope="session")
def bundled() -> list[Plugin]:
    return [plugin for plugin in discover() if plugin.name in BUNDLED]


@pytest.fixture
def registry(bundled: list[Plugin]) -> Registry:
    """Three of the bundled types, whatever else is installed."""
    registry = Registry()
    for plugin in bundled:
        registry.load(plugin)
    assert not registry.broken
    assert len(registry.plugins) == len(BUNDLED)
    return registry


@pytest.fixture
def probes(registry: Registry, log: list[str]) -> Registry:
    """The bundled types, and `probe`: a service with others in it, and a hook to run while it is built."""

    @attrs.frozen
    class ProbeConfig:
        parts: list[Ref[BlobService]] = attrs.field(factory=list)
        fails: str = ""
        fails_to_close: bool = False
        secret: str = ""

        def build(self, name: str, context: BuildContext) -> BlobService:
            parts = [context.resolve(part) for part in self.parts]
            if self.fails:
                raise OSError(self.fails)
            return Probe(name, parts, log, self.fails_to_close)

    # The class is local to this fixture; its annotations are not to be looked up by name.
    attrs.resolve_types(ProbeConfig, globals())
    registry.register(BlobService, "probe", ProbeConfig)
    return registry


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution as pip would: `install("tape", "1.0", {"tape": "castore_tape"}, code)`."""
    before = set(sys.modules)

    def install(
        name: str,
        version: str,
        plugins: dict[str, str],
        modules: dict[str, str] | None = None,
        folder: str = "site",
    ) -> Path:
        site = tmp_path / folder
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [f"{plugin} = {module}" for plugin, module in plugins.items()]
        (info / "entry_points.txt").write_text("\n".join(["[castore]", *lines, ""]))
        for module, code in (modules or {}).items():
            (site / f"{module}.py").write_text(code)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        return site

    yield install
    for module in set(sys.modules) - before:
        file = str(getattr(sys.modules[module], "__file__", ""))
        if str(tmp_path) in file or str(SITE) in file:
            del sys.modules[module]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, install: Install, registry: Registry) -> Registry:
    """The bundled types, and a stranger's type `shelf` with fields of all sorts."""
    monkeypatch.syspath_prepend(str(SITE))
    install("castore-shelf", "2.1", {"shelf": "castore_shelf"})
    for plugin in discover():
        if plugin.name == "shelf":
            registry.load(plugin)
    assert not registry.broken, registry.broken[0]
    return registry
