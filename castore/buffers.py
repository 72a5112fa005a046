"""Anything that has bytes, as plain bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
