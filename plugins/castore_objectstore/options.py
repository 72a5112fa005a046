"""Options of drivers: which ones the driver of a URL has, and what their values are.

Drivers of fsspec are classes whose parameters are their options. What they do not know most of them pass over
without a word, and a text they take for true, also `false`: so castore looks at the parameters itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from castore.composition import InvalidValueError, Problem, ProblemsError, Untyped
from castore.composition.config.values import expected, parse_plain
from castore.problems import did_you_mean, escaped, listing
from castore.urls import split_query
from castore_objectstore.drivers import is_known, protocols_of
from castore_objectstore.locations import DriverName, scheme_of
from castore_objectstore.obstore_options import CannotError, kind_of, known_options, read_bucket

S3_SCHEMES: Final = frozenset({"s3", "s3a"})

S3_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "aws_access_key_id": ("key",),
    "access_key_id": ("key",),
    "aws_secret_access_key": ("secret",),
    "secret_access_key": ("secret",),
    "aws_session_token": ("token",),
    "session_token": ("token",),
    "aws_profile": ("profile",),
    "aws_endpoint_url": ("endpoint_url",),
    "aws_endpoint": ("endpoint_url",),
    "endpoint": ("endpoint_url",),
    "aws_region": ("client_kwargs", "region_name"),
    "aws_default_region": ("client_kwargs", "region_name"),
    "region": ("client_kwargs", "region_name"),
    "default_region": ("client_kwargs", "region_name"),
    "aws_skip_signature": ("anon",),
    "skip_signature": ("anon",),
    "user_agent": ("config_kwargs", "user_agent_extra"),
}
"""What the reference calls the options of `s3:`, and where s3fs has them."""

S3_NEEDLESS: Final = frozenset({"aws_allow_http", "allow_http"})
"""Options of the reference that s3fs does not need: it takes the scheme of the endpoint for an answer."""

_OURS: Final = frozenset({"file", "memory"})
"""Schemes that need no driver of fsspec, and so have no options."""

_OUR_OWN: Final = frozenset(
    {"asynchronous", "loop", "session", "get_client", "skip_instance_cache", "use_listings_cache"}
)
"""Parameters that are for castore to set, and for no composition."""

_OF_REQUESTS: Final[dict[str, type]] = {
    "headers": dict, "cookies": dict, "proxy": str, "ssl": bool, "allow_redirects": bool, "max_redirects": int
}  # fmt: skip
"""What the driver of `http:` gives to each request."""

_TABLES: Final = re.compile(r".*_(kwargs|options|vars|args|conf)|headers|cookies|params")
_SECONDS: Final = re.compile(r"(.*_)?(timeout|expiry_time)")
_WHOLE: Final = re.compile(r"(.*_)?(port|size|blocksize|concurrency|retries|paths)")
"""Names that tell what a value is, where neither an annotation nor a default does."""


@attrs.frozen
class _Option:
    """A parameter of a driver."""

    kind: type | None = None
    """`bool`, `int`, `float`, `str`, `dict` for a table, or `None` if nobody knows."""

    def read(self, value: Any) -> Any:
        """Return a value as the driver wants it; raise `InvalidValueError` if it is no such thing."""
        if self.kind is dict and not isinstance(value, Mapping):
            hint = (
                "write it in a table: `object_store_options = { ... }`"
                if isinstance(value, Untyped)
                else None
            )
            raise expected("a table", value, hint)
        if self.kind in _WORDS:
            # The reference has nothing but strings here.
            found = parse_plain(value, self.kind) if isinstance(value, str) else value
            if type(found) is not self.kind and not (self.kind is float and type(found) is int):
                raise expected(_WORDS[self.kind], value)
            return found
        return str(value) if type(value) is Untyped else value


_WORDS: Final[dict[type, str]] = {bool: "true or false", int: "a whole number", float: "a number"}


def whole_url(url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a URL without its query, and *options* with those of the query.

    Raises `InvalidValueError` if one is in both.
    """
    base, query = split_query(url)
    for name, _ in query:
        if name in options:
            raise InvalidValueError(
                f"`{escaped(name)}` is in `object_store_options` as well",
                "leave one of the two",
                part=str(name),
            )
    return base, {**options, **dict(query)}


def fsspec_options(url: str) -> Collection[str] | None:
    """Return the options that the driver of fsspec has for a URL, `None` if nobody can tell."""
    scheme = scheme_of(url)
    driver = _driver(url, scheme)
    return None if driver is None else _options_of(driver, url, scheme)


def read_options(
    url: str,
    options: Mapping[str, Any],
    *,
    beside: Iterable[str] = (),
    driver_name: DriverName = "auto",
) -> dict[str, Any]:
    """Return *options* as the driver of *url* takes them: a text as the number or the boolean that it wants.

    *beside*: what else stands in the same place, for suggestions. A driver that is not installed takes
    anything, for there is nothing to ask. Raises `ProblemsError` with all that is wrong.
    """
    if not options:
        return {}
    scheme = scheme_of(url)
    driver = _driver(url, scheme)
    known = {} if scheme in _OURS else None if driver is None else _options_of(driver, url, scheme)
    told: Collection[str] | None = known if driver_name != "obstore" else None
    kind = kind_of(url)
    if kind is not None and driver_name != "fsspec":
        own = {
            name: _Option(dict if sort is None else None if sort is object else sort)
            for name, sort in known_options(kind).items()
        }
        # Of what both have, obstore's knows more of its kind; `auto` decides between them by the names.
        known = own if driver_name == "obstore" else None if known is None else {**known, **own}
    # The part of fsspec's contract with its drivers that says which options the URL itself stands for.
    said = {} if driver is None else driver._get_kwargs_from_urls(url)  # noqa: SLF001
    read: dict[str, Any] = {}
    problems = []
    for name, value in options.items():
        try:
            read[name] = _option(name, value, known, scheme, beside, told=told).read(value)
            if name in said and read[name] != said[name]:
                raise InvalidValueError(f"the URL says another `{escaped(name)}`", "leave one of the two")
        except InvalidValueError as error:
            at = "value" if name in (known or {}) else "key"
            code = "wrong-value" if at == "value" else "unknown-key"
            problems.append(Problem(code, (name,), error.message, error.hint, at=at))
    if scheme in S3_SCHEMES:
        problems += _same(options)
    if problems:
        raise ProblemsError(problems)
    return read


