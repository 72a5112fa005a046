"""A thin facade for async programs: the same services, used by `await`.

::

    import castore.aio

    async with castore.aio.open("composition.toml") as stores:
        blobs = await stores.blobs()
        digest = await blobs.put_file("photo.raw")
        async with await blobs.open_read(digest) as reader:
            async for piece in reader:
                ...

The work is done by the synchronous core, on a bounded number of threads. A wait that is cancelled ends at
once, and the work beneath it stops at its next step. Errors are those of the core. This is for asyncio, in
any number of event loops at the same time.
"""

from __future__ import annotations

from castore.aio.composition import AsyncComposition, from_url, open  # noqa: A004 - `aio.open` reads as it should
from castore.aio.reading import AsyncBlobReader
from castore.aio.service import AsyncBlobService
from castore.aio.threads import Threads
from castore.aio.writing import AsyncBlobWriter

__all__ = [
    "AsyncBlobReader",
    "AsyncBlobService",
    "AsyncBlobWriter",
    "AsyncComposition",
    "Threads",
    "from_url",
    "open",
]
