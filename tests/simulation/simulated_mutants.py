"""Ways to get composites wrong, each of which a simulation must find. A mutant breaks them while entered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from castore.composites import failover_reading
from castore.composites.members import Members, Votes
from castore.composites.union import UnionDeleter
from castore.contract.capabilities import BlobDeleter, ChunkSource, ChunkStore
from castore.errors import CastoreError, CorruptBlobError, UnavailableError
from castore.threads.deadlines import Deadlines
from castore.wrapping.wrapper import WrapperService
from castore_cache.far import Far
from castore_cache.filling import Filler
from castore_cache.flights import Flights
from castore_cache.near import Near
from castore_cache.reading import FillingChunkedReader
from castore_cache.stores import BothChunks
from castore_cache.writing import BothWriter
from castore_fallback.copying import Keeper
from castore_fallback.service import FallbackBlobService
from castore_mirror.capabilities import StoreInAll
from castore_mirror.healing import HealingQueue
from castore_mirror.marks import Marks
from castore_mirror.mending import Mender
from castore_mirror.service import MirrorBlobService
from castore_mirror.writing import MirrorWriter
from castore_wrappers.breaker.circuit import Circuit, Verdict
from castore_wrappers.breaker.service import BreakerService
from castore_wrappers.limit import service as limit_service
from castore_wrappers.limit.rates import Rate, Slots
from castore_wrappers.limit.service import LimitService
from castore_wrappers.read_only.service import ReadOnlyService
from castore_wrappers.retry import service as retry_service
from castore_wrappers.retry.patience import Patience
from castore_wrappers.retry.reading import ResumingReader
from castore_wrappers.retry.writing import ReplayingWriter
from castore_wrappers.verify import service as verify_service
from castore_wrappers.verify.checking import CheckedChunks
from tests.mutating import Mutants, patch

MUTANTS: Final = Mutants()
mutant = MUTANTS.add


# -- fallback --


@mutant
def fallback_takes_an_error_for_absence() -> Iterator[None]:
    def decide(self: Votes, instance: str, misses: int) -> None:
        return

    with patch(Votes, "decide", decide):
        yield


@mutant
def fallback_takes_one_miss_for_absence() -> Iterator[None]:
    def hold(self: Members, poll: Any, ask: Any, order: Any, *args: Any, **kwargs: Any) -> Any:
        return right(self, poll, ask, self.all[:1], *args, **kwargs)

    right = Members._hold
    with patch(Members, "_hold", hold):
        yield


@mutant
def fallback_prefers_corrupt_to_unavailable() -> Iterator[None]:
    def decide(self: Votes, instance: str, misses: int) -> None:
        for _, error in self.faults:
            if isinstance(error, CorruptBlobError):
                raise error
        right(self, instance, misses)

    right = Votes.decide
    with patch(Votes, "decide", decide):
        yield


@mutant
def fallback_copies_unverified_bytes() -> Iterator[None]:
    def checked(reader: Any, digest: Any) -> bytes:
        return bytes(reader.read())

    with patch(failover_reading, "_checked", checked):
        yield


@mutant
def fallback_copies_half_of_what_is_read() -> Iterator[None]:
    def take(self: Keeper, writer: Any, piece: memoryview) -> bool:
        return right(self, writer, piece[: len(piece) // 2])

    right = Keeper.take
    with patch(Keeper, "take", take):
        yield


@mutant
def fallback_writes_to_the_first_whatever_is_said() -> Iterator[None]:
    def made(self: FallbackBlobService, members: Any, **options: Any) -> None:
        right(self, members, **{**options, "write_to": None})

    right = FallbackBlobService.__init__
    with patch(FallbackBlobService, "__init__", made):
        yield


@mutant
def fallback_fakes_the_capability_to_delete() -> Iterator[None]:
    def capability(self: FallbackBlobService, kind: Any) -> Any:
        if kind is BlobDeleter:
            return self._target.service.capability(kind)
        return right(self, kind)

    right = FallbackBlobService.capability
    with patch(FallbackBlobService, "capability", capability):
        yield


@mutant
def fallback_forgets_that_a_member_is_final() -> Iterator[None]:
    def made(self: Members, name: str, members: Any, **options: Any) -> None:
        right(self, name, members, **options)
        for member in self.all:
            member.final = False

    right = Members.__init__
    with patch(Members, "__init__", made):
        yield


# -- mirror --


@mutant
def mirror_counts_a_failed_write_towards_the_quorum() -> Iterator[None]:
    def leave_out(self: MirrorWriter, outcomes: Any) -> None:
        faults = [(member, error) for member, error in outcomes if isinstance(error, CastoreError)]
        failed = {member for member, _ in faults}
        self._faults = [*self._faults, *faults]
        self._legs = [leg for leg in self._legs if leg.member not in failed] or self._legs[:1]

    with patch(MirrorWriter, "_leave_out", leave_out):
        yield


@mutant
def mirror_ignores_its_miss_quorum() -> Iterator[None]:
    def made(self: Members, name: str, members: Any, **options: Any) -> None:
        right(self, name, members, **options)
        self.misses = min(self.misses, 1)

    right = Members.__init__
    with patch(Members, "__init__", made):
        yield


@mutant
def mirror_heals_from_a_corrupt_member() -> Iterator[None]:
    def heal(self: Mender, member: Any, digest: Any, reason: Any, stop: Any) -> bool:
        for other in self._all:
            reader = None if other is member else other.service.open_read(digest)
            if reader is not None:
                with reader:
                    member.service.write(reader.read())
                return True
        return False

    with patch(Mender, "heal", heal):
        yield


@mutant
def mirror_does_not_heal_what_a_write_has_missed() -> Iterator[None]:
    def add(self: HealingQueue, member: Any, digest: Any, reason: str = "missing") -> None:
        return

    with patch(HealingQueue, "add", add):
        yield


@mutant
def mirror_never_rests_from_healing_in_vain() -> Iterator[None]:
    def copy(self: HealingQueue, member: Any, digest: Any, reason: Any) -> None:
        with contextlib.suppress(CastoreError):
            right(self, member, digest, reason)
        with self._lock:
            self._resting[member] = float("inf")

    right = HealingQueue._copy
    with patch(HealingQueue, "_copy", copy):
        yield


@mutant
def mirror_puts_an_index_where_chunks_are_missing() -> Iterator[None]:
    with patch(Marks, "among", lambda self, digests: frozenset()):
        yield


@mutant
def mirror_deletes_at_the_first_member_only() -> Iterator[None]:
    def delete(self: UnionDeleter, digest: Any) -> bool:
        return self._members[0][1].delete(digest)

    with patch(UnionDeleter, "delete", delete):
        yield


@mutant
def mirror_stores_chunks_where_a_quorum_is_not_reached() -> Iterator[None]:
    with patch(StoreInAll, "_short_of_quorum", lambda self, digests, said: {}):
        yield


@mutant
def fallback_does_not_keep_deadlines() -> Iterator[None]:
    def call(self: Deadlines, what: Any, timeout: Any, *, late: Any = None) -> Any:
        return what()

    with patch(Deadlines, "call", call):
        yield


# -- cache --


@mutant
def cache_returns_corrupt_bytes_of_near() -> Iterator[None]:
    def find(self: Near, sizes: Any) -> Any:
        found = right(self, sizes)
        corrupt = {digest for digest, answer in found.items() if isinstance(answer, CorruptBlobError)}
        return {**found, **dict.fromkeys(corrupt, b"corrupt")}

    right = Near._find
    with patch(Near, "_find", find):
        yield


@mutant
def cache_fills_near_before_it_has_checked() -> Iterator[None]:
    def read(self: Filler, digest: Any, opened: Any) -> Any:
        reader = self._far.service.open_read(digest)
        if reader is not None:
            with reader:
                self._near.keep({digest: reader.read()})
        return right(self, digest, opened)

    right = Filler._read
    with patch(Filler, "_read", read):
        yield


@mutant
def cache_takes_an_error_of_far_for_absence() -> Iterator[None]:
    def ask(self: Far, call: Any, miss: Any) -> Any:
        try:
            return call()
        except UnavailableError:
            return miss

    with patch(Far, "ask", ask):
        yield


@mutant
def cache_takes_the_word_of_far_though_near_is_alone() -> Iterator[None]:
    with patch(Near, "decide_absence", lambda self, fault: None):
        yield


@mutant
def cache_fails_when_near_does() -> Iterator[None]:
    with patch(Near, "ask", lambda self, call: (call(), None)):
        yield


@mutant
def cache_does_not_fail_when_near_must_not() -> Iterator[None]:
    with patch(Near, "stands", lambda self, fault: False):
        yield


@mutant
def cache_completes_blobs_that_lack_chunks() -> Iterator[None]:
    def complete(self: Near, digest: Any, chunks: Any) -> None:
        if self._store is not None:
            self._store.put_index(digest, chunks)

    with (
        patch(FillingChunkedReader, "_near_is_whole", lambda self: True),
        patch(Near, "_complete", complete),
    ):
        yield


@mutant
def cache_is_content_if_near_has_taken_a_blob() -> Iterator[None]:
    def finish(self: BothWriter) -> Any:
        try:
            return self._far.close()
        except CastoreError:
            if self._beside is None:
                raise
            return self._beside.close()

    def put_indexes(self: BothChunks, blobs: Any) -> None:
        with contextlib.suppress(CastoreError):
            self._target.put_indexes(blobs)
        self._beside.put_indexes(blobs)

    with patch(BothWriter, "_finish", finish), patch(BothChunks, "put_indexes", put_indexes):
        yield


@mutant
def cache_puts_an_index_where_near_has_missed_chunks() -> Iterator[None]:
    with patch(BothChunks, "_is_whole", lambda self, digest, chunks: True):
        yield


@mutant
def cache_keeps_a_chunk_under_another_name() -> Iterator[None]:
    def keep(self: Near, chunks: Any) -> Any:
        return right(self, {digest: data[:-1] for digest, data in chunks.items()})

    right = Near.keep
    with patch(Near, "keep", keep):
        yield


@mutant
def cache_leaves_followers_waiting() -> Iterator[None]:
    """Who leads a request that fails forgets to say so."""

    def land(self: Flights, flights: Any) -> None:
        right(self, {key: flight for key, flight in flights.items() if flight._ended.is_set()})

    right = Flights.land
    with patch(Flights, "land", land), patch(Flights, "__init__", without_end(Flights.__init__)):
        yield


def without_end(made: Any) -> Any:
    def init(self: Any, wait: float = 0.0, clock: Any = None) -> None:
        made(self, float("inf"), clock)

    return init


# -- breaker --


@mutant
def breaker_counts_absence_as_a_failure() -> Iterator[None]:
    def around(self: BreakerService, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        result = right(self, operation, call, *args, **kwargs)
        if result is None and operation == "open_read":
            self._circuit.leave(self._circuit._era, Verdict.FAILED)
        return result

    right = BreakerService.around
    with patch(BreakerService, "around", around):
        yield


@mutant
def breaker_lets_two_probes_through() -> Iterator[None]:
    def enter(self: Circuit) -> Any:
        era = right(self)
        return self._era if era is None and self._probing else era

    right = Circuit.enter
    with patch(Circuit, "enter", enter):
        yield


@mutant
def breaker_never_closes_again() -> Iterator[None]:
    def leave_probe(self: Circuit, verdict: Verdict) -> bool:
        return right(self, Verdict.FAILED)

    right = Circuit._leave_probe
    with patch(Circuit, "_leave_probe", leave_probe):
        yield


@mutant
def breaker_never_opens() -> Iterator[None]:
    with patch(Circuit, "_leave_closed", lambda self, verdict: False):
        yield


@mutant
def breaker_does_not_forget_failures_after_an_answer() -> Iterator[None]:
    def leave_closed(self: Circuit, era: int, verdict: Verdict) -> bool:
        return False if self._closed and verdict is Verdict.ANSWERED else right(self, era, verdict)

    right = Circuit.leave
    with patch(Circuit, "leave", leave_closed):
        yield


# -- retry --


@mutant
def retry_tries_again_when_a_blob_is_absent() -> Iterator[None]:
    def around(self: Any, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        result = right(self, operation, call, *args, **kwargs)
        if result is None and operation == "open_read":
            return right(self, operation, call, *args, **kwargs)
        return result

    right = retry_service.RetryService.around
    with patch(retry_service.RetryService, "around", around):
        yield


@mutant
def retry_resumes_at_the_start() -> Iterator[None]:
    def piece_again(self: ResumingReader, position: int, number: int) -> Any:
        self._open_anew()
        return self._pieces.piece_at(0)

    with patch(ResumingReader, "_piece_again", piece_again):
        yield


@mutant
def retry_writes_again_without_the_first_bytes() -> Iterator[None]:
    def begin_again(self: ReplayingWriter) -> int:
        self._writer.abort()
        self._writer = self._open_write()
        self._kept.seek(self._kept.tell() // 2)
        while piece := self._kept.read(20):
            self._writer.write(piece)
        return 0

    with patch(ReplayingWriter, "_begin_again", begin_again):
        yield


@mutant
def retry_gives_up_one_attempt_early() -> Iterator[None]:
    def go_on(self: Patience, error: Any, started: float, again: Any) -> Any:
        def counted(number: int) -> Any:
            if number >= self.policy.attempts - 1:
                raise UnavailableError(self.name, "enough")
            return again(number)

        return right(self, error, started, counted)

    right = Patience.go_on
    with patch(Patience, "go_on", go_on):
        yield


# -- limit --


@mutant
def limit_leaks_a_slot_on_an_error() -> Iterator[None]:
    def around(self: LimitService, operation: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return right(self, operation, call, *args, **kwargs)
        except CastoreError:
            if self._slots is not None and self._slots._free:
                self._slots.take()
            raise

    right = LimitService.around
    with patch(LimitService, "around", around):
        yield


@mutant
def limit_lets_one_more_through() -> Iterator[None]:
    def made(self: Slots, count: int, *args: Any) -> None:
        right(self, count + 1, *args)

    right = Slots.__init__
    with patch(limit_service.Slots, "__init__", made):
        yield


@mutant
def limit_does_not_wait_for_the_next_second() -> Iterator[None]:
    with patch(Rate, "take", lambda self, units: 0.0):
        yield


# -- verify --


@mutant
def verify_passes_a_bad_last_chunk() -> Iterator[None]:
    def get_chunks(self: CheckedChunks, sizes: Any) -> Any:
        found = self._source.get_chunks(sizes)
        last = {name: data for name, data in found.items() if len(data) not in (32, 48, 100)}
        return {**right(self, {name: sizes[name] for name in sizes if name not in last}), **last}

    right = CheckedChunks.get_chunks
    with patch(CheckedChunks, "get_chunks", get_chunks):
        yield


@mutant
def verify_trusts_a_blob_in_one_piece() -> Iterator[None]:
    with patch(verify_service, "check_whole", lambda reader, digest: reader):
        yield


@mutant
def verify_loses_a_capability() -> Iterator[None]:
    def capability(self: Any, kind: Any) -> Any:
        return None if kind is ChunkStore else right(self, kind)

    right = verify_service.VerifyService.capability
    with patch(verify_service.VerifyService, "capability", capability):
        yield


@mutant
def limit_lets_capabilities_through_unlimited() -> Iterator[None]:
    """What goes through a capability is not checked, nor counted, nor tried again."""

    def forward(self: WrapperService, kind: type, found: Any) -> Any:
        return found if type(self).__name__ != "Tap" else right(self, kind, found)

    right = WrapperService._forward
    with patch(WrapperService, "_forward", forward):
        yield


# -- read_only --


@mutant
def read_only_lets_put_index_through() -> Iterator[None]:
    def capability(self: ReadOnlyService, kind: Any) -> Any:
        return self.inner.capability(kind) if kind is ChunkStore else right(self, kind)

    right = ReadOnlyService.capability
    with patch(ReadOnlyService, "capability", capability):
        yield


@mutant
def mirror_hides_its_source_of_chunks() -> Iterator[None]:
    def capability(self: MirrorBlobService, kind: Any) -> Any:
        return None if kind is ChunkSource else right(self, kind)

    right = MirrorBlobService.capability
    with patch(MirrorBlobService, "capability", capability):
        yield
