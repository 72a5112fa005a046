"""What one service has lost, or has wrong, comes from the next one by its position, and is mended.

However the two have cut the blob, whatever is damaged and wherever, whatever stands around it.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import pytest

from castore import B3Digest, BlobService, ChunkMeta, CorruptBlobError, UnavailableError
from castore.composites.members import Member
from castore.faults import FaultyService
from castore.format import blob_index
from castore.threads.pool import Pool
from castore_cache.service import CacheBlobService
from castore_fallback.service import FallbackBlobService
from castore_lru.bounds import Bounds
from castore_lru.service import LruBlobService
from castore_memory.service import MemoryBlobService
from castore_mirror.healing import HealingQueue
from castore_mirror.service import MirrorBlobService
from castore_wrappers.retry.service import RetryService
from castore_wrappers.verify.service import VerifyService

DATA: Final = random.Random(5).randbytes(60_000)
DIGEST: Final = B3Digest.of(DATA)
OTHER: Final = random.Random(6).randbytes(60_000)
SMALL: Final = 1 << 10
LARGE: Final = 4 << 10


@attrs.frozen
class First:
    """The first service, with the objects beneath it, and the chunks that its index lists if it is right."""

    service: BlobService
    objects: dict[str, bytes]
    chunks: tuple[ChunkMeta, ...]
    key_of: Callable[[str, B3Digest], str]

    def key(self, number: int) -> str:
        """The key of a chunk."""
        return self.key_of("chunks", self.chunks[number].digest)

    def list(self, *chunks: ChunkMeta) -> None:
        """Put an index."""
        self.objects[self.key_of("blobs", DIGEST)] = blob_index.encode(chunks)


def lose(*numbers: int) -> Callable[[First], object]:
    """Lose chunks."""
    return lambda first: [first.objects.pop(first.key(number)) for number in numbers]


def lose_all(first: First) -> None:
    """Lose all chunks, so that the index is all there is."""
    for number in range(len(first.chunks)):
        first.objects.pop(first.key(number), None)


def flip(number: int) -> Callable[[First], object]:
    """Damage a chunk in its last byte."""

    def damage(first: First) -> None:
        frame = first.objects[first.key(number)]
        first.objects[first.key(number)] = frame[:-1] + bytes([frame[-1] ^ 1])

    return damage


CHUNKS: Final[dict[str, Callable[[First], object]]] = {
    "first lost": lose(0),
    "middle lost": lose(7),
    "last lost": lose(-1),
    "several lost": lose(1, 2, 3, 9, -2),
    "all lost": lose_all,
    "first damaged": flip(0),
    "middle damaged": flip(5),
    "last damaged": flip(-1),
    "torn": lambda first: first.objects.update({first.key(4): first.objects[first.key(4)][:9]}),
    "empty": lambda first: first.objects.update({first.key(4): b""}),
}


def renamed(meta: ChunkMeta) -> ChunkMeta:
    """A chunk that nobody has."""
    return ChunkMeta(B3Digest(bytes(32)), meta.size)


def list_other(first: First) -> None:
    """List the chunks of another blob as large, which are all there."""
    first.list(*(first.service.chunks(first.service.write(OTHER)) or ()))


LISTS: Final[dict[str, Callable[[First], object]]] = {
    "twice the first": lambda first: first.list(first.chunks[0], first.chunks[0]),
    "reversed": lambda first: first.list(*reversed(first.chunks)),
    "two exchanged": lambda first: first.list(
        *first.chunks[:3], first.chunks[4], first.chunks[3], *first.chunks[5:]
    ),
    "sizes + 1": lambda first: first.list(*(ChunkMeta(m.digest, m.size + 1) for m in first.chunks)),
    "one size + 1": lambda first: first.list(
        *first.chunks[:3], ChunkMeta(first.chunks[3].digest, first.chunks[3].size + 1), *first.chunks[4:]
    ),
    "one too few": lambda first: first.list(*first.chunks[:-1]),
    "one too many": lambda first: first.list(*first.chunks, first.chunks[0]),
    "a chunk of nobody": lambda first: first.list(
        *first.chunks[:3], renamed(first.chunks[3]), *first.chunks[4:]
    ),
    "of another blob": list_other,
    "no chunks": lambda first: first.list(),
    "no index": lambda first: first.objects.update({first.key_of("blobs", DIGEST): b"\xff\xff"}),
}
DAMAGES: Final = {**CHUNKS, **LISTS}


@pytest.fixture
def make_first(store: Any, blobs_of: Any, key_of: Any) -> Callable[[], First]:
    """Make the first service, which has the blob in small chunks."""

    def make(average: int = SMALL) -> First:
        objects = type(store)("first")
        service = blobs_of(objects, avg_chunk_size=average)
        service.write(DATA)
        return First(service, objects.objects, tuple(service.chunks(DIGEST)), key_of)

    return make


@pytest.fixture
def make_second(store: Any, blobs_of: Any, smallest: Any) -> Callable[[str], BlobService]:
    """Make the second one, which has it in some other way."""

    def make(kind: str) -> BlobService:
        service: BlobService
        if kind == "memory":
            service = MemoryBlobService()
        elif kind == "whole":
            service = smallest()
        else:
            service = blobs_of(type(store)("second"), avg_chunk_size=LARGE if kind == "large" else SMALL)
        service.write(DATA)
        return service

    return make


SECONDS: Final = ("large", "alike", "memory", "whole")


def members(*services: BlobService) -> list[Member]:
    return [Member(name, service) for name, service in zip("abc", services, strict=False)]


def mirror(*services: BlobService) -> MirrorBlobService:
    quorum = len(services) // 2 + 1
    return MirrorBlobService(
        members(*services), write_quorum=quorum, miss_quorum=quorum, queue=HealingQueue(interval=0.01)
    )


STACKS: Final[dict[str, Callable[[BlobService, BlobService], BlobService]]] = {
    "cache": CacheBlobService,
    "cache in a cache": lambda one, two: CacheBlobService(MemoryBlobService(), CacheBlobService(one, two)),
    "cache over a fallback": lambda one, two: CacheBlobService(
        one, FallbackBlobService(members(MemoryBlobService(), two))
    ),
    "cache of an lru": lambda one, two: CacheBlobService(LruBlobService(one, Bounds(max_bytes=1 << 30)), two),
    "verify over a cache": lambda one, two: VerifyService(CacheBlobService(one, two)),
    "retry over a cache": lambda one, two: RetryService(CacheBlobService(one, two)),
    "cache with threads": lambda one, two: CacheBlobService(one, two, pool=Pool(2)),
    "fallback": lambda one, two: FallbackBlobService(members(one, two)),
    "fallback that copies": lambda one, two: FallbackBlobService(members(one, two), copy_to="a"),
    "fallback of three": lambda one, two: FallbackBlobService(members(MemoryBlobService(), one, two)),
    "verify over a fallback": lambda one, two: VerifyService(FallbackBlobService(members(one, two))),
    "mirror": mirror,
    "mirror of three": lambda one, two: mirror(one, MemoryBlobService(), two),
    "cache over a mirror": lambda one, two: CacheBlobService(MemoryBlobService(), mirror(one, two)),
}
MENDING: Final = {
    "cache",
    "cache over a fallback",
    "retry over a cache",
    "cache with threads",
    "fallback that copies",
    "mirror",
    "mirror of three",
}
"""Those after whose use the first service is right again by itself.

