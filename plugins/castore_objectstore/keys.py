"""The keys of objects that are named by digests, and the digests in keys."""

from __future__ import annotations

from castore import B3Digest, owned
from castore.digest import no_digest
from castore_objectstore.object_store import StoredObject


def key_of(prefix: str, digest: B3Digest) -> str:
    """Return the key of what is named by a digest, in the folder *prefix*."""
    try:
        name = digest.hex()
    except AttributeError:
        raise no_digest(digest) from None
    return f"{prefix}{name[:4]}/{name}"


def place_in(prefix: str, entry: StoredObject) -> owned.OwnObject | None:
    """Return what an object is by its key, `None` if castore has not put it there."""
    return None if entry.foreign else owned.object_at(entry.key.removeprefix(prefix))


def digest_in(prefix: str, entry: StoredObject) -> B3Digest | None:
    """Return the digest that an object is named by, `None` if it is no index or chunk."""
    place = place_in(prefix, entry)
    return None if place is None or place.left_over else place.digest
