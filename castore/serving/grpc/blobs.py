"""The calls of the blob service: Stat, Read and Put."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

from castore.contract.blobs import BlobReader, BlobService
from castore.digest import B3Digest
from castore.errors import CastoreError
from castore.format import blob_index
from castore.format.proto.castore_pb2 import PutBlobResponse, ReadBlobRequest, StatBlobRequest
from castore.format.wire import PIECE_SIZE, chunk_data, gathered
from castore.serving.grpc.calls import Call, Code, StatusError
from castore.serving.grpc.services import Method

_MOST_RECEIVED: Final = 16 << 20
"""So much a writer has under way at most."""


class BlobCalls:
    """Answers calls about blobs from a service.

    Arguments:
        service: Returns it, for each call anew.
    """

    name = "BlobService"

    def __init__(self, service: Any) -> None:
        self._service = service

    def methods(self) -> list[Method]:
        """Return what clients can call."""
        return [
            Method("Stat", StatBlobRequest.FromString, self.stat, "read"),
            Method("Read", ReadBlobRequest.FromString, self.read, "read", sends_many=True),
            Method("Put", None, self.put, "write", takes_many=True),
        ]

    def stat(self, request: StatBlobRequest, call: Call) -> bytes:
        """Return the chunks of a blob; the reference, too, sends them whether they are asked for or not."""
        digest = digest_of(request.digest, call)
        service: BlobService = self._service()
        chunks = service.chunks(digest)
        if chunks is None:
            raise _not_found(digest)
        return blob_index.encode(chunks)

    def read(self, request: ReadBlobRequest, call: Call) -> Iterator[bytes]:
        """Yield the messages of a blob."""
        digest = digest_of(request.digest, call)
        service: BlobService = self._service()
        reader = service.open_read(digest)
        if reader is None:
            raise _not_found(digest)
        with ExitStack() as stack:
            stack.enter_context(reader)
            stack.enter_context(call.budget.account()).hold(reader.size)
            yield from gathered(_pieces(reader))

    def put(self, requests: Iterator[bytes], call: Call) -> bytes:
        """Store a blob, and return its digest."""
        service: BlobService = self._service()
        with call.budget.account() as account:
            writer = service.open_write()
            try:
                for message in call.messages(requests):
                    account.hold(min(call.received, _MOST_RECEIVED))
                    writer.write(_data_of(message))
                if not call.goes_on:
                    raise StatusError(Code.CANCELLED, "the client has gone before the end of the blob")
                digest = writer.close()
            except BaseException:
                writer.abort()
                raise
        call.digest = digest.hex()
        return PutBlobResponse(digest=bytes(digest)).SerializeToString()


def _pieces(reader: BlobReader) -> Iterator[memoryview]:
    while view := reader.read_view(PIECE_SIZE):
        yield view


def _data_of(message: bytes) -> memoryview:
    try:
        return chunk_data(message)
    except ValueError as error:
        raise StatusError(Code.INTERNAL, f"error copying: {error}") from error


def digest_of(data: bytes, call: Call) -> B3Digest:
    """Return the digest that a request asks for; raise `StatusError` if it has not 32 bytes."""
    try:
        digest = B3Digest(data)
    except CastoreError:
        raise StatusError(Code.INVALID_ARGUMENT, "invalid digest length") from None
    call.digest = digest.hex()
    return digest


def _not_found(digest: B3Digest) -> StatusError:
    return StatusError(Code.NOT_FOUND, f"blob {digest.sri} not found")