An `lru` drops the index of a blob that it finds to be incomplete, and `verify` reads chunks, by which no
index gets into near: there the next reader fills it.
"""


def streamed(service: BlobService) -> bytes:
    """Read a blob piece by piece, from its beginning again if what was read turns out to be of no use."""
    for _ in range(3):
        with contextlib.suppress(CorruptBlobError), service.open(DIGEST) as reader:
            return b"".join(iter(reader.read1, b""))
    raise AssertionError("it is wrong for ever")


def part_of(service: BlobService, position: int) -> bytes:
    with service.open(DIGEST) as reader:
        reader.seek(min(position, reader.size))
        return reader.read(3000)


def settle(service: BlobService) -> None:
    """Wait for what is mended in the background."""
    within = getattr(getattr(service, "_far", None), "service", None)
    for part in (service, within):
        if isinstance(part, MirrorBlobService):
            assert part.queue.wait_until_idle(30)


@pytest.fixture
def stack(
    make_first: Any, make_second: Any
) -> Iterator[Callable[[str, str, str], tuple[BlobService, First]]]:
    """Make a stack whose first service is damaged."""
    with contextlib.ExitStack() as opened:

        def make(name: str, second: str, damage: str) -> tuple[BlobService, First]:
            first = make_first()
            service = opened.enter_context(STACKS[name](first.service, make_second(second)))
            DAMAGES[damage](first)
            return service, first

        yield make


@pytest.mark.parametrize("name", STACKS)
def test_a_whole_read(stack: Any, name: str) -> None:
    """It is right, at once, and so is what the first service has afterwards."""
    for damage, second in zip(DAMAGES, itertools.cycle(SECONDS), strict=False):
        check_whole_read(stack, name, second, damage)


@pytest.mark.long
@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("second", SECONDS)
def test_all_whole_reads(stack: Any, name: str, second: str) -> None:
    """The same with all damages beside each second service."""
    for damage in DAMAGES:
        check_whole_read(stack, name, second, damage)


def check_whole_read(stack: Any, name: str, second: str, damage: str) -> None:
    service, first = stack(name, second, damage)
    assert service.read(DIGEST) == DATA, damage
    settle(service)
    if name in MENDING:
        assert first.service.read(DIGEST) == DATA, damage
    assert service.read(DIGEST) == DATA, damage
    assert part_of(service, 20_000) == DATA[20_000:23_000], damage


@pytest.mark.parametrize("name", STACKS)
def test_a_read_in_pieces(stack: Any, name: str) -> None:
    """What a wrong list gave is taken back by an error, once; a chunk is not missed at all."""
    for damage in DAMAGES:
        service, first = stack(name, "large", damage)
        if damage in CHUNKS:
            with service.open(DIGEST) as reader:
                assert b"".join(iter(reader.read1, b"")) == DATA
        assert streamed(service) == DATA, damage
        settle(service)
        if name in MENDING:
            assert first.service.read(DIGEST) == DATA, damage


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize(
    "second", ["large", *(pytest.param(kind, marks=pytest.mark.long) for kind in SECONDS[1:])]
)
def test_parts(stack: Any, name: str, second: str) -> None:
    """Where a chunk is lost or damaged the bytes at its position come from the second service."""
    for damage, position in itertools.product(CHUNKS, (0, 5_000, 30_001, 59_000)):
        service, _ = stack(name, second, damage)
        assert part_of(service, position) == DATA[position : position + 3000], (damage, position)


@pytest.mark.parametrize("name", STACKS)
def test_parts_by_a_wrong_list(stack: Any, name: str) -> None:
    """As soon as it proves wrong it is passed over. Until then a part is as good as the list is."""
    for damage in LISTS:
        service, _ = stack(name, "large", damage)
        proves_wrong = damage in {"a chunk of nobody", "no index"}
        for position in (20_000, 5_000):
            found = b""
            for _ in range(2):
                with contextlib.suppress(CorruptBlobError):
                    found = part_of(service, position)
            assert not proves_wrong or found == DATA[position : position + 3000]
        assert service.read(DIGEST) == DATA
        settle(service)
        assert part_of(service, 5_000) == DATA[5_000:8_000]


# -- blobs in one piece --

BIG: Final = bytes(range(256)) * 20_000
"""More than is read whole before a byte of it is used."""

BIG_DIGEST: Final = B3Digest.of(BIG)

ONE_PIECE: Final[dict[str, Callable[[BlobService, BlobService], BlobService]]] = {
    "cache": CacheBlobService,
    "fallback": lambda one, two: FallbackBlobService(members(one, two)),
    "mirror": mirror,
}


@pytest.mark.parametrize("name", ONE_PIECE)
def test_a_large_blob_in_one_piece(smallest: Any, name: str) -> None:
    """Where nothing finer can be checked it is found out at the end, and passed over from then on."""
    first, second = smallest(), smallest()
    second.write(BIG)
    first.blobs[BIG_DIGEST] = BIG[:-1] + b"?"
    with ONE_PIECE[name](first, second) as service:
        with pytest.raises(CorruptBlobError) as caught, service.open(BIG_DIGEST) as reader:
            list(iter(reader.read1, b""))
        assert caught.value.passed_over
        assert service.read(BIG_DIGEST) == BIG


@pytest.mark.parametrize("name", ONE_PIECE)
def test_one_that_was_put_anew(smallest: Any, name: str) -> None:
    """Nobody has told: it is not called wrong where the other service lacks it."""
    first, second = smallest(), smallest()
    first.blobs[BIG_DIGEST] = BIG[:-1] + b"?"
    with ONE_PIECE[name](first, second) as service:
        with pytest.raises(CorruptBlobError):
            service.read(BIG_DIGEST)
        first.blobs[BIG_DIGEST] = BIG
        assert service.chunks(BIG_DIGEST) == ()
        assert service.read(BIG_DIGEST) == BIG


def test_a_failure_that_is_the_answer_is_not_passed_over(make_first: Any, make_second: Any) -> None:
    """Far could have given the bytes, and is not asked."""
    first = make_first()
    near = FaultyService(first.service, instance="near")
    strict = CacheBlobService(near, make_second("large"), on_near_error="fail")
    with strict.open(DIGEST) as reader:
        near.failing |= {"get_chunks"}
        with pytest.raises(UnavailableError, match="near"):
            reader.read()
        near.failing.clear()
    with CacheBlobService(near, make_second("large")).open(DIGEST) as reader:
        near.failing |= {"get_chunks"}
        assert reader.read() == DATA
