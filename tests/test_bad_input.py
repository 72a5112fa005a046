"""Whatever a program hands to the Python API: an error of castore, or `TypeError` for its own mistake."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import castore
from castore import (
    B3Digest,
    BlobService,
    BuildError,
    Composition,
    CompositionError,
    InvalidDigestError,
    InvalidSeekError,
    SourceError,
)
from castore.composition import InvalidValueError
from castore.format.chunking import FastCdc2020
from castore.testing import HELLO, P3M


@pytest.fixture(params=["memory:", "objectstore+file:./store", "objectstore+memory:"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BlobService]:
    monkeypatch.chdir(tmp_path)
    with castore.from_url(request.param) as service:
        service.write(P3M.data)
        yield service


class TestDigests:
    @pytest.mark.parametrize("text", ["", "x", "0" * 63, "0" * 65, "\0" * 64, "\ud800" * 64, "0" * 10**6])
    def test_texts(self, text: str) -> None:
        with pytest.raises(InvalidDigestError) as caught:
            B3Digest.parse(text)
        assert isinstance(caught.value, ValueError)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), bytes(10**6)])
    def test_bytes(self, raw: bytes) -> None:
        with pytest.raises(InvalidDigestError):
            B3Digest(raw)

    @pytest.mark.parametrize("value", [None, 32, "0" * 64, [0] * 32, object()])
    def test_what_is_no_buffer(self, value: Any) -> None:
        """A number is no length here, and a text must be parsed."""
        with pytest.raises(TypeError):
            B3Digest(value)


class TestReaders:
    @pytest.mark.parametrize("offset", [-1, -(10**30), P3M.size + 1, 10**30, 2**63, 2**64])
    @pytest.mark.parametrize("whence", [io.SEEK_SET, io.SEEK_CUR])
    def test_seeks_beyond(self, service: BlobService, offset: int, whence: int) -> None:
        """The position stays where it was."""
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            with pytest.raises(InvalidSeekError):
                reader.seek(offset, whence)
            assert reader.tell() == 0

    @pytest.mark.parametrize("whence", [-1, 3, 99])
    def test_seeks_from_nowhere(self, service: BlobService, whence: int) -> None:
        with service.open_read(P3M.digest) as reader, pytest.raises(InvalidSeekError):  # type: ignore[union-attr]
            reader.seek(0, whence)

    @pytest.mark.parametrize("size", [10**30, 2**63, -1, -(10**30), None])
    def test_sizes_of_reads(self, service: BlobService, size: Any) -> None:
        """More than there is, and less than nothing, is all that there is; no memory is taken in advance."""
        for read in ("read", "readline"):
            with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
                assert P3M.data.startswith(getattr(reader, read)(size))
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            assert P3M.data.startswith(reader.read1(size))

    @pytest.mark.parametrize("value", ["1", 1.5, [], b"1"])
    def test_what_is_no_number(self, service: BlobService, value: Any) -> None:
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            for call in (reader.seek, reader.read, reader.read1, reader.readline):
                with pytest.raises(TypeError):
                    call(value)
            assert reader.tell() == 0

    def test_buffers_that_cannot_be_filled(self, service: BlobService) -> None:
        with service.open_read(P3M.digest) as reader:  # type: ignore[union-attr]
            for buffer in (b"read only", "text", 5, None):
                with pytest.raises(TypeError):
                    reader.readinto(buffer)  # type: ignore[arg-type]
            assert reader.readinto(bytearray()) == 0


class TestSources:
    @pytest.fixture
    def odd(self, tmp_path: Path) -> Callable[[str], Any]:
        (tmp_path / "folder").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "dangling").symlink_to("nowhere")
        (tmp_path / "file").write_bytes(b"")
        return lambda name: tmp_path / name

    @pytest.mark.parametrize(
        "name",
        [
            "folder",
            "loop",
            "dangling",
            "nowhere",
            "file/x",
            "a\0b",
            "x" * 300,
            "\udcff",
            "",
            "/proc/self/mem",
        ],
    )
    def test_paths(self, service: BlobService, odd: Callable[[str], Any], name: str) -> None:
        """The error names the path as it was given; nothing is stored."""
        path = odd(name) if name else ""
        with pytest.raises(SourceError) as caught:
            service.put_file(path)
        assert repr(str(path)) in str(caught.value)
        assert isinstance(caught.value, OSError)

    @pytest.mark.parametrize("source", [None, 5, b"/etc/hostname", [], object()])
    def test_what_is_no_source(self, service: BlobService, source: Any) -> None:
        with pytest.raises(TypeError):
            service.put_file(source)

    def test_names_of_odd_bytes(self, service: BlobService, tmp_path: Path) -> None:
        name = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m"
        Path(os.fsdecode(name)).write_bytes(HELLO.data)
        assert service.put_file(os.fsdecode(name)) == HELLO.digest

    @pytest.mark.parametrize("data", [None, "text", 5, [1, 2], object()])
    def test_what_has_no_bytes(self, service: BlobService, data: Any) -> None:
        with pytest.raises(TypeError):
            service.write(data)
        with service.open_write() as writer:
            with pytest.raises(TypeError):
                writer.write(data)
            writer.write(HELLO.data)
            assert writer.close() == HELLO.digest


class TestCompositions:
    @pytest.mark.parametrize("path", ["nowhere", ".", "a\0b", "x" * 300, "\udcff", "/dev/null/x"])
    def test_paths(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CompositionError, match="cannot read the composition"):
            castore.open(path)

    @pytest.mark.parametrize("key", [None, True, 1.5, b"root", ("a",)])
    def test_keys_that_are_no_strings(self, key: Any) -> None:
        """At any depth, with the key in the message."""
        for mapping in ({key: {}}, {"blobservices": {"root": {"type": "memory", "x": {key: 1}}}}):
            with pytest.raises(CompositionError) as caught:
                Composition.from_mapping(mapping)
            assert repr(key) in str(caught.value)

    def test_what_holds_itself(self) -> None:
        mapping: dict[str, Any] = {"blobservices": {}}
        mapping["blobservices"]["root"] = mapping
        with pytest.raises(CompositionError, match="nested too deeply"):
            Composition.from_mapping(mapping)

    @pytest.mark.parametrize("mapping", [None, [], "x", 5])
    def test_what_is_no_mapping(self, mapping: Any) -> None:
        with pytest.raises(CompositionError, match="expected a mapping"):
            Composition.from_mapping(mapping)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "x",
            "\0",
            "memory",
            "memory:x",
            "nope:",
            "objectstore:",
            "objectstore+file:",
            "objectstore+file:a%00b",
            "objectstore+s4://x",
            "cache:",
            "faulty:",
            "objectstore+file:x?nope",
            "memory:#",
            "\udcff:",
            ":",
            "://",
        ],
    )
    def test_urls(self, url: str) -> None:
        with pytest.raises(CompositionError) as caught:
            castore.from_url(url)
        assert len(str(caught.value).splitlines()) == 1

    def test_the_current_folder_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone")
        with castore.from_url("memory:") as blobs:
            assert blobs.write(HELLO.data) == HELLO.digest
        for url in ("objectstore+file:./x", "sqlite:x"):
            with pytest.raises(BuildError, match="current folder, which cannot be found"):
                castore.from_url(url)
        tables = {"blobservices": {"root": {"type": "memory"}}}
        with Composition.from_mapping(tables) as stores:
            assert stores.blobs().write(HELLO.data) == HELLO.digest
        with Composition.from_mapping(tables, base=tmp_path) as stores:
            assert stores.blobs().write(HELLO.data) == HELLO.digest

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("avg_chunk_size", -1),
            ("avg_chunk_size", 0),
            ("avg_chunk_size", 10**30),
            ("avg_chunk_size", "-1 B"),
            ("avg_chunk_size", True),
            ("avg_chunk_size", 1.5),
            ("compression_level", -8),
            ("compression_level", 23),
            ("compression_level", 10**400),
            ("compression_level", "3"),
            ("chunker", ""),
            ("object_store_options", 1),
            ("object_store_url", 1),
            ("object_store_url", ""),
            ("object_store_url", "\0"),
            ("object_store_url", "x" * 10**6),
        ],
    )
    def test_values(self, field: str, value: Any) -> None:
        """At the key, and never with the whole of a very long value."""
        table = {"type": "objectstore", "object_store_url": "file:x", field: value}
        with pytest.raises(CompositionError) as caught:
            Composition.from_mapping({"blobservices": {"root": table}})
        assert {problem.dotted for problem in caught.value.problems} == {f"blobservices.root.{field}"}


@pytest.mark.parametrize("size", [-1, 0, 10**30])
def test_a_chunker_is_asked_for_sizes_that_there_are(size: int) -> None:
    with pytest.raises(ValueError, match="is not between 512 and 2097153"):
        FastCdc2020(size)


def test_errors_of_values_are_value_errors() -> None:
    """So that who validates with castore's helpers needs no import of its errors."""
    assert issubclass(InvalidValueError, ValueError)
