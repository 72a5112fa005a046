"""Nothing that castore shows has a secret in it: over all types, all commands, and all ways to give one."""

from __future__ import annotations

import io
import json
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from castore import CastoreError, Composition
from castore.cli.app import app
from castore.contract.capabilities import BlobLister, ChunkSource, ChunkStore
from castore.contract.upkeep import Inventory
from castore.drawing import FORMATS
from castore.testing import HELLO

CANARY = "canary7Xq-9f31-zz"
"""It stands in each place that can have a secret."""

DIGEST = str(HELLO.digest)

# A port on which nobody listens: every question fails, in the words of the driver.
NOWHERE = "127.0.0.1:9"

STORES: dict[str, dict[str, Any]] = {
    "a token in a query": {
        "type": "objectstore",
        "object_store_url": f"http://{NOWHERE}/blobs?token={CANARY}",
    },
    "a token in the query of a reference": {
        "type": "retry",
        "attempts": 1,
        "inner": f"objectstore+http://{NOWHERE}/blobs",
    },
    "a password": {"type": "objectstore", "object_store_url": f"http://me:{CANARY}@{NOWHERE}/blobs"},
    "a user alone": {"type": "objectstore", "object_store_url": f"http://{CANARY}@{NOWHERE}/blobs"},
    "a path of the web": {"type": "objectstore", "object_store_url": "http://127.0.0.1:9/${CANARY}/blobs"},
    "an option": {
        "type": "objectstore",
        "object_store_url": "s3://bucket/blobs",
        "object_store_options": {
            "aws_access_key_id": "${CANARY}",
            "aws_secret_access_key": CANARY,
            "aws_endpoint_url": f"http://{NOWHERE}",
        },
    },
    "a bucket": {
        "type": "objectstore",
        "object_store_url": "s3://${CANARY}/blobs",
        "object_store_options": {"key": "k", "secret": "s", "endpoint_url": f"http://{NOWHERE}"},
    },
    "a folder": {"type": "objectstore", "object_store_url": "file:./${CANARY}/blobs"},
    "a folder beneath a file": {"type": "objectstore", "object_store_url": "file:./file-${CANARY}/blobs"},
    "a database beneath a file": {"type": "sqlite", "path": "./file-${CANARY}/blobs.sqlite"},
    "a database of somebody else": {"type": "sqlite", "path": "./other-${CANARY}.sqlite"},
    "a folder of no folder": {"type": "objectstore", "object_store_url": "file:${BELOW}/blobs"},
    "a whole URL": {"type": "objectstore", "object_store_url": "${URL}"},
    "a whole URL of a service": {"type": "retry", "attempts": 1, "inner": "${SERVICE}"},
    "a database of no folder": {"type": "sqlite", "path": "${BELOW}/blobs.sqlite"},
    "a database": {"type": "sqlite", "path": "./${CANARY}.sqlite"},
    "a damaged folder": {"type": "objectstore", "object_store_url": "file:./damaged-${CANARY}"},
}

AROUND: dict[str, dict[str, Any]] = {
    "alone": {},
    "wrapped": {"type": "retry", "inner": "&store", "attempts": 2, "first_delay": "1 ms"},
    "cached": {"type": "cache", "near": "memory:", "far": "&store"},
    "near": {"type": "cache", "near": "&store", "far": "memory:", "write": "both"},
    "behind": {"type": "cache", "near": "&kept", "far": "&store", "write": "behind", "queue": "q-${CANARY}"},
    "first": {"type": "fallback", "services": ["&store", "memory:"]},
    "mirrored": {"type": "mirror", "services": ["&store", "memory:"]},
    "timed": {"type": "timeout", "inner": "&store", "timeout": "20 s"},
    "checked": {"type": "verify", "inner": "&store"},
    "spared": {"type": "breaker", "inner": "&store", "failures": 1},
    "bounded": {"type": "lru", "inner": "&store", "max_bytes": "1 MiB"},
}  # fmt: skip

COMMANDS = [
    ["check"], ["check", "--connect"], ["graph"], ["graph", "--connect"],
    *(["graph", "--format", name] for name in ("mermaid", "dot", "svg", "json")),
    ["put", "file.txt"], ["put", "--json", "file.txt"], ["get", DIGEST], ["has", DIGEST],
    ["has", "--json", DIGEST],
    ["stat", DIGEST], ["list"], ["list", "--json"], ["locate", DIGEST], ["locate", "--json", DIGEST],
    ["explain", "get", DIGEST], ["explain", "put", DIGEST], ["verify"], ["verify", "--json"],
    ["gc", "--dry-run", DIGEST], ["copy", "--from", "root", "--to", "kept", DIGEST],
    ["--stats", "has", DIGEST],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY", CANARY)
    monkeypatch.setenv("BELOW", f"{tmp_path}/{CANARY}/clients/disk")
    monkeypatch.setenv("URL", f"file:{CANARY}/clients/blobs")
    monkeypatch.setenv("SERVICE", f"objectstore+file:{CANARY}/clients/blobs")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    Path("file.txt").write_text("hello")
    Path(f"file-{CANARY}").write_text("in the way")
    Path(f"other-{CANARY}.sqlite").write_bytes(b"no database" * 500)
    chunk = Path(f"damaged-{CANARY}/chunks/b3/{DIGEST[:4]}/{DIGEST}")
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"no frame")


