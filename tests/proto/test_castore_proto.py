"""The wire format: the generated module is that of `castore.proto`, and both say what the reference says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

import castore.format.proto
from castore.format.proto import castore_pb2, tvix_castore_pb2
from castore.format.proto.castore_pb2 import (
    Directory,
    Entry,
    GetDirectoryRequest,
    StatBlobRequest,
    StatBlobResponse,
)

PROTO = Path(castore.format.proto.__file__).with_name("castore.proto")
PACKAGE = "snix.castore.v1"

# Message -> fields as (number, name, type, repeated). From the reference; never to be changed.
MESSAGES: dict[str, list[tuple[int, str, str, bool]]] = {
    "Directory": [
        (1, "directories", "DirectoryEntry", True),
        (2, "files", "FileEntry", True),
        (3, "symlinks", "SymlinkEntry", True),
    ],
    "DirectoryEntry": [
        (1, "name", "bytes", False),
        (2, "digest", "bytes", False),
        (3, "size", "uint64", False),
    ],
    "FileEntry": [
        (1, "name", "bytes", False),
        (2, "digest", "bytes", False),
        (3, "size", "uint64", False),
        (4, "executable", "bool", False),
    ],
    "SymlinkEntry": [(1, "name", "bytes", False), (2, "target", "bytes", False)],
    "Entry": [
        (1, "directory", "DirectoryEntry", False),
        (2, "file", "FileEntry", False),
        (3, "symlink", "SymlinkEntry", False),
    ],
    "StatBlobRequest": [
        (1, "digest", "bytes", False),
        (2, "send_chunks", "bool", False),
        (3, "send_bao", "bool", False),
    ],
    "StatBlobResponse": [(2, "chunks", "StatBlobResponse.ChunkMeta", True), (3, "bao", "bytes", False)],
    "StatBlobResponse.ChunkMeta": [(1, "digest", "bytes", False), (2, "size", "uint64", False)],
    "ReadBlobRequest": [(1, "digest", "bytes", False)],
    "BlobChunk": [(1, "data", "bytes", False)],
    "PutBlobResponse": [(1, "digest", "bytes", False)],
    "GetDirectoryRequest": [(1, "digest", "bytes", False), (2, "recursive", "bool", False)],
    "PutDirectoryResponse": [(1, "root_digest", "bytes", False)],
}

ONEOFS = {
    "Entry": {"entry": ["directory", "file", "symlink"]},
    "GetDirectoryRequest": {"by_what": ["digest"]},
}

# Service -> method -> request, whether it is a stream, response, whether that is.
SERVICES = {
    "BlobService": {
        "Stat": ("StatBlobRequest", False, "StatBlobResponse", False),
        "Read": ("ReadBlobRequest", False, "BlobChunk", True),
        "Put": ("BlobChunk", True, "PutBlobResponse", False),
    },
    "DirectoryService": {
        "Get": ("GetDirectoryRequest", False, "Directory", True),
        "Put": ("Directory", True, "PutDirectoryResponse", False),
    },
}


@pytest.fixture(scope="module")
def file() -> FileDescriptorProto:
    """What the generated module says."""
    return FileDescriptorProto.FromString(castore_pb2.DESCRIPTOR.serialized_pb)


def _short(name: str) -> str:
    return name.removeprefix(f".{PACKAGE}.")


def _type(field: FieldDescriptorProto) -> str:
    return _short(field.type_name) or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _messages(file: FileDescriptorProto) -> dict[str, Any]:
    nested = {
        f"{outer.name}.{inner.name}": inner for outer in file.message_type for inner in outer.nested_type
    }
    return {message.name: message for message in file.message_type} | nested


# -- the table of the reference --


def test_the_package_is_the_reference_s(file: FileDescriptorProto) -> None:
    """It is part of the path of every call."""
    assert (file.package, file.syntax) == (PACKAGE, "proto3")


def test_every_field_has_its_number_and_type(file: FileDescriptorProto) -> None:
    fields = {
        name: [
            (field.number, field.name, _type(field), field.label == FieldDescriptorProto.LABEL_REPEATED)
            for field in message.field
        ]
        for name, message in _messages(file).items()
    }

    assert fields == MESSAGES


def test_the_oneofs_hold_what_they_must(file: FileDescriptorProto) -> None:
    oneofs = {
        name: {
            oneof.name: [
                field.name
                for field in message.field
                if field.HasField("oneof_index") and field.oneof_index == index
            ]
            for index, oneof in enumerate(message.oneof_decl)
        }
        for name, message in _messages(file).items()
        if message.oneof_decl
    }

    assert oneofs == ONEOFS


def test_every_call_has_its_messages_and_streams(file: FileDescriptorProto) -> None:
    services = {
        service.name: {
            method.name: (
                _short(method.input_type),
                method.client_streaming,
                _short(method.output_type),
                method.server_streaming,
            )
            for method in service.method
        }
        for service in file.service
    }

    assert services == SERVICES


@pytest.mark.parametrize(
    ("message", "encoding"),
    [
        (StatBlobRequest(digest=b"d", send_chunks=True, send_bao=True), "0a0164 1001 1801"),
        (
            StatBlobResponse(chunks=[StatBlobResponse.ChunkMeta(digest=b"d", size=300)], bao=b"b"),
            "1206 0a0164 10ac02 1a0162",
        ),
        (GetDirectoryRequest(digest=b"d", recursive=True), "0a0164 1001"),
        (GetDirectoryRequest(digest=b""), "0a00"),  # a member of a oneof is there even when empty
        (
            Entry(file={"name": b"n", "digest": b"d", "size": 1, "executable": True}),
            "120a 0a016e 120164 1801 2001",
        ),
        (Entry(symlink={"name": b"n", "target": b"t"}), "1a06 0a016e 120174"),
        (
            Directory(
                directories=[{"name": b"a", "digest": b"d", "size": 2}],
                files=[{"name": b"b", "digest": b"d"}],
                symlinks=[{"name": b"c", "target": b"t"}],
            ),
            "0a08 0a0161 120164 1802 1206 0a0162 120164 1a06 0a0163 120174",
        ),
        (Directory(), ""),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_messages_are_these_bytes(message: Any, encoding: str) -> None:
    """Written out by hand from the rules of the encoding."""
    assert message.SerializeToString(deterministic=True) == bytes.fromhex(encoding)


# -- the generated module is up to date --


@pytest.mark.parametrize("module", [castore_pb2, tvix_castore_pb2])
def test_the_generated_module_is_that_of_the_proto_file(module: Any, tmp_path: Path) -> None:
    """Compiles the file again, with whichever compiler is installed; run `make proto` if this fails."""
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("needs grpcio-tools, which has a protoc")
    file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    root, compiled = PROTO.parents[3], tmp_path / "descriptors"
    source = PROTO.with_name(f"{module.__name__.rpartition('.')[2].removesuffix('_pb2')}.proto")

    subprocess.run(
        [
            sys.executable,
            *("-m", "grpc_tools.protoc", "-I", str(root), f"--descriptor_set_out={compiled}"),
            str(source),
        ],
        check=True,
    )

    [fresh] = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    for message in _messages(fresh).values():
        for field in message.field:
            # The compiler spells this one out, the generated module only where it is not the usual one.
            if field.json_name == _camel(field.name):
                field.ClearField("json_name")
    assert fresh.name == f"castore/format/proto/{source.name}"
    assert fresh == file


def test_the_older_names_are_for_the_same_bytes(file: FileDescriptorProto) -> None:
    """Messages, fields and calls, in their order: only names differ."""
    older = FileDescriptorProto.FromString(tvix_castore_pb2.DESCRIPTOR.serialized_pb)
    assert older.package == "tvix.castore.v1"

    def shape(one: FileDescriptorProto) -> Any:
        fields = [
            [(field.number, field.type, field.label) for field in message.field]
            for message in _messages(one).values()
        ]
        methods = [
            (service.name, method.name, method.client_streaming, method.server_streaming)
            for service in one.service
            for method in service.method
        ]
        return fields, methods

    assert shape(older) == shape(file)


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def test_the_proto_file_and_the_generated_module_list_the_same(file: FileDescriptorProto) -> None:
    """A rough check that needs no compiler: every field and call by name and number."""
    text = re.sub(r"//.*", "", PROTO.read_text())
    fields = {(match[1], int(match[2])) for match in re.finditer(r"(\w+) = (\d+);", text)}
    calls = set(re.findall(r"rpc (\w+)\(", text))

    assert fields == {(field.name, field.number) for m in _messages(file).values() for field in m.field}
    assert calls == {method.name for service in file.service for method in service.method}
    assert set(re.findall(r"message (\w+)", text)) == {name.split(".")[-1] for name in _messages(file)}


def test_the_generated_module_runs_with_the_oldest_protobuf_that_is_allowed() -> None:
    """It refuses a runtime older than its compiler."""
    pyproject = PROTO.parents[3] / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("the wheel has no pyproject.toml")
    source = Path(castore_pb2.__file__).read_text()
    compiler = re.search(r"# Protobuf Python Version: ([\d.]+)", source)
    dependencies = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    oldest = next(
        re.match(r"protobuf>=([\d.]+)", text) for text in dependencies if text.startswith("protobuf")
    )
    assert compiler is not None
    assert oldest is not None

    assert _version(oldest[1]) >= _version(compiler[1])


def _version(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split(".")]
    return (*parts, *[0] * (3 - len(parts)))
