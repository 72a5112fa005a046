"""What is said of a reader, a writer or a composition that is dropped without having been closed."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import castore
from castore import B3Digest, BlobReader, BlobService, Composition
from castore.chunks.reader import ChunkedReader
from castore.wrapping.wrapper import WrapperService

DATA = bytes(range(256)) * 4096


@pytest.fixture
def service(tmp_path: Path) -> Iterator[BlobService]:
    with castore.from_url(f"objectstore+file:{tmp_path}/store") as made:
        yield WrapperService(made)


def said(drop: Callable[[], object]) -> list[str]:
    """What is warned of when *drop* has dropped something."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drop()
        gc.collect()
    return [str(entry.message) for entry in caught if entry.category is ResourceWarning]


def open_chunked(service: BlobService) -> BlobReader:
    reader = service.open(service.write(DATA))
    reader.read(1)
    return reader


def test_a_reader_of_chunks(service: BlobService) -> None:
    def drop() -> None:
        open_chunked(service)

    assert any(words.startswith("a reader was not closed: <") for words in said(drop))


def test_a_reader_that_was_closed_or_holds_nothing(service: BlobService) -> None:
    def drop() -> None:
        open_chunked(service).close()
        service.open(service.write(b"at hand")).read()

    assert said(drop) == []


def test_a_reader_whose_constructor_raised() -> None:
    """There is nothing to close, and `io` closes it all the same."""

    def drop() -> None:
        with pytest.raises(ValueError, match="at least one chunk"):
            ChunkedReader(None, ())  # type: ignore[arg-type]

    assert said(drop) == []


def test_a_writer(service: BlobService) -> None:
    def drop() -> None:
        service.open_write().write(b"lost")

    assert any(words.startswith("a writer was not closed: <") for words in said(drop))
    assert not service.has(B3Digest.of(b"lost"))


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_writer_that_has_ended_or_not_begun(service: BlobService, end: str) -> None:
    def drop() -> None:
        writer = service.open_write()
        writer.write(b"kept, or not")
        getattr(writer, end)()
        service.open_write()

    assert said(drop) == []


def test_a_composition() -> None:
    def drop() -> None:
        stores = Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}})
        stores.blobs()

    assert [words for words in said(drop) if "composition" in words] == [
        "a composition was not closed: <Composition <mapping>: blobservices.root>"
    ]


def test_a_composition_that_was_closed_or_has_built_nothing() -> None:
    def drop() -> None:
        with Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as stores:
            stores.blobs()
        Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}})

    assert said(drop) == []