def composition(store: dict[str, Any], around: dict[str, Any]) -> dict[str, Any]:
    kept = {"type": "objectstore", "object_store_url": "file:./kept"}
    if not around:
        return {"blobservices": {"root": store, "kept": kept}}
    return {"blobservices": {"root": around, "store": store, "kept": kept}}


def toml(tables: dict[str, Any]) -> str:
    """The strings, numbers and lists of TOML are those of JSON."""

    def value(found: Any) -> str:
        if isinstance(found, dict):
            return "{ " + ", ".join(f"{key} = {value(item)}" for key, item in found.items()) + " }"
        return json.dumps(found)

    rows = []
    for name, table in tables["blobservices"].items():
        rows += [f"[blobservices.{name}]", *(f"{key} = {value(item)}" for key, item in table.items())]
    return "\n".join(rows) + "\n"


def require_none(what: str, *texts: str) -> None:
    for text in texts:
        assert CANARY not in text, f"{what}: {text[max(0, text.index(CANARY) - 300) :][:700]}"


def errors_of(error: BaseException) -> Iterator[str]:
    """All that can be seen of an error."""
    yield str(error)
    yield repr(error)
    yield "".join(traceback.format_exception(error))
    yield repr(vars(error))
    if isinstance(error, CastoreError):
        yield repr(vars(pickle.loads(pickle.dumps(error))))


def calls(service: Any) -> Iterator[Any]:
    yield lambda: service.has(HELLO.digest)
    yield lambda: service.read(HELLO.digest)
    yield lambda: service.chunks(HELLO.digest)
    yield lambda: service.write(b"hello")
    yield lambda: service.put_file("file.txt")
    yield lambda: list(service.read_many([HELLO.digest]))
    for kind, name, arguments in (
        (BlobLister, "list_blobs", ()),
        (Inventory, "list_items", ()),
        (ChunkSource, "get_chunks", ({HELLO.digest: None},)),
        (ChunkStore, "put_chunks", ({HELLO.digest: HELLO.data},)),
    ):
        door = service.capability(kind)
        if door is not None:
            yield lambda door=door, name=name, arguments=arguments: _all_of(getattr(door, name)(*arguments))


def _all_of(answer: Any) -> list[Any]:
    return list(answer.items()) if isinstance(answer, dict) else list(answer or ())


def check_library(tables: dict[str, Any]) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        stores = Composition.from_mapping(tables)
        require_none("the composition", repr(stores), stores.describe_warnings(), repr(stores.warnings))
        for instance in stores.graph.instances.values():
            require_none("an instance", repr(instance), repr(instance.config))
        with stores:
            for instance in stores.graph.instances.values():
                try:
                    service = stores.service(instance)
                except CastoreError as error:
                    require_none("building", *errors_of(error))
                    continue
                require_none("a service", repr(service))
                for call in calls(service):
                    try:
                        answer = call()
                    except CastoreError as error:
                        require_none("an error", *errors_of(error))
                    else:
                        found = answer if isinstance(answer, list) else ()
                        for item in found:
                            value = item[1] if isinstance(item, tuple) else item
                            if isinstance(value, CastoreError):
                                require_none("an answer", *errors_of(value))
            probes = stores.probe(timeout=20)
            require_none("probes", repr(probes))
            for name, draw in FORMATS.items():
                require_none(name, str(draw(stores.picture(probes))))
            require_none("metrics", repr(stores.metrics()))
    except CastoreError as error:
        require_none("the end", *errors_of(error))
    finally:
        logging.getLogger().removeHandler(handler)
    require_none("the log", log.getvalue())


def check_commands(tables: dict[str, Any], commands: list[list[str]]) -> None:
    Path("composition.toml").write_text(toml(tables))
    for command in commands:
        done = CliRunner().invoke(app, command, prog_name="castore")
        shown = [done.output, done.stderr]
        if done.exception is not None:
            shown += errors_of(done.exception)
        require_none(" ".join(command), *shown)


# The driver for buckets tries a machine on which nobody listens again, for some tenths of a second each time.
BUCKETS = ["an option", "a bucket"]

QUICK = [name for name in STORES if name not in BUCKETS]


@pytest.mark.parametrize("name", QUICK)
def test_no_command_shows_a_secret(name: str) -> None:
    check_commands(composition(STORES[name], {}), COMMANDS)


@pytest.mark.parametrize("name", QUICK)
def test_nothing_of_the_library_shows_a_secret(name: str) -> None:
    check_library(composition(STORES[name], {}))


@pytest.mark.parametrize("name", BUCKETS)
def test_nor_of_buckets(name: str) -> None:
    check_commands(composition(STORES[name], {}), [["check", "--connect"], ["--stats", "has", DIGEST]])


@pytest.mark.long
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", STORES)
def test_whatever_stands_around_whichever(name: str, around: str) -> None:
    """Each type around each store, by the library and by all commands."""
    tables = composition(STORES[name], AROUND[around])
    check_library(tables)
    check_commands(tables, COMMANDS)


LOCAL = ["a folder beneath a file", "a database of somebody else", "a damaged folder", "a token in a query"]


@pytest.mark.parametrize("around", [name for name in AROUND if name != "alone"])
def test_nor_does_what_stands_around(around: str) -> None:
    for name in LOCAL:
        check_library(composition(STORES[name], AROUND[around]))
