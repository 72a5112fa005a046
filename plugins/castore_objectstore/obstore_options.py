"""From the URL and the options of a bucket to what obstore is given; the names of both drivers are known.

Options are written as s3fs or adlfs, or the reference, or obstore itself call them. An option that obstore
has no counterpart for is told by its name: then only fsspec does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import attrs

from castore.places import expand_user
from castore.urls import split_query

Kind: TypeAlias = Literal["s3", "azure"]

KINDS: Final[dict[str, Kind]] = {"s3": "s3", "s3a": "s3", "abfs": "azure", "abfss": "azure", "az": "azure"}
"""The schemes that obstore serves here."""

Place: TypeAlias = tuple[Literal["config", "client", "none"], str]

_CLIENT: Final[dict[str, type]] = {
    "allow_http": object,
    "allow_invalid_certificates": bool,
    "connect_timeout": float,
    "read_timeout": float,
    "http1_only": bool,
    "pool_max_idle_per_host": int,
    "proxy_url": str,
    "proxy_ca_certificate": str,
    "proxy_excludes": str,
    "root_certificate": str,
    "user_agent": str,
}
"""Options of connections. `root_certificate` is the path of a file; `allow_http` is not needed."""

_S3: Final[dict[str, type]] = {
    "access_key_id": str,
    "secret_access_key": str,
    "session_token": str,
    "region": str,
    "default_region": str,
    "endpoint": str,
    "skip_signature": bool,
    "checksum_algorithm": str,
    "container_authorization_token_file": str,
    "container_credentials_full_uri": str,
    "container_credentials_relative_uri": str,
    "disable_bulk_delete": bool,
    "disable_tagging": bool,
    "imdsv1_fallback": bool,
    "metadata_endpoint": str,
    "request_payer": bool,
    "role_arn": str,
    "role_session_name": str,
    "s3_express": bool,
    "server_side_encryption": str,
    "sse_bucket_key_enabled": bool,
    "sse_customer_key_base64": str,
    "sse_kms_key_id": str,
    "sts_endpoint": str,
    "unsigned_payload": bool,
    "virtual_hosted_style_request": bool,
    "web_identity_token_file": str,
}

_AZURE: Final[dict[str, type]] = {
    "account_name": str,
    "account_key": str,
    "client_id": str,
    "client_secret": str,
    "tenant_id": str,
    "sas_key": str,
    "token": str,
    "endpoint": str,
    "authority_host": str,
    "federated_token_file": str,
    "msi_endpoint": str,
    "object_id": str,
    "msi_resource_id": str,
    "use_azure_cli": bool,
    "use_emulator": bool,
    "skip_signature": bool,
    "disable_tagging": bool,
}

_OTHER_NAMES: Final[dict[Kind, dict[str, Place]]] = {
    "s3": {
        "key": ("config", "access_key_id"),
        "secret": ("config", "secret_access_key"),
        "token": ("config", "session_token"),
        "anon": ("config", "skip_signature"),
        "endpoint_url": ("config", "endpoint"),
        "aws_endpoint_url": ("config", "endpoint"),
        "region_name": ("config", "region"),
        "user_agent_extra": ("client", "user_agent"),
    },
    "azure": {
        "anon": ("config", "skip_signature"),
        "sas_token": ("config", "sas_key"),
        "connection_timeout": ("client", "connect_timeout"),
        "connection_string": ("none", "connection_string"),
        "account_host": ("none", "account_host"),
    },
}
"""Names of fsspec's drivers, and of the reference, that are not obstore's with `aws_` or `azure_` before."""

_NESTED: Final = {"client_kwargs": ("region_name", "endpoint_url", "verify"), "config_kwargs": (
    "user_agent_extra", "connect_timeout", "read_timeout"
)}  # fmt: skip
"""Tables of s3fs, and what is known of them."""

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")
_AWS_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_AWS_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_AWS_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_AZURITE: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azure's emulator: printed in its manual."""


