"""What a ref is written as: a line of JSON, the same wherever it is kept.

::

    {"comment":"","metadata":null,"node":{...},"source":"/home/me/www","time":"2026-11-30T14:05:00Z","version":1}

The keys are sorted, nothing but ASCII is in it, and no space outside of texts; the node is as the reference
writes one (`castore.format.nodes`). A time has as many digits of a second as it needs, none or six.
"""

from __future__ import annotations

import json
from typing import Any, Final

from castore.contract.refs import NamedRoot, check_name, time_from_text, time_to_text
from castore.digest import B3Digest
from castore.errors import CastoreError, CorruptRefError, InvalidRefError
from castore.format.nodes import node_from_json, node_to_json

VERSION: Final = 1
LONGEST: Final = 1 << 16
"""Bytes that a ref has at most."""

_KEYS: Final = frozenset({"version", "node", "time", "comment", "metadata", "source"})


def encode(ref: NamedRoot) -> bytes:
    """Return the bytes of a ref; raise `InvalidRefError` if they are more than `LONGEST`."""
    document = {
        "version": VERSION,
        "node": node_to_json(ref.node),
        "time": time_to_text(ref.time),
        "comment": ref.comment,
        "metadata": None if ref.metadata is None else ref.metadata.sri,
        "source": ref.source,
    }
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"
    if len(data) > LONGEST:
        raise InvalidRefError(
            f"a ref of {len(data)} bytes is too long, {LONGEST} are the most: its comment has"
            f" {len(ref.comment)} characters, its source {len(ref.source)}"
        )
    return data


def decode(data: bytes, name: str, *, key: str | None = None) -> NamedRoot:
    """Read a ref; raise `CorruptRefError` for anything else.

    Arguments:
        data: Its bytes.
        name: Its name, for the error.
        key: Where it is kept, likewise.
    """
    try:
        return _decode(data)
    except (CastoreError, ValueError, TypeError, RecursionError, OverflowError) as error:
        words = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
        raise CorruptRefError(name, words, key=key) from error


def _decode(data: bytes) -> NamedRoot:
    if len(data) > LONGEST:
        raise ValueError(f"it has {len(data)} bytes, and a ref {LONGEST} at most")
    document = json.loads(data.decode("ascii"), object_pairs_hook=_without_doubles, parse_constant=_refuse)
    if not isinstance(document, dict):
        raise TypeError("it is no JSON object")
    version = document.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(
            f"it has version {version} of the format, and this castore knows {VERSION}: upgrade it"
        )
    if type(version) is not int or version != VERSION:
        raise ValueError("it does not say that it has version 1 of the format")
    if document.keys() - _KEYS:
        raise ValueError(f"no ref has {min(document.keys() - _KEYS)[:40]!r}")
    comment, source = document.get("comment", ""), document.get("source", "")
    if not isinstance(comment, str) or not isinstance(source, str):
        raise TypeError("its comment or source is no text")
    metadata = document.get("metadata")
    node = node_from_json(_table(document.get("node")))
    # A number that Python takes for another, such as a truth value.
    if json.dumps(node_to_json(node), sort_keys=True) != json.dumps(document["node"], sort_keys=True):
        raise ValueError("its node is not written as one is")
    return NamedRoot(
        node,
        time_from_text(document.get("time")),
        comment,
        None if metadata is None else B3Digest.parse(_text(metadata)),
        source,
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("it has no node")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("its metadata is no digest")
    return value


# -- where a ref is in a folder, or a bucket --

FOLDER: Final = "refs/"
_END: Final = ".json"


def key_of(name: str) -> str:
    """Return the key of a ref's object; raise `InvalidRefError` for what can be no name."""
    return f"{FOLDER}{check_name(name)}{_END}"


def name_in(key: str) -> str | None:
    """Return the name of the ref that a key is of, `None` for any other key."""
    if not key.startswith(FOLDER) or not key.endswith(_END):
        return None
    try:
        return check_name(key[len(FOLDER) : -len(_END)])
    except InvalidRefError:
        return None
