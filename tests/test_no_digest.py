"""What is no digest, where one is needed, is one clear error; it is never taken for an absent blob."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from castore import BlobService, Composition
from castore.testing import HELLO

MEMORY: Final = {"type": "memory"}
SERVICES: Final[dict[str, dict[str, Any]]] = {
    "memory": {"root": MEMORY},
    "objectstore": {"root": {"type": "objectstore", "object_store_url": "file:./store"}},
    "bucket": {"root": {"type": "objectstore", "object_store_url": "memory:"}},
    "sqlite": {"root": {"type": "sqlite", "path": "blobs.sqlite"}},
    "cache": {"root": {"type": "cache", "near": "memory:", "far": "memory:"}},
    "fallback": {"root": {"type": "fallback", "services": ["&a", "&b"]}, "a": MEMORY, "b": MEMORY},
    "mirror": {"root": {"type": "mirror", "services": ["&a", "&b"]}, "a": MEMORY, "b": MEMORY},
    "retry": {"root": {"type": "retry", "inner": "memory:"}},
    "verify": {"root": {"type": "verify", "inner": "memory:"}},
    "breaker": {"root": {"type": "breaker", "inner": "memory:"}},
    "timeout": {"root": {"type": "timeout", "inner": "memory:"}},
}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobService]:
    mapping = {"blobservices": SERVICES[request.param]}
    with Composition.from_mapping(mapping, base=tmp_path) as stores:
        yield stores.blobs()


@pytest.mark.parametrize("operation", ["has", "open_read", "read", "chunks", "missing"])
def test_the_text_of_a_digest_is_none(service: BlobService, operation: str) -> None:
    """Also if the blob is there; the error says what makes one of it."""
    service.write(HELLO.data)
    text = str(HELLO.digest)

    with pytest.raises(TypeError, match=r"not the text '5ca7.*; B3Digest.parse\(text\) makes one"):
        getattr(service, operation)([text] if operation == "missing" else text)


@pytest.mark.parametrize(
    ("value", "what"),
    [(17, "an object of type int"), (None, "an object of type NoneType"), ("x" * 500, "the text 'xx")],
)
def test_anything_else_is_named_by_its_type(value: object, what: str, service: BlobService) -> None:
    """Never at any length."""
    with pytest.raises(TypeError, match="a B3Digest is needed, not " + what) as caught:
        service.has(value)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200