class CannotError(Exception):
    """A bucket, or an option, that castore cannot have by way of obstore; the message says which one."""


@attrs.frozen
class Bucket:
    """What a store of obstore is made of.

    Attributes:
        kind: Whose protocol it is.
        name: The bucket, or container.
        prefix: What all keys begin with, without slashes at its ends.
        config: What the class of the store is given; it may have secrets.
        client: The options of its connections.
    """

    kind: Kind
    name: str
    prefix: str
    config: dict[str, Any] = attrs.field(repr=False)
    client: dict[str, Any] = attrs.field(repr=False)

    @property
    def endpoint(self) -> str | None:
        """The address of the server, `None` for that of AWS or Azure."""
        found: str | None = self.config.get("endpoint")
        return found

    @property
    def has_keys(self) -> bool:
        """Whether credentials stand in the options, or none are wanted."""
        if self.config.get("skip_signature"):
            return True
        if self.kind == "s3":
            return "access_key_id" in self.config
        names = ("account_key", "sas_key", "token", "client_secret", "use_emulator")
        return any(name in self.config for name in names)


def kind_of(url: str) -> Kind | None:
    """Return whose protocol a URL means, `None` if obstore does not serve it here."""
    return None if "::" in url else KINDS.get(url.partition(":")[0].lower())


def known_options(kind: Kind) -> dict[str, type | None]:
    """Return the names of all options, and what their values are.

    That is `None` for a table, and `object` for anything.
    """
    own = _S3 if kind == "s3" else _AZURE
    prefix = "aws_" if kind == "s3" else "azure_"
    known: dict[str, type | None] = dict(own)
    known |= {prefix + name: sort for name, sort in own.items()}
    known |= {"aws_allow_http": object} if kind == "s3" else {}
    known |= _CLIENT
    known |= {name: bool if name == "anon" else str for name in _OTHER_NAMES[kind]}
    known["connection_timeout" if kind == "azure" else "connect_timeout"] = float
    return known | (dict.fromkeys(_NESTED) if kind == "s3" else {})


def read_bucket(url: str, options: Mapping[str, Any]) -> Bucket:
    """Return what a store of obstore is made of; raise `CannotError` if there is none for it."""
    kind = kind_of(url)
    if kind is None:
        raise CannotError("obstore serves `s3:` and `abfs:` here, and no chains")
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in _flat(kind, options):
        where, place = _place_of(kind, name)
        table = {"config": config, "client": client, "none": extra}[where]
        table[place] = str(value) if isinstance(value, str) else value
    name, prefix = _parted(kind, url, config)
    if kind == "azure":
        _read_azure(config, extra)
    else:
        _read_s3(config)
    if verify := extra.get("verify"):
        client["root_certificate"] = verify
    elif verify is False:
        client["allow_invalid_certificates"] = True
    for path in ("root_certificate", "proxy_ca_certificate"):
        if path in client:
            client[path] = _certificate(client[path])
    client["allow_http"] = str(config.get("endpoint", "")).startswith("http:")
    return Bucket(kind, name, prefix, config, client)


