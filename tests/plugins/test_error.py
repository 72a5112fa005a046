"""The `error` type: every operation has one fixed outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from castore import (
    BlobNotFoundError,
    BlobService,
    Composition,
    CompositionError,
    CorruptBlobError,
    UnavailableError,
    UnsupportedError,
)
from castore.contract.capabilities import BlobLister, ChunkStore
from castore.testing import HELLO
from castore_wrappers.error.service import StubService

ASKING: Final[dict[str, Callable[[BlobService], object]]] = {
    "has": lambda service: service.has(HELLO.digest),
    "missing": lambda service: service.missing([HELLO.digest]),
    "chunks": lambda service: service.chunks(HELLO.digest),
    "open_read": lambda service: service.open_read(HELLO.digest),
    "read": lambda service: service.read(HELLO.digest),
    "open_write": lambda service: service.open_write(),
    "write": lambda service: service.write(HELLO.data),
}

OUTCOMES: Final[dict[str, dict[str, Any]]] = {
    "unavailable": dict.fromkeys(ASKING, UnavailableError),
    "absent": {
        "has": False,
        "missing": {HELLO.digest},
        "chunks": None,
        "open_read": None,
        "read": BlobNotFoundError,
        "open_write": UnsupportedError,
        "write": UnsupportedError,
    },
    "corrupt": {
        "has": True,
        "missing": set(),
        "chunks": CorruptBlobError,
        "open_read": CorruptBlobError,
        "read": CorruptBlobError,
        "open_write": UnsupportedError,
        "write": UnsupportedError,
    },
}


@pytest.mark.parametrize("operation", ASKING)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_operation_has_its_outcome(outcome: Any, operation: str) -> None:
    """As the table says: an answer, or an error of just this class."""
    service = StubService(outcome, name="drill")
    expected = OUTCOMES[outcome][operation]
    if not isinstance(expected, type):
        assert ASKING[operation](service) == expected
        return
    with pytest.raises(expected) as caught:
        ASKING[operation](service)
    assert type(caught.value) is expected
    if expected is not BlobNotFoundError:
        assert "`drill`" in str(caught.value)


def test_it_has_no_capabilities() -> None:
    for outcome in OUTCOMES:
        service = StubService(outcome)  # type: ignore[arg-type]
        assert (service.capability(ChunkStore), service.capability(BlobLister)) == (None, None)


def test_config() -> None:
    """Unavailable unless it is said otherwise; another outcome is refused."""
    with (
        Composition.from_mapping({"blobservices": {"root": {"type": "error"}}}) as stores,
        pytest.raises(UnavailableError, match="`root` is unavailable: it rehearses that"),
    ):
        stores.blobs().has(HELLO.digest)
    with pytest.raises(CompositionError, match="outcome"):
        Composition.from_mapping({"blobservices": {"root": {"type": "error", "outcome": "slow"}}})
