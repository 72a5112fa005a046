"""Objects in a bucket of S3's or Azure's, by obstore: requests that are made outside of Python."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import secrets as randomness
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    NotSupportedError,
    PreconditionError,
)
from obstore.store import AzureStore, S3Store

from castore import owned
from castore.errors import CastoreError, UnsupportedError
from castore.threads import forks
from castore.threads.deadlines import Deadlines
from castore.urls import masked
from castore_objectstore.drivers import CONNECT_SECONDS, SILENT_SECONDS
from castore_objectstore.far_store import FRESH_SECONDS, FarObjectStore
from castore_objectstore.object_store import LARGEST, ObjectStore, StoredObject, TooLargeError
from castore_objectstore.obstore_options import Bucket
from castore_objectstore.reasons import Complaint, parse_answer

P = ParamSpec("P")
T = TypeVar("T")

_PIECE: Final = 1 << 20
_PAGE: Final = 1000
"""How many objects a listing is asked for at a time, and how many are deleted by one request."""

_ENTIRE_SECONDS: Final = 3600.0
"""How long an answer may take from its beginning to its end, however it comes."""

_SLOWEST: Final = 100_000
"""Bytes that are sent in a second, at least: an upload that is slower is given up."""

_SMALLEST: Final = 1 << 20
"""Uploads up to so many bytes share their connections; then up to four times as many, and so on."""

_ATTEMPTS: Final = 8
"""How often an object is looked at that others change meanwhile."""

_NO_TAG: Final = '"00000000000000000000000000000000"'

_RETRIES: Final[Any] = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}
"""One more attempt, within a second: what asks more often and more slowly is the type `retry`."""

_STATUS: Final = re.compile(r"status code: (\d{3})|status: (\d{3}),")
_NO_CONTAINER: Final = re.compile(r"<Code>(NoSuchBucket|ContainerNotFound)</Code>")
_DEBUG: Final = "\n\nDebug source:"

_begun_in: int | None = None
"""The generation of forks in which obstore has started its threads, which no child has."""


def _in_child_by_another(
    method: Callable[Concatenate[ObstoreObjectStore, P], T],
) -> Callable[Concatenate[ObstoreObjectStore, P], T]:
    """Let another driver do what obstore cannot do in a child of a fork."""

    @functools.wraps(method)
    def call(self: ObstoreObjectStore, *args: P.args, **kwargs: P.kwargs) -> T:
        other = self._in_place_of_this()
        if other is None:
            return self._interruptible(lambda: method(self, *args, **kwargs))
        found: T = getattr(other, method.__name__)(*args, **kwargs)
        return found

    return cast("Callable[Concatenate[ObstoreObjectStore, P], T]", call)


class ObstoreObjectStore(FarObjectStore):
    """Objects under the prefix of a bucket, which is opened when it is first used.

    Its threads are not those of Python, and do not live on in a child of a fork: there the store uses
    *other*, the same bucket by another driver, or raises `UnsupportedError`.
    """

    high_latency = True
    lists_at_once = True
    route = "obstore"

    def __init__(
        self,
        url: str,
        bucket: Bucket,
        *,
        instance: str,
        secrets: Sequence[str] = (),
        fresh_seconds: float = FRESH_SECONDS,
        other: Callable[[], ObjectStore] | None = None,
    ) -> None:
        super().__init__(url, instance, secrets, fresh_seconds)
        self._bucket = bucket
        # A directory bucket is listed in no order.
        self.lists_in_order = bucket.kind == "s3" and not bucket.config.get("s3_express")
        self._lock = forks.new_lock()
        self._stores: dict[int, Any] = {}
        """The opened ones, by how much may be sent through them; 0 is for all else than uploads."""
        self._place_seen = False
        self._heeds_conditions = False
        self._replacing = forks.new_lock()
        self._calls = Deadlines(instance)
        self._make_other = other
        self._other: ObjectStore | None = None
        forks.begin_anew_in_child(self)

    def begin_anew(self) -> None:
        """Open the bucket anew, in a child of a fork: connections are the parent's."""
        # What is freed here would talk to threads that are not there.
        _left.append(self._stores)
        self._stores = {}

    def _interruptible(self, call: Callable[[], T]) -> T:
        """Do what obstore would let no signal into, by another thread if this is the one that gets them."""
        if threading.current_thread() is not threading.main_thread():
            return call()
        return self._calls.start(call).result()

    def _in_place_of_this(self) -> ObjectStore | None:
        if _begun_in is None or _begun_in == forks.generation():
            return None
        with self._lock:
            if self._other is None:
                if self._make_other is None:
                    raise UnsupportedError(
                        f"`{self._instance}`: {masked(self._url)}"
                        " cannot be used by obstore in a process that was forked after"
                        " obstore was used: start processes by `spawn` or `forkserver`, or"
                        ' write `driver = "fsspec"`'
                    )
                self._other = self._make_other()
            return self._other

    # -- objects --

    @_in_child_by_another
    def read_into(self, key: str, take: Callable[[bytes], object], most: int = LARGEST) -> bool:
        """Read an object with one request."""
        with self._using(key) as (store, path):
            try:
                found = obstore.get(store, path)
            except FileNotFoundError as error:
                self._require_absence(error)
                return False
            size = found.meta["size"]
            if size > most:
                raise TooLargeError(most)
            if size <= _PIECE:
                pieces = [bytes(found.bytes())] if size else []
            else:
                pieces = (bytes(piece) for piece in found.stream(min_chunk_size=_PIECE))  # type: ignore[assignment]
            came = 0
            for piece in pieces:
                came += len(piece)
                if came > most:
                    raise TooLargeError(most)
                take(piece)
            if came != size:
                raise self._unavailable(f"{came} bytes came of the {size} of {key}")
            self._place_seen = True
            return True

    @_in_child_by_another
    def get_range(self, key: str, offset: int, count: int) -> bytes | None:
        """Read a part of an object with one request; a server that knows no parts is borne with."""
        if count <= 0:
            return b"" if self.exists(key) else None
        with self._using(key) as (store, path):
            try:
                data = bytes(obstore.get_range(store, path, start=offset, length=count))
            except FileNotFoundError as error:
                self._require_absence(error)
                return None
            except Exception as error:
                if _is_beyond(error):
                    return b""
                if not _is_whole(error):
                    raise
                data = (super().get_range(key, offset, count)) or b""
            if len(data) > count:
                raise self._unavailable(f"{len(data)} bytes came of the {count} that were asked for of {key}")
            self._place_seen = True
            return data

    @_in_child_by_another
    def get_tail(self, key: str, count: int) -> bytes | None:
        """Read the end of an object, with one request where the server counts from there."""
        if self._bucket.kind == "s3":
            with self._using(key) as (store, path):
                try:
                    found = obstore.get(store, path, options={"range": {"suffix": count}})
                    data = bytes(found.bytes())
                except FileNotFoundError as error:
                    self._require_absence(error)
                    return None
                except Exception as error:
                    if not (_is_whole(error) or _is_beyond(error)):
                        raise
                else:
                    self._place_seen = True
                    return data[-count:]
        found_there = self.describe(key)
        if found_there is None or found_there.size is None:
            return None
        offset = max(found_there.size - count, 0)
        return self.get_range(key, offset, found_there.size - offset)

    @_in_child_by_another
    def describe(self, key: str) -> StoredObject | None:
        """Return what the server says of an object."""
        with self._using(key) as (store, path):
            try:
                found = obstore.head(store, path)
            except FileNotFoundError as error:
                self._require_absence(error)
                return None
            except Exception as error:
                if _status_of(str(error)) not in (301, 307, 400, 403):
                    raise
                # An answer to a question without a body has no reason.
                raise self._true_error(store, path, error) from None
            self._place_seen = True
            return StoredObject(key, found["size"], found["last_modified"].timestamp())

    def _true_error(self, store: Any, path: str, error: Exception) -> Exception:
        try:
            obstore.get_range(store, path, start=0, length=1)
        except FileNotFoundError:
            return error
        except Exception as told:  # noqa: BLE001 - whatever it is, it says more
            return told
        return error

    @_in_child_by_another
    def put(self, key: str, data: bytes) -> None:
        """Store an object by one request, which shows it when it is complete."""
        with self._using(key, sends=len(data)) as (store, path):
            obstore.put(store, path, data, use_multipart=False)
            self._place_seen = True

    @_in_child_by_another
    def list(
        self,
        prefix: str,
        *,
        after: str | None = None,
        into: Callable[[str], bool] = owned.has_some_digests,  # noqa: ARG002 - a bucket has no folders
    ) -> Iterator[StoredObject]:
        """Yield what is there; with *after* the server leaves out what comes before."""
        offset = None if after is None else self._path(after)
        skipped = len(self._path(""))
        pages = None
        again = True
        while True:
            # Nothing of the caller's is in between: what it raises is no error of the server's.
            with self._using(prefix.rstrip("/")) as (store, path):
                pages = pages or obstore.list(store, path, offset=offset, chunk_size=_PAGE)
                try:
                    page = self._interruptible(partial(next, pages, None))
                except Exception as error:
                    # Requests are repeated by obstore, but not one whose answer breaks off.
                    if not again or "body error" not in str(error):
                        raise
                    pages, again = None, False
                    continue
            self._place_seen = True
            if not page:
                return
            offset, again = page[-1]["path"], True
            for entry in page:
                key = entry["path"][skipped:]
                yield StoredObject(key, entry["size"], entry["last_modified"].timestamp())

    @_in_child_by_another
    def list_between(self, prefix: str, first: str, before: str | None) -> Iterator[StoredObject]:
        """Yield what is there; a server of S3's begins at *first*, and is asked no more beyond *before*."""
        return super().list_between(prefix, first, before)

    def list_below(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all objects."""
        for entry in self.list(prefix):
            yield entry.key

    @_in_child_by_another
    def check_usable(self) -> None:
        """Raise `UnavailableError` if there is no such bucket."""
        self._require_place()

    def _remove(self, key: str) -> None:
        self._remove_all([key])

    @_in_child_by_another
    def _remove_all(self, keys: Sequence[str]) -> None:
        for begin in range(0, len(keys), _PAGE):
            some = keys[begin : begin + _PAGE]
            with self._using(some[0]) as (store, _):
                try:
                    obstore.delete(store, [self._path(key) for key in some])
                except FileNotFoundError as error:
                    self._require_absence(error)
                    if len(some) == 1:
                        continue
                    # Which one it was, and what was done with the others, is not told.
                    for key in some:
                        with contextlib.suppress(FileNotFoundError):
                            obstore.delete(store, [self._path(key)])

    @_in_child_by_another
    def _move(self, key: str, target: str) -> None:
        with self._using(key) as (store, path):
            obstore.copy(store, path, self._path(target))
            obstore.delete(store, [path])

    def close(self) -> None:
        """Let go of connections; they are opened again when they are needed."""
        if self._other is not None:
            self._other.close()
        self._stores = {}
        self._calls.close()

    # -- names that are set anew --

    @_in_child_by_another
    def replace(
        self, key: str, data: bytes | None, allowed: Callable[[bytes | None], bool] | None = None
    ) -> bool:
        """Replace or remove an object by a request with a condition."""
        if allowed is None:
            with self._replacing:
                return self._replace_now(key, data)
        with self._using(key, sends=len(data or b"")) as (store, path):
            if not self._heeds_conditions:
                self._require_heeded(store, self._path(f"refs/{randomness.token_hex(8)}.trial"))
                self._heeds_conditions = True
            for _ in range(_ATTEMPTS):
                there, tag = self._look_and_read(store, path)
                if not allowed(there):
                    return False
                if data is None and tag is None:
                    return False
                if self._set_if(store, path, data, tag):
                    return True
            raise self._unavailable("others change it all the time")

    def _look_and_read(self, store: Any, path: str) -> tuple[bytes | None, str | None]:
        """Return what is there, and its tag; both come with one answer."""
        try:
            found = obstore.get(store, path)
            return bytes(found.bytes()), found.meta["e_tag"]
        except FileNotFoundError as error:
            self._require_absence(error)
            return None, None

    def _set_if(self, store: Any, path: str, data: bytes | None, tag: str | None) -> bool:
        """Replace, make or remove an object whose tag is *tag*; tell whether it was that."""
        try:
            if data is None:
                return self._delete_if(store, path, tag or _NO_TAG)
            mode: Any = "create" if tag is None else {"e_tag": tag}
            obstore.put(store, path, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except FileNotFoundError as error:
            # What was there has gone, or the bucket has.
            self._require_absence(error)
            return False
        except Exception as error:
            if _status_of(str(error)) == http.client.CONFLICT:
                return False
            raise
        return True

    def _delete_if(self, store: Any, path: str, tag: str) -> bool:
        """Delete an object with a condition, which obstore has no argument for: it signs the request."""
        signed = obstore.sign(store, "DELETE", path, timedelta(minutes=5))
        answer, body = self._ask("DELETE", signed, {"If-Match": tag})
        if answer.status in (404, 409, 412):
            if _NO_CONTAINER.search(body):
                raise self._no_bucket(self._bucket.name)
            return False
        if answer.status >= http.client.BAD_REQUEST:
            raise self._unavailable(
                f"the server answers a conditional delete by {answer.status}: {body[:200]}"
            )
        return True

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, str]:
        """Make one request by Python's own client, over TLS as the options say."""
        parts = urlsplit(url)
        connection: http.client.HTTPConnection
        seconds = float(self._bucket.client.get("connect_timeout", CONNECT_SECONDS))
        if parts.scheme == "https":
            certificate = self._bucket.client.get("root_certificate")
            context = ssl.create_default_context(cadata=certificate.decode() if certificate else None)
            if self._bucket.client.get("allow_invalid_certificates"):
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection = http.client.HTTPSConnection(parts.netloc, timeout=seconds, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
        with contextlib.closing(connection):
            place = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, place, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read(64 << 10).decode("utf-8", "replace")

    def _require_heeded(self, store: Any, path: str) -> None:
        """Raise `UnsupportedError` if the server does what a condition forbids, or not what one allows."""
        tag = obstore.put(store, path, b"castore", use_multipart=False)["e_tag"]
        try:
            for data, condition in ((b"", None), (b"", _NO_TAG), (None, _NO_TAG)):
                if self._set_if(store, path, data, condition):
                    raise self._cannot_compare("the server passes over what a request is to depend on")
            if not self._set_if(store, path, b"castore", tag):
                raise self._cannot_compare("the server refuses what a condition allows")
        except CastoreError:
            raise
        except NotImplementedError as error:
            raise self._cannot_compare("its driver has no requests with a condition") from error
        except Exception as error:
            if _status_of(str(error)) in (405, 501):
                raise self._cannot_compare("the server has no requests with a condition") from error
            raise
        finally:
            with contextlib.suppress(Exception):
                obstore.delete(store, [path])

    # -- the place of it all --

    def _require_absence(self, error: FileNotFoundError) -> None:
        """Raise what is really wrong, if it is that there is no bucket; that is asked for once."""
        if _NO_CONTAINER.search(str(error)):
            raise self._no_bucket(self._bucket.name) from error
        if not self._place_seen:
            self._require_place()

    def _require_place(self) -> None:
        with self._using("") as (store, _):
            try:
                # There is no question for a bucket. One that may not be listed is there.
                next(iter(obstore.list(store, self._path("")[:-1] or None, chunk_size=1)), None)
            except Exception as error:
                if _complaint(error).code != "AccessDenied":
                    raise
        self._place_seen = True

    # -- requests --

    def _path(self, key: str) -> str:
        return f"{self._bucket.prefix}/{key}" if self._bucket.prefix else key

    @contextlib.contextmanager
    def _using(self, key: str, *, sends: int = 0) -> Iterator[tuple[Any, str]]:
        """Give the store and the full path of *key*; turn what is raised into castore's errors."""
        try:
            yield self._open(sends), self._path(key)
        except (CastoreError, TooLargeError):
            raise
        except Exception as error:
            raise self._told(error) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            # A mistake in what is not Python, which ends this request and nothing else.
            raise self._unavailable(f"obstore: {error}") from None

    def _told(self, error: Exception) -> CastoreError:
        if isinstance(error, (NotSupportedError, NotImplementedError)):
            return self._unsupported(_said(error))
        complaint = _complaint(error)
        if _NO_CONTAINER.search(complaint.text):
            return self._no_bucket(self._bucket.name)
        if complaint.status in (301, 307, 400) and not complaint.region:
            complaint = self._with_region(complaint)
        return self._unavailable(_said(error), self._advice(complaint))

    def _advice(self, complaint: Complaint) -> str:
        reason = complaint.reason
        if not reason:
            return ""
        endpoint = self._bucket.endpoint or ("that of AWS" if self._bucket.kind == "s3" else "that of Azure")
        region = (
            f", the region {self._bucket.config.get('region', 'not set')}"
            if self._bucket.kind == "s3"
            else ""
        )
        return f"{reason}; the endpoint is {endpoint}{region}"

    def _with_region(self, complaint: Complaint) -> Complaint:
        """Ask where a bucket is: the headers of an answer, which obstore does not show, tell."""
        import attrs  # noqa: PLC0415 - where something is wrong

        endpoint = self._bucket.endpoint or "https://s3.amazonaws.com"
        try:
            answer, _ = self._ask("HEAD", f"{endpoint}/{self._bucket.name}", {})
        except Exception:  # noqa: BLE001 - then there is less to say
            return complaint
        region = answer.getheader("x-amz-bucket-region") or ""
        return attrs.evolve(complaint, region="" if region == self._bucket.config.get("region") else region)

    def _open(self, sends: int) -> Any:
        """Return a store whose requests have the time that so many bytes need."""
        global _begun_in  # noqa: PLW0603 - there is one process
        size = 0
        if sends > 0:
            size = _SMALLEST
            while size < sends:
                size *= 4
        store = self._stores.get(size)
        if store is None:
            with self._lock:
                store = self._stores.get(size)
                if store is None:
                    store = self._stores[size] = self._open_now(size)
        if _begun_in is None:
            _begun_in = forks.generation()
        return store

    def _open_now(self, size: int) -> Any:
        client = dict(self._bucket.client)
        silent = float(client.pop("read_timeout", SILENT_SECONDS))
        client["connect_timeout"] = timedelta(seconds=float(client.pop("connect_timeout", CONNECT_SECONDS)))
        if size:
            # An answer is waited for from when the request begins: so it has the time of the upload as well.
            client["timeout"] = timedelta(seconds=silent + size / _SLOWEST)
        else:
            client["timeout"] = timedelta(seconds=_ENTIRE_SECONDS)
            client["read_timeout"] = timedelta(seconds=silent)
        made: Any = S3Store if self._bucket.kind == "s3" else AzureStore
        config = dict(self._bucket.config)
        more: dict[str, Any] = {}
        if "access_key_id" in config and "session_token" not in config and "AWS_SESSION_TOKEN" in os.environ:
            # Else the token in the environment, which is that of another key, would go with this one.
            keys = {name: config.pop(name) for name in ("access_key_id", "secret_access_key")}
            more["credential_provider"] = lambda: {**keys, "token": None, "expires_at": None}
        return made(self._bucket.name, config=config, client_options=client, retry_config=_RETRIES, **more)


_left: Final[list[Any]] = []
"""What the parent of a fork has open."""


def _said(error: Exception) -> str:
    """Return the first words of an error: what a server says, or else what obstore does."""
    complaint = _complaint(error)
    if complaint.message:
        return f"{complaint.code}: {complaint.message}" if complaint.code else complaint.message
    if complaint.status == http.client.MOVED_PERMANENTLY:
        return "the server sends its clients elsewhere"
    first = str(error).partition(_DEBUG)[0].strip()
    # In between are the names of its parts, and how long each attempt took.
    cause = re.search(r"Server returned non-2xx status code: (.*)|HTTP error: (.*)", first, re.DOTALL)
    if cause:
        first = next(filter(None, cause.groups()))
    return " ".join(first.split()).rstrip(": ")


def _complaint(error: Exception) -> Complaint:
    text = str(error)
    return parse_answer(text, _status_of(text))


def _status_of(text: str) -> int | None:
    if "redirect without LOCATION" in text:
        return http.client.MOVED_PERMANENTLY
    found = _STATUS.search(text)
    return int(found[1] or found[2]) if found else None


def _is_beyond(error: Exception) -> bool:
    """Tell whether an object ends before the part of it that was asked for."""
    text = str(error)
    return _status_of(text) == http.client.REQUESTED_RANGE_NOT_SATISFIABLE or "WantedRangeBeyond" in text


def _is_whole(error: Exception) -> bool:
    """Tell whether a server answers with the whole of an object where a part was asked for."""
    return "non-partial response" in str(error) or isinstance(error, NotSupportedError)