def _flat(kind: Kind, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield options, those of known tables by themselves."""
    for name, value in options.items():
        if value is None:
            continue
        inner = _NESTED.get(name) if kind == "s3" else None
        if inner is None:
            yield name, value
            continue
        if not isinstance(value, Mapping):
            raise CannotError(f"`{name}` is no table")
        for key, entry in value.items():
            if key not in inner:
                raise CannotError(f"obstore has nothing like the option `{name}.{key}`")
            yield key, entry


def _place_of(kind: Kind, name: str) -> Place:
    if kind == "s3" and name == "verify":
        return "none", name
    own, prefix = (_S3, "aws_") if kind == "s3" else (_AZURE, "azure_")
    if name in _OTHER_NAMES[kind]:
        return _OTHER_NAMES[kind][name]
    bare = name.removeprefix(prefix)
    if bare in own:
        return "config", "region" if bare == "default_region" else bare
    if bare in _CLIENT:
        return "client", bare
    raise CannotError(f"obstore has nothing like the option `{name}`")


def _parted(kind: Kind, url: str, config: dict[str, Any]) -> tuple[str, str]:
    """Return the bucket and the prefix in a URL."""
    base, _ = split_query(url)
    host, _, path = base.partition("://")[2].partition("/")
    name, at, server = host.partition("@")
    if at and kind == "azure":
        account = server.partition(".")[0]
        if config.setdefault("account_name", account) != account:
            raise CannotError("the URL says another `account_name` than the options")
        if not server.endswith((".core.windows.net",)):
            raise CannotError("the URL names a host of its own")
    elif at or not _BUCKET.fullmatch(name):
        raise CannotError(f"obstore has no buckets with names like `{name}`")
    prefix = path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise CannotError("obstore knows no keys with empty parts, `.` or `..`")
    return name, prefix


def _read_s3(config: dict[str, Any]) -> None:
    if ("access_key_id" in config) != ("secret_access_key" in config):
        raise CannotError("obstore needs both an access key and its secret, or none")
    if "endpoint" not in config and (found := _first(_AWS_ENDPOINTS)):
        config["endpoint"] = found
    if "region" not in config and (found := _first(_AWS_REGIONS)):
        config["region"] = found
    if "endpoint" in config:
        config.setdefault("region", "us-east-1")
        config["endpoint"] = config["endpoint"].rstrip("/")


def _read_azure(config: dict[str, Any], extra: dict[str, Any]) -> None:
    if text := extra.get("connection_string"):
        fields = dict(part.split("=", 1) for part in str(text).split(";") if "=" in part)
        if fields.get("UseDevelopmentStorage", "").lower() == "true":
            fields = {
                "AccountName": "devstoreaccount1",
                "AccountKey": _AZURITE,
                "BlobEndpoint": "http://127.0.0.1:10000/devstoreaccount1",
            }
        names = {"AccountName": "account_name", "AccountKey": "account_key", "BlobEndpoint": "endpoint",
                 "SharedAccessSignature": "sas_key"}  # fmt: skip
        known = {*names, "DefaultEndpointsProtocol", "EndpointSuffix"} | {
            f"{service}Endpoint" for service in ("Queue", "Table", "File")
        }
        if unknown := fields.keys() - known:
            raise CannotError(f"obstore has nothing like `{min(unknown)}` of the connection string")
        for name, place in names.items():
            if name in fields:
                config.setdefault(place, fields[name])
        if "EndpointSuffix" in fields and "BlobEndpoint" not in fields:
            scheme = fields.get("DefaultEndpointsProtocol", "https")
            config["endpoint"] = f"{scheme}://{config.get('account_name')}.blob.{fields['EndpointSuffix']}"
    if host := extra.get("account_host"):
        config["endpoint"] = f"https://{host}"
    if "endpoint" in config:
        config["endpoint"] = config["endpoint"].rstrip("/")
    if "account_name" not in config:
        raise CannotError("obstore needs the `account_name`")


def _certificate(path: Any) -> bytes:
    try:
        return Path(expand_user(str(path))).read_bytes()
    except OSError as error:
        raise CannotError(f"{error.strerror}: {path}") from error


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def finds_less(bucket: Bucket) -> str | None:
    """Return why the driver of fsspec may find what obstore does not, `None` if it cannot.

    Credentials in the files of other tools, single sign-on and the region of a bucket are what the libraries
    of AWS and Azure find, and obstore does not.
    """
    if bucket.kind == "s3":
        keys = all(os.environ.get(name) for name in _AWS_KEYS) and not os.environ.get("AWS_PROFILE")
        if not bucket.has_keys and not keys:
            return "no credentials stand in the options or the environment"
        if bucket.endpoint is None and "region" not in bucket.config:
            return "no region is set"
        return None
    return None if bucket.has_keys else "no credentials stand in the options"
