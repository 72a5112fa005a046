"""Refs in an object store: each is an object `refs/<name>.json` (`castore.format.refs`).

What is expected of a ref is compared in one step with its change: in a folder under the lock of the store, in
a bucket by requests with a condition. Where neither is to be had `expect` is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from castore.contract.refs import ANY, Expected, FoundRefs, NamedRoot, RefService, check_name, is_below
from castore.errors import CastoreError, CorruptRefError, UnavailableError
from castore.format import refs as written
from castore.threads.pool import Pool
from castore_objectstore.object_store import NoObjectError, ObjectStore, TooLargeError


class ObjectRefService(RefService):
    """Keeps refs in *store*.

    Arguments:
        store: The store.
        pool: Threads to read many with, where requests wait.
        closes: Whether the store is closed with it.
    """

    def __init__(self, store: ObjectStore, *, pool: Pool | None = None, closes: bool = False) -> None:
        self._store = store
        self._pool = (pool or Pool(0)).io_pool if store.high_latency else Pool(0)
        self._closes = closes

    def names(self, prefix: str = "") -> Iterator[str]:
        """List the objects."""
        keys = self._store.list_below(written.FOLDER)
        found = {name for key in keys if (name := written.name_in(key)) is not None}
        return iter(sorted(name for name in found if is_below(name, prefix)))

    def get_many(self, names: Iterable[str]) -> FoundRefs:
        """Read each object."""
        wanted = list(dict.fromkeys(check_name(name) for name in names))
        found: FoundRefs = {
            name: answer for name, answer in self._pool.map(self._get, wanted) if answer is not None
        }
        failed = [answer for answer in found.values() if isinstance(answer, UnavailableError)]
        if failed and len(failed) == len(wanted):
            raise failed[0]
        return found

    def _get(self, name: str) -> tuple[str, NamedRoot | CastoreError | None]:
        try:
            return name, self._read(name)
        except CastoreError as error:
            return name, error

    def _read(self, name: str) -> NamedRoot | None:
        key = written.key_of(name)
        try:
            data = self._store.get(key, written.LONGEST)
        except (TooLargeError, NoObjectError) as error:
            raise CorruptRefError(name, f"{error}", key=key) from None
        return None if data is None else written.decode(data, name, key=key)

    def set(self, name: str, ref: NamedRoot, *, expect: Expected = ANY) -> bool:
        """Write the object."""
        return self._replace(name, written.encode(ref), expect)

    def _replace(self, name: str, data: bytes | None, expect: Expected) -> bool:
        key = written.key_of(name)
        try:
            return self._store.replace(key, data, _as_expected(name, expect))
        except (TooLargeError, NoObjectError) as error:
            raise CorruptRefError(name, f"{error}", key=key) from None

    def delete(self, name: str, *, expect: Expected = ANY) -> bool:
        """Remove the object."""
        check_name(name)
        return expect is not None and self._replace(name, None, expect)

    def close(self) -> None:
        """Release the store's connections, if nobody else has them."""
        if self._closes:
            self._store.close()


def _as_expected(name: str, expect: Expected) -> Callable[[bytes | None], bool] | None:
    """Return what tells by the bytes of a ref whether it is as expected; `None` if it may be anything."""
    if expect is ANY:
        return None

    def compare(data: bytes | None) -> bool:
        if data is None or expect is None:
            return data is None and expect is None
        return written.decode(data, name, key=written.key_of(name)) == expect

    return compare
