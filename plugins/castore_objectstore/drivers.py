"""The drivers of fsspec that castore knows: what each is called, is given, and can be asked.

What is here is what no driver says of itself: whether its objects have folders, which of its options are
paths, how an object is looked for without a listing, and how it learns not to wait a minute for a machine on
which nobody listens.
"""

from __future__ import annotations

import contextlib
import copy
import re
import socket
import types
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from castore.errors import describe
from castore.places import expand_user
from castore_objectstore.reasons import Complaint, expected_region

Sort: TypeAlias = Literal["bucket", "folder", "web", "memory"]
"""Where objects lie: under keys of a bucket, in folders, on a web server, or in this process."""

CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 30.0
"""How long a machine may take to accept a connection, and to send the next bytes; options may say otherwise.

Most drivers would wait for minutes, or without end.
"""

_GONE: Final = 410
_NOT_FOUND: Final = (404, _GONE)
_HIDDEN: Final = (400, 403, 405, 501)
"""Status codes of a place that is there, and does not show itself."""


@attrs.frozen
class Driver:
    """What castore knows of a driver.

    Attributes:
        package: What `pip` calls it; empty for one that comes with fsspec.
        extra: The extra of castore that has it.
        sort: Where its objects lie.
        options: What it is given unless the config says otherwise.
        paths: Options that are paths of this machine.
    """

    package: str = ""
    extra: str = ""
    sort: Sort = "folder"
    options: Mapping[str, Any] = attrs.field(factory=dict)
    paths: tuple[str, ...] = ()


# A cached listing would answer for objects that others have written or deleted since.
_NO_CACHE: Final = {"use_listings_cache": False}

