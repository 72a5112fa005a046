"""A capability that a service has does what it says; one that it denies is not there by another way."""

# ruff: noqa: D401 - a clause states a fact

from __future__ import annotations

from collections import Counter

from castore.contract.blobs import BlobService
from castore.contract.capabilities import BlobDeleter, BlobLister, Durable, EvictionEvents, SharedPlace
from castore.contract.operations import CAPABILITIES
from castore.digest import B3Digest
from castore.testing.clause import Chapter
from castore.testing.expecting import (
    absent,
    capability_of,
    expect,
    expect_absent,
    expect_stored,
    expect_that,
    fresh,
)

chapter = Chapter()
clause = chapter.clause


@clause()
def capabilities_are_real(service: BlobService) -> None:
    """What `capability` returns for a capability is an object of that capability, or None."""
    for kind in CAPABILITIES:
        found = service.capability(kind)
        is_one = found is None or isinstance(found, kind)
        expect_that(is_one, f"capability({kind.__name__}) to be one, or None", type(found))


@clause(needs=(BlobLister,))
def list_has_each_blob_once(service: BlobService) -> None:
    """`list_blobs` yields each blob once, however often it was stored, and nothing that is absent."""
    data = fresh()
    stored = [service.write(data), service.write(data), service.write(fresh(700_000)), service.write(b"")]
    counts = Counter(capability_of(service, BlobLister).list_blobs())
    for digest in stored:
        expect(f"how often list_blobs() yields {digest}", counts[digest], 1)
    expect("how often list_blobs() yields an absent one", counts[absent()], 0)
    for digest in counts:
        expect_that(isinstance(digest, B3Digest), "list_blobs() to yield B3Digests", type(digest))


@clause(needs=(BlobLister,))
def list_without_aborted(service: BlobService) -> None:
    """`list_blobs` yields no blob whose writer is still open, or was aborted."""
    lister = capability_of(service, BlobLister)
    half, aborted = fresh(), fresh()
    with service.open_write() as writer:
        writer.write(half)
        dropped = service.open_write()
        dropped.write(aborted)
        dropped.abort()
        listed = set(lister.list_blobs())
        expect_that(B3Digest.of(half) not in listed, "list_blobs() without what is being written", "it")
        expect_that(B3Digest.of(aborted) not in listed, "list_blobs() without what was aborted", "it")


@clause(needs=(BlobLister,))
def complete_finds_what_begins_so(service: BlobService) -> None:
    """`complete` yields each blob that begins with the digits once, and nothing that begins otherwise."""
    lister = capability_of(service, BlobLister)
    data = fresh()
    stored = [service.write(data), service.write(data), service.write(fresh(700_000))]
    for digest in stored:
        text = digest.hex()
        for digits in (text, text[:9], text[:8], text[:4], text[:1]):
            found = list(lister.complete(digits))
            expect(f"how often complete({digits!r}) yields {digest}", found.count(digest), 1)
            others = [each for each in found if not each.hex().startswith(digits)]
            expect(f"what complete({digits!r}) yields that begins otherwise", others, [])
            expect(f"missing() of what complete({digits!r}) yields", service.missing(found), set())
    expect("complete() of an absent one", list(lister.complete(absent().hex()[:16])), [])


@clause(needs=(BlobDeleter,))
def delete_removes(service: BlobService) -> None:
    """`delete` says whether the blob was there; afterwards it is not, and can be stored again."""
    deleter = capability_of(service, BlobDeleter)
    data = fresh(600_000)
    digest, other = service.write(data), service.write(data + b"!")
    expect("delete() of an absent blob", deleter.delete(absent()), False)
    expect("delete()", deleter.delete(digest), True)
    expect_absent(service, digest)
    expect("delete() again", deleter.delete(digest), False)
    expect_stored(service, other, data + b"!")
    service.write(data)
    expect_stored(service, digest, data)


@clause(needs=(EvictionEvents,))
def eviction_events_can_be_ended(service: BlobService) -> None:
    """`on_evict` returns a function that ends the calls, and may be called again; it calls nothing now."""
    events = capability_of(service, EvictionEvents)
    told: list[B3Digest] = []
    end = events.on_evict(told.append)
    expect_that(callable(end), "on_evict() to return a function", end)
    expect("what was evicted before anything was stored", told, [])
    end()
    end()


@clause(needs=(SharedPlace,))
def shared_place_lets_one_alone(service: BlobService) -> None:
    """`try_alone` gives those digests that nobody else is at, for as long as its context lasts."""
    place = capability_of(service, SharedPlace)
    one, both, other = (absent() for _ in range(3))
    for _ in range(2):
        with place.try_alone([one, both]) as first, place.try_alone([both, other]) as second:
            expect("what the first is alone for", first, frozenset({one, both}))
            expect("what the second is alone for", second, frozenset({other}))
    with place.try_alone([]) as alone:
        expect("what one is alone for who asks for nothing", alone, frozenset())
    expect("find_unflushed() of absent chunks", place.find_unflushed({one: None, both: 5}), {})


@clause(needs=(Durable,))
def durability_is_stated(service: BlobService) -> None:
    """`durability` is `process` or `full`."""
    stated = capability_of(service, Durable).durability
    expect_that(stated in ("process", "full"), "durability to be 'process' or 'full'", stated)


@clause()
def denied_capabilities_are_not_there(service: BlobService) -> None:
    """A service without a capability is none of its class, and has no method that makes one."""
    denied = [kind for kind in CAPABILITIES if service.capability(kind) is None]
    # It may have another capability that this one extends.
    had = {member for kind in CAPABILITIES if kind not in denied for member in dir(kind)}
    for kind in denied:
        expect(f"isinstance(service, {kind.__name__}), which it denies,", isinstance(service, kind), False)
        for member in sorted(kind.__abstractmethods__ - had):
            expect(f"hasattr(service, {member!r})", hasattr(service, member), False)
