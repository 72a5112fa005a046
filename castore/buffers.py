"""Anything that has bytes, as plain bytes; and buffers to read into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer


def byte_view(data: Buffer) -> memoryview:
    """Return the bytes of *data* in order, without a copy unless they lie apart in memory."""
    view = memoryview(data)
    try:
        return view.cast("B")
    except TypeError:
        # Strided, or of no items in two dimensions.
        return memoryview(view.tobytes())


_PAGE: Final = 4096
_BESIDE: Final = _PAGE // 4


def new_buffer(size: int) -> memoryview:
    """Return a buffer of *size* bytes, placed so that files are quickly read into it.

    Some processors (AMD's Zen 3 and 4; glibc bug 30994) copy at a fifth of their speed when the target is 1
    to 16 bytes further into its page than the source is into its own. The kernel has a file in whole pages,
    and a large `bytearray` begins just there: behind the 16 bytes that malloc puts in front. This buffer
    begins a quarter of a page in.
    """
    from array import array  # noqa: PLC0415 - only who writes needs it

    memory = array("B", b"\0") * (size + _PAGE)
    start = (_BESIDE - memory.buffer_info()[0]) % _PAGE
    return memoryview(memory)[start : start + size]