# Objects are small, and one that is fetched in parts is first asked for its size. One more attempt, within a
# second: what asks more often and more slowly is the type `retry`.
_S3: Final = Driver(
    "s3fs",
    "s3",
    "bucket",
    {
        **_NO_CACHE,
        "max_concurrency": 1,
        "config_kwargs": {
            "retries": {"max_attempts": 1},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENT_SECONDS,
        },
    },
)
_GS: Final = Driver("gcsfs", "gs", "bucket", _NO_CACHE, ("token",))
_AZURE: Final = Driver(
    "adlfs",
    "azure",
    "bucket",
    {**_NO_CACHE, "connection_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS},
)
_SFTP: Final = Driver(
    "paramiko",
    "sftp",
    "folder",
    {"timeout": 10.0, "banner_timeout": 10.0, "auth_timeout": 30.0},
    ("key_filename",),
)
_HTTP: Final = Driver("aiohttp", "http", "web", _NO_CACHE)

_DRIVERS: Final[dict[str, Driver]] = {
    "s3": _S3, "s3a": _S3, "gs": _GS, "gcs": _GS, "abfs": _AZURE, "az": _AZURE, "abfss": _AZURE,
    "sftp": _SFTP, "ssh": _SFTP, "http": _HTTP, "https": _HTTP, "memory": Driver(sort="memory"),
}  # fmt: skip

_LISTS_AT_ONCE: Final = frozenset(_DRIVERS) - {"http", "https"}

UNKNOWN: Final = Driver()
"""Any other one, which is given nothing that the config does not say."""


def driver_of(protocol: str) -> Driver:
    """Return what is known of the driver of a scheme."""
    return _DRIVERS.get(protocol, UNKNOWN)


def protocols_of(url: str) -> list[str]:
    """Return the schemes of a chained URL such as `simplecache::s3://bucket`."""
    return [re.split(r"://|:", part, maxsplit=1)[0] for part in url.split("::")]


def lists_at_once(url: str) -> bool:
    """Tell whether each listing of a place is known to have all that was put before it began.

    So it is in the large object stores, and where a server reads its folder. A cache in a chain may have an
    older listing, and of a driver that castore does not know nobody knows it.
    """
    protocols = protocols_of(url)
    return len(protocols) == 1 and protocols[0].lower() in _LISTS_AT_ONCE


def is_known(protocol: str) -> bool:
    """Tell whether castore names the scheme in its documentation."""
    return protocol in _DRIVERS


def with_defaults(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a driver, with what it is given unless these say otherwise.

    Raises `OSError` if a path begins with `~` and nobody knows that home.
    """
    driver = driver_of(protocol)
    merged = _merged(driver.options, options)
    for name in driver.paths:
        if isinstance(merged.get(name), str):
            merged[name] = expand_user(merged[name])
    return merged


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(defaults))  # Drivers change what they are given.
    for name, value in given.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = _merged(before, value)  # noqa: PLW2901 - the same, with what it lacks
        merged[name] = value
    return merged


def status_of(error: BaseException | None) -> int | None:
    """Return the status of HTTP that an error of a driver, or one that led to it, came with."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(error, "status", None) or getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def names_missing_container(error: BaseException | None) -> bool:
    """Tell whether a driver's error says that there is no bucket, and not only no object."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
        if (code or str(getattr(error, "error_code", ""))) in ("NoSuchBucket", "ContainerNotFound"):
            return True
        error = error.__cause__
    return False


def require_absence(error: Exception) -> None:
    """Raise what is really wrong unless an error says that there is no such file.

    The driver for HTTP takes every failure of a question for a missing file, and what is gone for good for a
    failure.
    """
    if status_of(error) == _GONE:
        return
    if not isinstance(error, FileNotFoundError):
        raise error
    cause = error.__cause__
    if cause is None or status_of(cause) in _NOT_FOUND:
        return
    if isinstance(cause, FileNotFoundError):
        require_absence(cause)
    elif isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp"):
        raise cause


# -- questions --


def look(fs: Any, path: str) -> Mapping[str, Any]:
    """Return what a driver says of an object, in one request; raise `FileNotFoundError` if there is none.

    `fs.info` of the drivers for buckets takes every name that is no object for a folder, and lists it.
    """
    if hasattr(fs, "call_s3"):
        bucket, key, _ = fs.split_path(path)
        found = fs.call_s3("head_object", fs.kwargs, Bucket=bucket, Key=key)
        return {"type": "file", "size": found["ContentLength"], "LastModified": found.get("LastModified")}
    from fsspec.asyn import sync  # noqa: PLC0415 - with the driver

    if hasattr(fs, "_get_object") and hasattr(fs, "split_path"):
        info: Mapping[str, Any] = sync(fs.loop, fs._get_object, path)  # noqa: SLF001 - `info` would list
        return {"type": "file", **info}
    if hasattr(fs, "service_client"):
        properties = sync(fs.loop, _look_at_azure, fs, path)
        return {"type": "file", "size": properties.size, "last_modified": properties.last_modified}
    asked: Mapping[str, Any] = fs.info(path)
    return asked


async def _look_at_azure(fs: Any, path: str) -> Any:
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - with the driver

    container, name, _ = fs.split_path(path)
    async with fs.service_client.get_blob_client(container, name) as client:
        try:
            return await client.get_blob_properties()
        except ResourceNotFoundError as error:
            raise FileNotFoundError(path) from error


def read_tail(fs: Any, path: str, count: int) -> bytes:
    """Return the last bytes of an object, all if it has fewer; raise `FileNotFoundError` if there is none."""
    if hasattr(fs, "call_s3"):
        from fsspec.asyn import sync  # noqa: PLC0415 - with the driver

        data: bytes = sync(fs.loop, _read_tail_of_s3, fs, path, count)
        return data
    size = look(fs, path)["size"]
    end: bytes = fs.cat_file(path, start=max(size - count, 0), end=size) if size else b""
    return end


async def _read_tail_of_s3(fs: Any, path: str, count: int) -> Any:
    bucket, key, _ = fs.split_path(path)
    found = await fs._call_s3(  # noqa: SLF001 - as above
        "get_object", fs.kwargs, Bucket=bucket, Key=key, Range=f"bytes=-{count}"
    )
    async with found["Body"] as body:
        return await body.read()


def has_container(fs: Any, name: str) -> bool:
    """Ask whether there is a bucket. One that may not be looked at is there."""
    try:
        if hasattr(fs, "call_s3"):
            _look_at_bucket_of_s3(fs, name)
        elif hasattr(fs, "_get_object") and hasattr(fs, "_call"):
            from fsspec.asyn import sync  # noqa: PLC0415 - with the driver

            sync(fs.loop, fs._call, "GET", "b/{}", name, json_out=True)  # noqa: SLF001 - as above
        else:
            fs.info(name)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    except Exception as error:
        # The driver of Google's has no class for it.
        if status_of(error) in (401, 403) or str(error).startswith("Forbidden"):
            return True
        raise
    return True


def _look_at_bucket_of_s3(fs: Any, name: str) -> None:
    try:
        fs.call_s3("head_bucket", Bucket=name)
    except Exception as error:
        if status_of(error) not in (301, 307, 400):
            raise
        # An answer to a question without a body has no reason.
        fs.call_s3("list_objects_v2", Bucket=name, MaxKeys=1)
        raise


def has_page(fs: Any, url: str) -> bool:
    """Ask a web server for a folder. One that it does not show is there."""
    try:
        fs.info(url)
    except FileNotFoundError as error:
        if status_of(error.__cause__) in _HIDDEN:
            return True
        require_absence(error)
        return False
    return True


def has_folder(fs: Any, path: str) -> bool:
    """Ask whether there is a folder; raise `NotADirectoryError` for something else of that name."""
    try:
        found = fs.info(path)
    except FileNotFoundError as error:
        require_absence(error)
        return False
    if found["type"] == "file":
        raise NotADirectoryError(f"{path} is a file")
    return True


# -- what is said of errors --


def true_error(fs: Any, path: str, error: Exception) -> Exception:
    """Return what S3 has against a request, which an answer to a question without a body cannot say."""
    if not hasattr(fs, "call_s3") or status_of(error) not in (301, 307, 400, 403):
        return error
    bucket, key, _ = fs.split_path(path)
    try:
        # A single byte of an object, if it can be had against all appearances.
        fs.call_s3("get_object", fs.kwargs, Bucket=bucket, Key=key, Range="bytes=0-0")
    except FileNotFoundError:
        return error
    except Exception as told:  # noqa: BLE001 - whatever it is, it says more
        return told
    return error


def advice_for(fs: Any, error: Exception) -> str:
    """Return what to look at where a bucket cannot be had, empty for other errors and drivers."""
    if hasattr(fs, "call_s3"):
        kwargs = dict(getattr(fs, "client_kwargs", None) or {})
        endpoint = getattr(fs, "endpoint_url", None) or kwargs.get("endpoint_url") or "that of AWS"
        region = kwargs.get("region_name") or "not set"
        complaint = _complaint_of(error)
        if complaint.region == region:
            complaint = attrs.evolve(complaint, region="")
        place = f"the endpoint is {endpoint}, the region {region}"
    elif hasattr(fs, "service_client"):
        complaint = _complaint_of(error)
        place = f"the endpoint is {getattr(fs, 'account_url', None) or fs.service_client.url}"
    else:
        return ""
    return f"{complaint.reason}; {place}" if complaint.reason else ""


def _complaint_of(error: BaseException) -> Complaint:
    """Return what a driver of a bucket, and what led to its error, say."""
    said = []
    response: Mapping[str, Any] = {}
    code = ""
    for link in _chain(error):
        said.append(describe(link))
        found = getattr(link, "response", None)
        if isinstance(found, Mapping) and not response:
            response = found
        told = getattr(link, "error_code", None) or ""
        code = code or str(getattr(told, "value", told))
    inner = response.get("Error", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    text = "\n".join(said)
    region = headers.get("x-amz-bucket-region") or inner.get("Region") or expected_region(text)
    return Complaint(
        text,
        status_of(error),
        str(inner.get("Code") or code),
        str(inner.get("Message") or ""),
        region,
        str(inner.get("ServerTime") or headers.get("date", "")),
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and all that led to it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


# -- connections --


def is_cut_off(fs: Any) -> bool:
    """Tell whether a driver has lost its one connection, which it will not open again by itself."""
    client = getattr(fs, "client", None)
    if not hasattr(client, "get_transport"):
        return False
    transport = client.get_transport()  # type: ignore[union-attr]
    return transport is None or not transport.is_active()


def disconnect(fs: Any) -> None:
    """Close the one connection of a driver that has one."""
    client = getattr(fs, "client", None)
    if hasattr(client, "get_transport"):
        client.close()  # type: ignore[union-attr]


def prepare(fs: Any) -> None:
    """Let a driver not wait: for what nobody has sent yet, or for a machine on which nobody listens."""
    if hasattr(fs, "call_s3"):
        # Its own attempts are around those of the library beneath it: five of each, and more for a body.
        fs.retries = 1
    client = getattr(fs, "client", None)
    if hasattr(client, "get_transport"):
        # Else the last bytes of each answer come 40 ms later: both sides wait for more to send.
        client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # type: ignore[union-attr]
        fs.ftp.get_channel().settimeout(SILENT_SECONDS)
        return
    if hasattr(fs, "service_client"):
        # The driver of Azure's has no option for it.
        policy = getattr(getattr(fs.service_client, "_config", None), "retry_policy", None)
        if policy is not None and hasattr(policy, "connect_retries"):
            policy.connect_retries = 0
        return
    if hasattr(fs, "_get_object") and hasattr(fs, "session_kwargs"):
        with contextlib.suppress(ImportError):
            from aiohttp import ClientTimeout  # noqa: PLC0415 - with the driver

            limits = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            fs.session_kwargs.setdefault("timeout", limits)
    once = getattr(getattr(type(fs), "_request", None), "__wrapped__", None)
    if hasattr(fs, "_get_object") and once is not None:
        with contextlib.suppress(ImportError):
            _fail_fast_at_google(fs, once)


def _fail_fast_at_google(fs: Any, once: Any) -> None:
    from aiohttp import ClientConnectorError  # noqa: PLC0415 - with the driver
    from gcsfs.retry import is_retriable  # noqa: PLC0415 - as above

    patiently = fs._request  # noqa: SLF001 - there is no option for it

    async def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await once(self, *args, **kwargs)
        except ClientConnectorError:
            raise
        except Exception as error:
            if not is_retriable(error):
                raise
        return await patiently(*args, **kwargs)

    fs._request = types.MethodType(request, fs)  # noqa: SLF001 - as above
