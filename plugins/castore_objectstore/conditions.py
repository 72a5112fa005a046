"""Changing an object of a bucket only if it is as expected, by requests with a condition.

The condition is on the object's tag, which S3 makes of its bytes. A server that passes over conditions would
do everything that it is asked to: so it is tried first, on an object of its own, whether it heeds them.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable
from typing import Any, Final

from castore_objectstore import drivers

_REFUSED: Final = (404, 409, 412)
"""Status codes of HTTP: the condition does not hold, or somebody else is at it."""

_ATTEMPTS: Final = 8

_NO_TAG: Final = '"00000000000000000000000000000000"'


class NoConditionsError(Exception):
    """The server, or its driver, does not heed conditions."""


class ChangedAgainError(Exception):
    """The object has changed each time that it was looked at."""


def has_conditions(fs: Any) -> bool:
    """Tell whether a driver can send conditions."""
    return hasattr(fs, "call_s3")


def require_heeded(fs: Any, folder: str) -> None:
    """Raise `NoConditionsError` if the server of a bucket does what a condition forbids."""
    bucket, key, _ = fs.split_path(f"{folder}/#{randomness.token_hex(8)}")
    place = {"Bucket": bucket, "Key": key}
    fs.call_s3("put_object", **place, Body=b"castore")
    try:
        for operation, condition in (
            ("put_object", {"Body": b"", "IfNoneMatch": "*"}),
            ("put_object", {"Body": b"", "IfMatch": _NO_TAG}),
            ("delete_object", {"IfMatch": _NO_TAG}),
        ):
            try:
                fs.call_s3(operation, **place, **condition)
            except Exception as error:
                if drivers.status_of(error) not in _REFUSED:
                    raise NoConditionsError from error
            else:
                raise NoConditionsError
    finally:
        fs.call_s3("delete_object", **place)


def replace(fs: Any, path: str, data: bytes | None, allowed: Callable[[bytes | None], bool]) -> bool:
    """Write an object, or remove it without *data*; tell whether that was done.

    It is only if *allowed* is true of what is there.

    Raises `ChangedAgainError`, and what the driver raises.
    """
    bucket, key, _ = fs.split_path(path)
    place = {"Bucket": bucket, "Key": key}
    for _ in range(_ATTEMPTS):
        # The tag first: what is read after that is as old as the tag, or the condition does not hold.
        try:
            tag = fs.call_s3("head_object", **place)["ETag"]
            there: bytes | None = fs.cat_file(path)
        except FileNotFoundError as error:
            drivers.require_absence(error)
            if drivers.names_missing_container(error):
                raise
            tag = there = None
        if not allowed(there):
            return False
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        operation, body = ("delete_object", {}) if data is None else ("put_object", {"Body": data})
        try:
            fs.call_s3(operation, **place, **body, **condition)
        except Exception as error:
            refused = drivers.status_of(error) in _REFUSED or isinstance(error, FileNotFoundError)
            if not refused or drivers.names_missing_container(error):
                raise
        else:
            return True
    raise ChangedAgainError