def require_driver(url: str, options: Mapping[str, Any], driver_name: DriverName) -> None:
    """Raise `InvalidValueError` unless there is a driver that has all options; each is known to one.

    For *driver_name* `auto` that is enough; obstore must be able to have the bucket as well.
    """
    kind = kind_of(url)
    if kind is None or driver_name == "fsspec":
        return
    if driver_name == "auto":
        fsspec = fsspec_options(url)
        if fsspec is None or all(name in fsspec for name in options):
            return
    known = {*known_options(kind), *(fsspec if driver_name == "auto" and fsspec else ())}
    if not all(name in known for name in options):
        return  # That is told of the option.
    try:
        read_bucket(url, options)
    except CannotError as error:
        if driver_name == "obstore":
            raise InvalidValueError(f"the driver `obstore` cannot have it: {error}") from None
        own = next(name for name in options if fsspec is not None and name not in fsspec)
        message = f"no driver has all its options: `{escaped(own)}` is for obstore, but {error}"
        raise InvalidValueError(message, "leave one of them out") from None


def _option(
    name: str,
    value: Any,
    known: Mapping[str, _Option] | None,
    scheme: str,
    beside: Iterable[str],
    *,
    told: Collection[str] | None,
) -> _Option:
    """Return the option of that name; raise `InvalidValueError` if there is none."""
    if name in _OUR_OWN:
        raise InvalidValueError(f"`{escaped(name)}` is for castore to set", "leave it out")
    if known is None:
        return _Option()
    if name in known:
        return known[name]
    if not (scheme in _OURS or is_known(scheme) or isinstance(value, Untyped)):
        return _Option()  # Many drivers pass on to others what they do not know.
    what = f"the driver of `{scheme}:` has no option `{escaped(name)}`"
    # One who looks for a name is shown those of the driver that has been there all along.
    first = next((names for names in (told, known) if names), known)
    own = [*beside, *(option for option in first if option not in S3_NAMES and option not in S3_NEEDLESS)]
    hint = f"the keys here are {listing(own)}" if own else "it has none at all"
    raise InvalidValueError(what, did_you_mean(name, [*beside, *first]) or did_you_mean(name, known) or hint)


def _same(options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each option that stands for what one before it stands for."""
    places: dict[tuple[str, ...], str] = {}
    for name in options:
        place = S3_NAMES.get(name, (name,))
        other = places.setdefault(place, name)
        if other != name:
            message = f"`{escaped(name)}` is another name of `{escaped(other)}`, which is here as well"
            yield Problem("wrong-value", (name,), message, "leave one of the two", at="key")


def _driver(url: str, scheme: str) -> Any:
    """Return the class of the driver of a URL, `None` if it is not installed, or the store needs none."""
    if scheme in _OURS:
        return None
    import fsspec  # noqa: PLC0415 - a folder needs no fsspec

    try:
        return fsspec.get_filesystem_class(protocols_of(url)[0])
    except (ImportError, ValueError):
        return None


def _options_of(driver: Any, url: str, scheme: str) -> dict[str, _Option]:
    """Return the options that the driver of a URL has."""
    found: dict[str, _Option] = {}
    for cls in reversed(driver.__mro__):
        if "__init__" in cls.__dict__ and cls is not object:
            found.update(_parameters(cls.__init__))
    found.update(_passed_on(scheme))
    for name in (*_OUR_OWN, "host", "hostname"):  # A host stands in the URL.
        found.pop(name, None)
    # Options of the others in a chain are in tables named by them.
    found.update({protocol: _Option(dict) for protocol in protocols_of(url)[1:]})
    return found


def _passed_on(scheme: str) -> dict[str, _Option]:
    """Return the options that a driver gives to the library beneath it."""
    if scheme in S3_SCHEMES:
        named = {name: _Option(bool if place == ("anon",) else str) for name, place in S3_NAMES.items()}
        return {"profile": _Option(str), **named, **dict.fromkeys(S3_NEEDLESS, _Option())}
    if scheme in {"sftp", "ssh"}:
        from paramiko import SSHClient  # type: ignore[import-untyped] # noqa: PLC0415 - the driver has it

        return {"temppath": _Option(str), "host_key_policy": _Option(str), **_parameters(SSHClient.connect)}
    if scheme in {"http", "https"}:
        return {name: _Option(kind) for name, kind in _OF_REQUESTS.items()}
    return {}


def _parameters(function: Any) -> dict[str, _Option]:
    return {
        name: _Option(_kind(name, parameter))
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }


def _kind(name: str, parameter: inspect.Parameter) -> type | None:
    if _SECONDS.fullmatch(name):
        return float
    if isinstance(parameter.default, (bool, int, float, str)):
        return type(parameter.default)
    written = str(parameter.annotation)
    for kind in (bool, int, float, str):
        if re.search(rf"\b{kind.__name__}\b", written):
            return kind
    if isinstance(parameter.default, Mapping) or _TABLES.fullmatch(name):
        return dict
    return int if _WHOLE.fullmatch(name) else None
