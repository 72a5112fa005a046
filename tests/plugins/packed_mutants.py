"""Ways to get collecting in a bucket wrong, each of which the simulation must find; broken while entered.

What is broken during a call is broken for one object: others act meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from unittest import mock

from castore import B3Digest
from castore.format import blob_index
from castore.format.packs import PackBuilder
from castore_objectstore.packed import service as services
from castore_objectstore.packed.claiming import BucketClaims
from castore_objectstore.packed.known import KnownPacks
from castore_objectstore.packed.service import PackedBlobService
from castore_objectstore.packed.sweeping import Sweeping
from tests.mutating import Mutants, patch

MUTANTS: Final = Mutants()
mutant = MUTANTS.add


@mutant
def a_record_before_its_chunks() -> Iterator[None]:
    def put(self: Any, work: Any, blobs: Mapping[B3Digest, Any]) -> None:
        new = {digest: blob_index.encode(chunks) for digest, chunks in blobs.items()}
        self._store_pack(PackBuilder(), new)
        right(self, work, blobs)

    right = PackedBlobService.put_indexes_of
    with patch(PackedBlobService, "put_indexes_of", put):
        yield


@mutant
def marks_after_a_look_at_claims() -> Iterator[None]:
    def mark(self: Any, pairs: Iterable[Any]) -> None:
        self.look_at_claims()
        with patch(self, "look_at_claims", lambda: None):
            right(self, pairs)

    right = BucketClaims._mark
    with patch(BucketClaims, "_mark", mark):
        yield


@mutant
def the_dead_after_chunks() -> Iterator[None]:
    def bury(self: Any, claims: Any, items: Any, limit: float) -> Any:
        later: list[Any] = []
        with patch(self, "_put_dead", lambda pairs: later.append(pairs) or ""):
            gone = right(self, claims, items, limit)
        self.__dict__.setdefault("later", []).extend(later)
        return gone

    def remove(self: Any) -> None:
        for pairs in self.__dict__.pop("later", []):
            self._put_dead(pairs)
        right_remove(self)

    right, right_remove = Sweeping._bury_marked, Sweeping._remove_needless_dead
    with patch(Sweeping, "_bury_marked", bury), patch(Sweeping, "_remove_needless_dead", remove):
        yield


@mutant
def a_mark_is_taken_back() -> Iterator[None]:
    """As soon as a claim is seen, which another collector may not have."""

    def choose(self: Any, garbage: Any, limit: float) -> Any:
        claims = self._claims
        for key, pairs in list(claims._marks_seen.items()):
            packs = [self._known._by_name(name) for name, _ in pairs]
            if any(pack is not None and not self._is_old(pack, limit) for pack in packs):
                claims._marks.remove([key])
                claims._marked = claims._marked - {name for name, _ in pairs}
        return right(self, garbage, limit)

    def by_name(self: Any, name: bytes) -> Any:
        return next((pack for pack in self.all_packs() if bytes(pack.name) == name), None)

    right = Sweeping._choose
    with (
        patch(Sweeping, "_choose", choose),
        mock.patch.object(KnownPacks, "_by_name", by_name, create=True),
    ):
        yield


@mutant
def a_claim_without_a_look_at_marks() -> Iterator[None]:
    def claim(self: Any, wanted: Any) -> Any:
        with patch(self, "look_at_marks", lambda: None):
            return right(self, wanted)

    right = BucketClaims.claim
    with patch(BucketClaims, "claim", claim):
        yield


@mutant
def a_look_at_marks_before_the_claim() -> Iterator[None]:
    def claim(self: Any, wanted: Any) -> Any:
        self.look_at_marks()
        with patch(self, "look_at_marks", lambda: None):
            return right(self, wanted)

    right = BucketClaims.claim
    with patch(BucketClaims, "claim", claim):
        yield


@mutant
def a_claim_of_a_pack_that_is_gone() -> Iterator[None]:
    with patch(BucketClaims, "_is_there", lambda self, pack: (pack, True)):
        yield


@mutant
def what_is_written_anew_has_not_settled() -> Iterator[None]:
    def leave(self: Any, *args: Any) -> None:
        pass

    def claim(self: Any, removals: Any) -> None:
        self.settle_seconds = -1e9
        right(self, removals)

    right = Sweeping._claim_what_stays
    with patch(Sweeping, "_leave", leave), patch(Sweeping, "_claim_what_stays", claim):
        yield


@mutant
def what_stays_is_not_claimed() -> Iterator[None]:
    with patch(Sweeping, "_claim_what_stays", lambda self, removals: None):
        yield


@mutant
def records_are_buried_at_once() -> Iterator[None]:
    def bury(self: Any, claims: Any, items: Any, limit: float) -> Any:
        with patch(claims, "mark", lambda pairs: None):
            return right(self, claims, items, limit)

    right = Sweeping._bury_marked
    with patch(Sweeping, "_bury_marked", bury):
        yield


@mutant
def a_record_is_claimed_that_is_to_go() -> Iterator[None]:
    with patch(PackedBlobService, "_is_to_go", lambda self, record: False):
        yield


@mutant
def no_lease_in_a_bucket() -> Iterator[None]:
    def leased(self: Any, *, brief: bool) -> Any:
        return right(self, brief=True)

    right = PackedBlobService._leased
    with patch(services.PackedBlobService, "_leased", leased):
        yield


@mutant
def claims_do_not_count() -> Iterator[None]:
    with patch(BucketClaims, "time_of", lambda self, pack: pack.modified):
        yield
