"""Writing to descriptors: `castore.cli.descriptors`."""

from __future__ import annotations

import os
import random
import threading

import pytest

from castore.cli.descriptors import PatientWriter, write_all

DATA = random.Random(1).randbytes(1 << 20)


@pytest.mark.parametrize("blocking", [True, False])
def test_all_is_written_however_little_is_taken_at_a_time(blocking: bool) -> None:
    """A pipe takes 64 KiB, and in non-blocking mode says so instead of waiting."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)

    def write() -> None:
        write_all(writing, memoryview(DATA))
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        assert pipe.read() == DATA
    thread.join(60)


@pytest.mark.parametrize("gone", ["full", "closed", "reader"])
def test_a_message_that_cannot_be_written_is_dropped(gone: str) -> None:
    """Nor does anything of it come later."""
    if gone == "full":
        end = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, end = os.pipe()
        os.close(reading)
    if gone == "closed":
        os.close(end)
    writer = PatientWriter(end)

    assert writer.write(b"lost") == 4
    writer.flush()
    writer.close()
    if gone != "closed":
        os.close(end)
