"""The calls of the directory service: Get and Put."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from castore.contract.directories import DirectoryService
from castore.errors import CastoreError, DirectoryOrderError
from castore.format.directories import Directory
from castore.format.proto.castore_pb2 import GetDirectoryRequest, PutDirectoryResponse
from castore.serving.grpc.blobs import digest_of
from castore.serving.grpc.calls import Call, Code, StatusError
from castore.serving.grpc.services import Method


class DirectoryCalls:
    """Answers calls about directories from a service.

    Arguments:
        service: Returns it, for each call anew.
    """

    name = "DirectoryService"

    def __init__(self, service: Any) -> None:
        self._service = service

    def methods(self) -> list[Method]:
        """Return what clients can call."""
        return [
            Method("Get", GetDirectoryRequest.FromString, self.get, "read", sends_many=True),
            Method("Put", None, self.put, "write", takes_many=True),
        ]

    def get(self, request: GetDirectoryRequest, call: Call) -> Iterator[bytes]:
        """Yield a directory, or all of its tree from the root on; of one that is absent none then."""
        if request.WhichOneof("by_what") is None:
            raise StatusError(Code.INVALID_ARGUMENT, "invalid by_what")
        digest = digest_of(request.digest, call)
        service: DirectoryService = self._service()
        if request.recursive:
            for directory in service.closure(digest) or ():
                yield directory.encoded
            return
        found = service.get(digest)
        if found is None:
            raise StatusError(Code.NOT_FOUND, f"directory {digest.sri} not found")
        yield found.encoded

    def put(self, requests: Iterator[bytes], call: Call) -> bytes:
        """Store a tree, whose directories come with the leaves first; return the digest of its root.

        Whatever fails is `INTERNAL`, as with the reference.
        """
        service: DirectoryService = self._service()
        writer = service.open_write()
        count = 0
        try:
            for message in call.messages(requests):
                count += 1
                if count > call.limits.most_directories:
                    raise DirectoryOrderError(
                        f"a tree has {call.limits.most_directories} directories at most"
                    )
                writer.put(Directory.decode(message, canonical=False))
            if not call.goes_on:
                raise StatusError(Code.CANCELLED, "the client has gone before the end of the tree")
            if not count:
                raise StatusError(Code.INTERNAL, "no directories received")
            digest = writer.close()
        except CastoreError as error:
            writer.abort()
            raise StatusError(Code.INTERNAL, str(error)) from error
        except BaseException:
            writer.abort()
            raise
        call.digest = digest.hex()
        return PutDirectoryResponse(root_digest=bytes(digest)).SerializeToString()
