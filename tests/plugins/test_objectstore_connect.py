"""`castore check --connect` on buckets: one line says what is wrong, by either driver."""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import json
import os
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from castore.cli.app import app
from tests.plugins.s3_server import S3Server

if not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "obstore", "cryptography")):
    pytest.skip("needs moto[s3,server], s3fs, obstore and cryptography", allow_module_level=True)

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.plugins.moto_servers import moto_server

DRIVERS = ("fsspec", "obstore")
SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Neither the files nor the machine of whoever runs the tests have credentials.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def check(driver: str, folder: Path, *, bucket: str = "bucket", **options: Any) -> tuple[int, str]:
    """Run the command; return its exit code, and what it says of the bucket."""
    given = {
        "aws_access_key_id": "an-id",
        "aws_secret_access_key": SECRET,
        "aws_region": "us-east-1",
        "config_kwargs": {"connect_timeout": 2, "read_timeout": 0.5},
    } | options
    table = "\n".join(
        f"{name} = {{ {', '.join(f'{key} = {json.dumps(entry)}' for key, entry in value.items())} }}"
        if isinstance(value, dict)
        else f"{name} = {json.dumps(value)}"
        for name, value in given.items()
        if value is not None
    )
    path = folder / "composition.toml"
    path.write_text(
        f'[blobservices.root]\ntype = "objectstore"\nobject_store_url = "s3://{bucket}/pre"\n'
        f'driver = "{driver}"\n[blobservices.root.object_store_options]\n{table}\n'
    )
    run = CliRunner().invoke(app, ["--composition", str(path), "check", "--connect"])
    lines = run.stdout.splitlines()
    assert len(lines) == 2, run.stdout
    assert run.stderr == ""
    assert SECRET not in run.stdout
    return run.exit_code, lines[1]


# -- a server that knows its users --


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """One of moto's that checks signatures and rights; and the keys of two users by their names."""
    with moto_server() as endpoint:
        yield from _with_users(endpoint)


def _with_users(endpoint: str) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    any_key = {"aws_access_key_id": "an-id", "aws_secret_access_key": SECRET}
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **any_key)
    iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1", **any_key)
    s3.create_bucket(Bucket="bucket")
    keys = {}
    for name, actions in {"all": ["s3:*"], "nothing": ["ec2:*"]}.items():
        iam.create_user(UserName=name)
        rights = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [rights]}
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
    s3.close()
    iam.close()

    def guard_after(requests: int) -> None:
        place, kind = f"{endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        asked = urllib.request.Request(place, f"{requests}".encode(), kind, method="POST")
        urllib.request.urlopen(asked, timeout=10).close()

    guard_after(0)
    yield endpoint, keys
    guard_after(10**9)


