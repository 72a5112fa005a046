"""Whatever stands where a URL, a size or a duration should: it is taken, or refused in castore's words."""

from __future__ import annotations

import math
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import castore
from castore import BuildError, CompositionError, MissingDriverError, PluginError, Registry
from castore.cli.options import as_size
from castore.composition import InvalidValueError, ServiceUrl
from castore.composition.config.values import MAX_SIZE, parse_duration, parse_size
from castore.places import PlaceError
from castore.urls import masked, masked_in_place

FUZZ = settings.get_profile("fuzz")
REGISTRY = Registry.default()

TOKENS = st.sampled_from(
    [
        "memory:",
        "objectstore+",
        "objectstore+file:",
        "file:",
        "s3:",
        "s3://",
        "memory://",
        "cache:",
        "faulty:",
        "http://",
        "//",
        "/",
        "?",
        "&",
        "=",
        "#",
        "%",
        "%00",
        "%2f",
        "%zz",
        "+",
        ":",
        "::",
        "@",
        "..",
        "~",
        "a",
        "bucket",
        "user:hunter2@",
        "?key=v",
        "&token=hunter2",
        "[",
        "]",
        "[::1]",
        " ",
        "\0",
        "\n",
        "\ud800",
        "é",
        "${HOME}",
        "\\",
        "simplecache::",
        "filecache::file:",
        "local:",
        "reference:",
        "zip://",
        "dir::",
        "github://",
        "data:",
        "MEMORY:",
    ]
)
URLS = st.one_of(
    st.text(max_size=60), st.lists(st.one_of(TOKENS, TOKENS, st.text(max_size=4)), max_size=9).map("".join)
)


@FUZZ
@given(URLS)
def test_parsing(text: str) -> None:
    try:
        url = ServiceUrl.parse(text)
    except InvalidValueError as error:
        assert str(error)
        return
    assert url.text == text
    assert url.tag == url.tag.lower()
    assert repr(url)
    assert url.inner.startswith(url.scheme + ":")


@FUZZ
@given(URLS)
def test_masking(text: str) -> None:
    """Never fails, and what is masked in place keeps its length."""
    assert len(masked_in_place(text)) == len(text)
    assert masked(masked(text)) == masked(text)


@FUZZ
@given(URLS)
def test_services_from_urls(text: str) -> None:
    """A service that nothing was asked of yet, or one clear error."""
    try:
        service = castore.from_url(text, registry=REGISTRY)
    except (CompositionError, PluginError) as error:
        assert str(error)
    except BuildError as error:
        assert isinstance(error.cause, (castore.CastoreError, MissingDriverError, PlaceError)), repr(
            error.cause
        )
    else:
        service.close()


UNITS = st.sampled_from(
    ["", "B", "KiB", "kib", "MB", "TiB", "s", "ms", "us", "d", "µs", "h", "x", "é", "%", "\0"]
)
AMOUNTS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.decimals().map(str),
    st.text("0123456789+-._eE ٣²", max_size=50),
    st.integers(0, 60).map(lambda count: "9" * count),
)
VALUES: Any = st.one_of(
    st.builds(lambda amount, space, unit: amount + space + unit, AMOUNTS, st.sampled_from(["", " "]), UNITS),
    st.text(max_size=30),
    st.integers(),
    st.integers().map(lambda number: number**9),
    st.floats(),
    st.sampled_from([None, True, [], {}, math.inf, -math.inf, math.nan, 10**400, -(10**400)]),
)


@FUZZ
@given(VALUES)
def test_sizes(value: Any) -> None:
    try:
        size = parse_size(value)
    except InvalidValueError as error:
        assert str(error)
    else:
        assert isinstance(size, int)
        assert 0 <= size <= MAX_SIZE
    if isinstance(value, str):
        try:
            as_size(value)
        except click.BadParameter as error:
            assert error.message


@FUZZ
@given(VALUES)
def test_durations(value: Any) -> None:
    try:
        seconds = parse_duration(value)
    except InvalidValueError as error:
        assert str(error)
    else:
        assert isinstance(seconds, float)
        assert 0 <= seconds <= float(MAX_SIZE)


@pytest.mark.parametrize("value", [None, True, [], 10**400, -1, "1e9", "-1 B", "0x10", "1" * 5000])
def test_these_are_no_sizes(value: Any) -> None:
    with pytest.raises(InvalidValueError):
        parse_size(value)
