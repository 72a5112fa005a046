"""What is wrong with a bucket, in words: from what a server, a driver or TLS says, whichever driver it was.

Servers of S3 and Azure have codes for it, which stand in an answer of XML. All else is told by what the
system, OpenSSL or rustls call it.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

_CODES: Final[dict[str, str]] = {
    "InvalidAccessKeyId": "credentials: the server does not know this access key",
    "InvalidClientTokenId": "credentials: the server does not know this access key",
    "SignatureDoesNotMatch": "credentials: the secret does not belong to the access key",
    "ExpiredToken": "credentials: the session token has expired",
    "InvalidToken": "credentials: the session token is not one of this access key",
    "TokenRefreshRequired": "credentials: the session token has expired",
    "AuthenticationFailed": "credentials: the key or token is not one of this account",
    "InvalidAuthenticationInfo": "credentials: the key or token is not one of this account",
    "NoAuthenticationInformation": "credentials: the server wants some, and none were found",
    "AccessDenied": "permissions: these credentials may not do that here",
    "AllAccessDisabled": "permissions: the bucket is closed to all",
    "AccountProblem": "permissions: the account is not in order",
    "AuthorizationFailure": "credentials: the key or token is not one of this account, or may not do that",
    "AuthorizationPermissionMismatch": "permissions: these credentials may not do that here",
    "InsufficientAccountPermissions": "permissions: these credentials may not do that here",
    "PublicAccessNotPermitted": "permissions: nobody may do that without credentials",
    "PermanentRedirect": "region: the bucket is in another region, or at another endpoint",
    "TemporaryRedirect": "region: the bucket is on its way to another region",
    "AuthorizationHeaderMalformed": "region: the bucket is in another region",
    "IllegalLocationConstraintException": "region: the bucket is in another region",
    "RequestTimeTooSkewed": "clock: that of this machine and that of the server differ too much",
    "NoSuchBucket": "bucket: there is none of this name",
    "ContainerNotFound": "bucket: there is none of this name",
    "SlowDown": "load: the server asks for fewer requests; `limit` and `retry` see to that",
    "ServerBusy": "load: the server asks for fewer requests; `limit` and `retry` see to that",
}

_STATUSES: Final[dict[int, str]] = {
    301: _CODES["PermanentRedirect"],
    307: _CODES["PermanentRedirect"],
    401: "credentials: the server wants others",
    403: "credentials, or their permissions: the server refuses",
    429: _CODES["SlowDown"],
    503: _CODES["SlowDown"],
}

_NOT_TLS: Final = "TLS: the endpoint does not speak it as it should; is it one of `http:`?"
_NO_NAME: Final = "endpoint: no machine has that name"
_NO_TRUST: Final = "TLS: nobody whom this machine trusts has signed the certificate of the server"
_OTHER_HOST: Final = "TLS: the certificate of the server is that of another host"
_NONE_FOUND: Final = "credentials: none were found; set them as options, or in the environment"
_CLOSED: Final = "endpoint: the connection was closed in the middle"

# The order is that in which they are looked for: an error of TLS is one of a connection, too.
_WORDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"request date header too old|time.{0,20}too skewed", _CODES["RequestTimeTooSkewed"]),
        (r"locate credentials|nocredentials|partial credentials", _NONE_FOUND),
        (r"169\.254\.169\.254|169\.254\.170\.2", _NONE_FOUND),
        (r"certificate.{0,40}expired", "TLS: the certificate of the server has expired"),
        (r"not ?valid ?yet", "TLS: the certificate of the server is not valid yet; is the clock right?"),
        (r"hostname mismatch|not ?valid ?for ?name|IP address mismatch", _OTHER_HOST),
        (r"self.signed|unable to get (local )?issuer|unknown ?issuer|CaUsedAsEndEntity", _NO_TRUST),
        (r"certificate.verify.failed", _NO_TRUST),
        (r"wrong.version.number|record.layer|invalid ?content ?type|corrupt message", _NOT_TLS),
        (r"InvalidMessage|no (shared )?cipher|handshake ?failure|protocol ?version", _NOT_TLS),
        (r"name or service not known|nodename nor servname|dns error|failed to lookup", _NO_NAME),
        (r"no address associated|name resolution|could not contact dns", _NO_NAME),
        (r"connection refused|connect call failed|errno 111", "endpoint: nobody listens there"),
        (r"unreachable|no route to host", "endpoint: there is no way to that machine"),
        (r"timed ?out|\btimeout|TimeoutError", "endpoint: no answer in time"),
        (r"connection (was )?(reset|closed|aborted)|server disconnected|IncompleteMessage", _CLOSED),
        (r"broken pipe|incomplete ?read|payload is not completed|end of file before|UnexpectedEof", _CLOSED),
    )
)

_SKEWED: Final = 300.0
"""Seconds of difference that S3 and Azure bear with are 15 minutes; less may be a sign."""


@attrs.frozen
class Complaint:
    """What is known of a request that failed.

    Attributes:
        text: All that the driver says, with what led to it.
        status: The status of HTTP, `None` if there was no answer.
        code: The code in the answer, empty if it had none.
        message: The message in the answer.
        region: Where the bucket is, if the answer tells.
        date: The time of the server, as its answer has it: in `ServerTime`, or in its header.
    """

    text: str
    status: int | None = None
    code: str = ""
    message: str = ""
    region: str = ""
    date: str = ""

    @property
    def reason(self) -> str:
        """What to look at, in a phrase that begins with its name: `credentials`, `TLS`, `clock` ..."""
        return next(self._reasons(), "")

    def _reasons(self) -> Iterator[str]:
        late = self.code == "AuthenticationFailed" and re.search("date header.{0,20} old", self.text)
        if late or self.code == "RequestTimeTooSkewed":
            yield self._skewed()
        if self.region and self.status in (301, 307, 400):
            yield f'region: the bucket is in {self.region}: set `aws_region = "{self.region}"`'
        if self.code in _CODES:
            yield _CODES[self.code]
        # obstore shows what led to an error as a tree of many lines.
        text = " ".join(self.text.split())
        for pattern, reason in _WORDS if self.status is None else ():
            if pattern.search(text):
                yield reason
        if self.status in _STATUSES:
            yield _STATUSES[self.status]

    def _skewed(self) -> str:
        server = _seconds(self.date)
        if server is None:
            return _CODES["RequestTimeTooSkewed"]
        ahead = time.time() - server
        if abs(ahead) < _SKEWED:
            return _CODES["RequestTimeTooSkewed"]
        which = "ahead of" if ahead > 0 else "behind"
        return f"clock: that of this machine is {abs(ahead) / 60:.0f} min {which} that of the server"


def _seconds(date: str) -> float | None:
    with contextlib.suppress(ValueError):
        return datetime.datetime.fromisoformat(date).timestamp()
    with contextlib.suppress(TypeError, ValueError):
        return parsedate_to_datetime(date).timestamp()
    return None


_TAG: Final = r"<{0}>\s*([^<]*?)\s*</{0}>"


def parse_answer(text: str, status: int | None) -> Complaint:
    """Return what a text says in which an answer of XML may stand."""
    code, message, region, date = (
        found[1] if (found := re.search(_TAG.format(name), text)) else ""
        for name in ("Code", "Message", "Region", "ServerTime")
    )
    # A message of Azure's has the number of the request, and the time, on lines of their own.
    message = message.splitlines()[0] if message else ""
    return Complaint(text, status, code, message, region or expected_region(message), date)


def expected_region(message: str) -> str:
    """Return the region that a message says is the right one, empty if it says none."""
    found = re.search(r"expecting '([a-z0-9-]+)'", message)
    return found[1] if found else ""