# The user, what is wrong with the secret, the bucket, and what is said.
USERS = {
    "right": ("all", "", "bucket", "ok, by {driver}"),
    "another secret": ("all", "x", "bucket", "credentials: the secret does not belong to the access key"),
    "an unknown key": ("", "", "bucket", "credentials: the server does not know this access key"),
    "no rights": ("nothing", "", "bucket", "permissions: these credentials may not do that"),
    "no bucket": ("all", "", "nobucket", "there is no bucket `nobucket` there"),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("case", USERS)
def test_credentials_and_rights(
    guarded: tuple[str, dict[str, tuple[str, str]]], tmp_path: Path, case: str, driver: str
) -> None:
    endpoint, keys = guarded
    user, wrong, bucket, said = USERS[case]
    key, secret = keys.get(user, ("AKIAIOSFODNN7EXAMPLE", SECRET))
    code, line = check(
        driver,
        tmp_path,
        bucket=bucket,
        aws_access_key_id=key,
        aws_secret_access_key=secret + wrong,
        aws_endpoint_url=endpoint,
    )
    assert said.format(driver=driver) in line
    assert code == (0 if case == "right" else 1)
    assert secret not in line


def test_no_credentials_at_all(tmp_path: Path) -> None:
    """s3fs looks for them in many places, and says that there were none."""
    code, line = check(
        "fsspec",
        tmp_path,
        aws_access_key_id=None,
        aws_secret_access_key=None,
        aws_endpoint_url="http://127.0.0.1:9",
    )
    assert (code, "credentials: none were found" in line) == (1, True), line


# -- the way to it --


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which somebody listens, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_endpoint(tmp_path: Path, silent: str, driver: str) -> None:
    for endpoint, said in {
        "http://127.0.0.1:9": "endpoint: nobody listens there",
        "http://no-such-machine.invalid": "endpoint: no machine has that name",
        silent: "endpoint: no answer in time",
    }.items():
        code, line = check(driver, tmp_path, aws_endpoint_url=endpoint)
        assert (code, said in line, f"the endpoint is {endpoint}" in line) == (1, True, True), line


# -- what the server says of the region, and of the time --


@attrs.frozen
class Refusal:
    """An answer, with what S3 sends, and what is said of it."""

    status: int
    code: str
    message: str
    said: str
    more: str = ""
    region: str = ""
    skew: float = 0.0
    """Seconds that the clock of the server is ahead; some of them pass until it is asked."""


def iso(seconds: float) -> str:
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


REFUSALS = {
    "another region": Refusal(
        301,
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
        'region: the bucket is in eu-central-1: set `aws_region = "eu-central-1"`',
        region="eu-central-1",
    ),
    "another region in the message": Refusal(
        400,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-3'",
        'region: the bucket is in eu-west-3: set `aws_region = "eu-west-3"`',
        more="<Region>eu-west-3</Region>",
    ),
    "a clock that is slow": Refusal(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        "clock: that of this machine is 90 min behind that of the server",
        skew=5400 + 15,
    ),
    "a clock that is fast": Refusal(
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
        "clock: that of this machine is 20 min ahead of that of the server",
        skew=-1200 + 15,
    ),
    "a token that has expired": Refusal(
        400, "ExpiredToken", "The provided token has expired.", "credentials: the session token has expired"
    ),
    "too much": Refusal(503, "SlowDown", "Please reduce your request rate.", "load: the server asks"),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_server_says(tmp_path: Path, case: str, driver: str) -> None:
    refusal = REFUSALS[case]
    if refusal.skew:
        refusal = attrs.evolve(refusal, more=f"<ServerTime>{iso(refusal.skew)}</ServerTime>")
    with S3Server(refusal=refusal) as server:
        code, line = check(driver, tmp_path, aws_endpoint_url=server.endpoint)
    assert (code, refusal.said in line) == (1, True), line


# -- TLS --


def certificate(
    name: str, signer: tuple[Any, Any] | None, *, host: str = "127.0.0.1", ended: bool = False
) -> tuple[Any, Any]:
    """Return a certificate and its key; without a *signer* it is an authority's own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer[0].subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=-1 if ended else 1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if signer:
        names = [x509.IPAddress(ipaddress.ip_address(host))] if host[0].isdigit() else [x509.DNSName(host)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signing = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer[1].public_key())
        builder = builder.add_extension(signing, critical=False)
    else:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(own, critical=False)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"),
            False,
        )  # fmt: skip
        signs = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage)
        builder = builder.add_extension(signs, critical=True)
    return builder.sign(signer[1] if signer else key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def authority() -> tuple[Any, Any]:
    return certificate("The team's authority", None)


@pytest.fixture
def serve(authority: tuple[Any, Any], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a server that speaks TLS; return its address."""
    servers: list[S3Server] = []
    (tmp_path / "team.pem").write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))

    def start(**options: Any) -> str:
        made, key = certificate("server", authority, **options)
        path = tmp_path / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        servers.append(S3Server(tls=context))
        servers[-1].start()
        return servers[-1].endpoint

    yield start
    for server in servers:
        server.stop()


# How the certificate is made, whether the authority is named, and what is said.
CERTIFICATES: dict[str, tuple[dict[str, Any], bool, str]] = {
    "right": ({}, True, "ok, by {driver}"),
    "of nobody trusted": ({}, False, "TLS: nobody whom this machine trusts has signed"),
    "ended": ({"ended": True}, True, "TLS: the certificate of the server has expired"),
    "of another host": (
        {"host": "team.example"},
        True,
        "TLS: the certificate of the server is that of",
    ),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("case", CERTIFICATES)
def test_tls(serve: Callable[..., str], tmp_path: Path, case: str, driver: str) -> None:
    options, named, said = CERTIFICATES[case]
    trust = {"region_name": "us-east-1"} | ({"verify": str(tmp_path / "team.pem")} if named else {})
    endpoint = serve(**options)
    code, line = check(driver, tmp_path, aws_endpoint_url=endpoint, aws_region=None, client_kwargs=trust)
    assert said.format(driver=driver) in line
    assert code == (0 if case == "right" else 1)


@pytest.mark.parametrize("driver", DRIVERS)
def test_tls_where_there_is_none(tmp_path: Path, driver: str) -> None:
    with S3Server() as server:
        code, line = check(driver, tmp_path, aws_endpoint_url=server.endpoint.replace("http:", "https:"))
    assert (code, "TLS: the endpoint does not speak it" in line) == (1, True), line


def test_a_conditional_delete_goes_by_the_same_trust(serve: Callable[..., str], tmp_path: Path) -> None:
    """obstore signs it, and another client sends it: that one must know the authority, too."""
    from castore_objectstore.locations import open_store  # noqa: PLC0415 - only here

    keys = {"key": "an-id", "secret": SECRET, "region": "us-east-1"}
    options = {**keys, "endpoint": serve(), "root_certificate": str(tmp_path / "team.pem")}
    store = open_store("s3://bucket/pre", options, base=tmp_path, instance="root", driver="obstore")
    assert store.replace("refs/www.json", b"1", lambda there: there is None)
    assert store.replace("refs/www.json", None, lambda there: there == b"1")
    assert store.get("refs/www.json") is None
