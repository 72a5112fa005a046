"""Views of anything that has bytes, and where the buffers are that files are read into."""

from __future__ import annotations

import ctypes
import os
from array import array
from pathlib import Path

import pytest

from castore.buffers import byte_view, new_buffer
from castore.contract.inputs import InputFile
from castore.threads.pool import Pool
from castore_objectstore.local import LocalObjectStore
from castore_objectstore.service import ObjectStoreBlobService

_PAGE = 4096
_BESIDE = 1024
"""So many bytes further into its page than the source a target shall be; less than 17 are slow to copy to."""


def address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def test_a_view_of_bytes_is_no_copy() -> None:
    data = bytearray(b"abc")
    byte_view(data)[0] = ord("x")
    assert data == b"xbc"


def test_a_view_of_larger_items_has_their_bytes() -> None:
    assert byte_view(array("H", [0x0101, 0x0202])) == b"\1\1\2\2"


def test_items_that_lie_apart_are_brought_together() -> None:
    assert byte_view(memoryview(b"abcdef")[::2]) == b"ace"


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 128 << 10, (4 << 20) + 3])
def test_a_new_buffer_has_its_size_and_begins_within_a_page(size: int) -> None:
    view = new_buffer(size)
    assert (len(view), view.format, view.readonly) == (size, "B", False)
    if size:
        view[-1] = 255
        assert address(view) % _PAGE == _BESIDE


@pytest.mark.parametrize("again", [False, True])
def test_files_are_never_read_to_where_the_kernel_copies_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """When a file is stored, and when a large one is found to be stored already."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(66 << 20 if again else 12 << 20))
    service = ObjectStoreBlobService(LocalObjectStore(tmp_path / "store", instance="x"), pool=Pool(2))
    if again:
        service.put_file(path)
    targets: list[tuple[int, int]] = []

    read = InputFile._read

    def noted(source: InputFile, buffer: memoryview) -> int | None:
        targets.append((source._file.tell(), address(buffer)))
        return read(source, buffer)

    monkeypatch.setattr(InputFile, "_read", noted)
    service.put_file(path)
    service.close()
    assert sum(place >= 4 << 20 for place, _ in targets) > 1
    assert {(target - place) % _PAGE for place, target in targets} == {_BESIDE}
