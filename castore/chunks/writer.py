"""One stream cut into chunks, which go to a store while the stream goes on.

The bytes of the stream gather in a *segment*. When it is full it goes into a pipeline, where threads cut it,
hash the blob, and hash and store its chunks, while the next one fills. There are a few segments, used in
turn: if all are in the pipeline, whoever writes helps there until one is free. That bounds the memory, and
slows the producer down to what the store can take.

A blob of more than one segment may take any time to write, and until its index is there its chunks are
nobody's. So from the first full segment to the end the writer has a lease (`ChunkStore.lease`). For a smaller
blob a brief one will do: nothing of it is in the store before `close`, where its index follows at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from castore.chunks.pipeline import Pipeline, Segment, segments_for
from castore.contract.capabilities import ChunkStore
from castore.contract.inputs import InputFile
from castore.digest import B3Digest
from castore.streams.writers import GuardedWriter

if TYPE_CHECKING:
    from castore.format.chunking import Chunker

_FIRST_SIZE: Final = 128 << 10


class ChunkedWriter(GuardedWriter):
    """Cuts what is written into chunks and stores those that *store* lacks; the index comes last.

    Until `close` has put the index nothing of the blob is visible; after `abort` some of its chunks may
    stay in the store, where the next blob that shares them finds them.

    Arguments:
        store: Where the chunks and the index go; it says how the blob is cut, and by which threads.
        chunker: What cuts the blob, if not what *store* has for that.
    """

    def __init__(self, store: ChunkStore, chunker: Chunker | None = None) -> None:
        self._store = store
        self._chunker = store.new_chunker() if chunker is None else chunker
        self._segment_size, self._most_segments = segments_for(store, self._chunker)
        self._pipeline: Pipeline | None = None
        # Most blobs are small: the first segment starts small, the others come when they are needed.
        self._current = Segment(min(_FIRST_SIZE, self._segment_size))
        self._segments = 1
        self._lease = contextlib.ExitStack()

    def _take(self, view: memoryview) -> None:
        while True:
            taken = self._current.take(view)
            view = view[taken:]
            if not view:
                return
            self._make_room()

    def fill(self, source: InputFile) -> int:
        """Take bytes that *source* puts where they are needed, which spares a copy of them."""
        self._require_open("write")
        with self._failing():
            self._make_room()
        # What goes wrong in there is the source's fault, and the caller's to report.
        count = self._current.fill(source)
        self._written += count
        return count

    def _make_room(self) -> None:
        if not self._current.full:
            return
        if self._current.size < self._segment_size:
            self._current.grow(self._segment_size, self._chunker.max_size)
        else:
            self._turn()

    def _turn(self) -> None:
        """Send the current segment off; go on in the next one."""
        pipeline = self._begun(brief=False)
        pipeline.add(self._current)
        if self._segments < self._most_segments:
            self._segments += 1
            self._current = Segment(self._segment_size, self._chunker.max_size)
        else:
            self._current = pipeline.get_back()

    def _begun(self, *, brief: bool) -> Pipeline:
        """Return the pipeline, into a store that is leased from the first segment on."""
        if self._pipeline is None:
            leased = self._lease.enter_context(self._store.lease(brief=brief))
            self._store = leased
            self._pipeline = Pipeline(leased, self._chunker)
        return self._pipeline

    def _finish(self) -> B3Digest:
        if self._pipeline is None and len(self._current.content) <= self._chunker.min_size:
            digest = put_uncut(self._store, self._current.content)
            self._let_go()
            return digest
        pipeline = self._begun(brief=True)
        pipeline.add(self._current, final=True)
        while pipeline:
            pipeline.get_back()
        digest, chunks = pipeline.digest(), pipeline.chunks
        self._let_go()
        self._store.put_indexes({digest: chunks if len(chunks) > 1 else ()})
        self._lease.close()
        return digest

    def _discard(self) -> None:
        with self._lease:
            self._let_go()

    def _let_go(self) -> None:
        """Free the buffers: a writer may be kept long after it has ended."""
        if self._pipeline is not None:
            self._pipeline.close()
        self._current = Segment(0)


def put_uncut(store: ChunkStore, data: memoryview) -> B3Digest:
    """Store a blob that cannot be cut as the one chunk that it is; return its digest. It is hashed once."""
    digest = B3Digest.of(data)
    with store.lease(brief=True) as leased:
        if data and digest not in leased.claim((digest,)):
            leased.put_chunks({digest: data})
        leased.put_indexes({digest: ()})
    return digest
