"""Options of drivers: named, of the right type, once; in a URL's query and in a table."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

import castore
from castore import Composition, CompositionError
from castore.metrics.shell import bare
from castore_objectstore.config import ObjectStoreConfig
from castore_objectstore.options import read_options, whole_url

needs_s3 = pytest.mark.skipif(importlib.util.find_spec("s3fs") is None, reason="needs s3fs")


def composition(url: str, **options: Any) -> Composition:
    table = {"type": "objectstore", "object_store_url": url, "object_store_options": options}
    return Composition.from_mapping({"blobservices": {"root": table}})


def problems_of(url: str, **options: Any) -> list[str]:
    """What is wrong with a URL of an object store: in a reference, or in a table if it has no type."""
    whole = url.startswith("objectstore+")
    with pytest.raises(CompositionError) as caught:
        _ = castore.from_url(url) if whole else composition(url, **options)
    return [f"{problem.message}; {problem.hint}" for problem in caught.value.problems]


@needs_s3
@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("anon=false", {"anon": False}),
        ("anon=True&use_ssl=false", {"anon": True, "use_ssl": False}),
        (
            "max_concurrency=4&default_block_size=5_000_000",
            {"max_concurrency": 4, "default_block_size": 5000000},
        ),
        ("key=12345&secret=true&token=4", {"key": "12345", "secret": "true", "token": "4"}),
        ("skip_signature=true&aws_allow_http=1", {"skip_signature": True, "aws_allow_http": "1"}),
        ("profile=7", {"profile": "7"}),
    ],
)
def test_a_text_is_read_as_its_option_asks(query: str, read: dict[str, Any]) -> None:
    """In the query of either URL, and in a table, where the reference has nothing but strings."""
    anonymous = ObjectStoreConfig.from_url(f"objectstore+s3://bucket/x?{query}")
    assert read_options(anonymous.object_store_url, anonymous.object_store_options) == read
    url, options = whole_url(f"s3://bucket/x?{query}", {})
    assert (url, read_options(url, options)) == ("s3://bucket/x", read)
    assert read_options("s3://bucket/x", {name: str(value) for name, value in options.items()}) == read
    composition(f"s3://bucket/x?{query}").close()


@needs_s3
def test_the_driver_gets_them_as_they_are_meant() -> None:
    """Whatever way they come, and without a query at the end of the prefix."""
    for url, options in (("s3://b/p?anon=false&max_concurrency=4", {}), ("s3://b/p", {"anon": "false"})):
        with composition(url, **options) as stores:
            fs, root = bare(stores.blobs())._store._open()
            assert (fs.anon, root) == (False, "b/p")


FIELDS = "the keys here are `avg_chunk_size`, `chunker`, `compression_level`"
NAMELESS = [
    ("objectstore+file:./y?durability=process&nonsense=1", f"`file:` has no option `nonsense`; {FIELDS}"),
    ("objectstore+file:./y?duribility=process", "no option `duribility`; did you mean `durability`?"),
    ("objectstore+file:./y?durability=full&durability=process", "`durability` is given twice"),
    ("objectstore+file:./y?durability=ful", '`durability`: expected "process" or "full"'),
    ("objectstore+file:./y?object_store_options=y", "no option `object_store_options`"),
    ("objectstore+memory:?anon=true", "`memory:` has no option `anon`"),
    ("objectstore+memory:?compression_level=x", "`compression_level`: expected a whole number"),
    ("objectstore+memory:?compression_level=23", "`compression_level`: expected -7 to 22"),
    ("objectstore+memory:?avg_chunk_size=64kib", "`avg_chunk_size`: unknown unit `kib`"),
    ("objectstore+local:///x?auto_mkdir=1", "`auto_mkdir`: expected true or false"),
    ("local:///x?auto_mkdir=1", "`auto_mkdir`: expected true or false"),
    ("file:./y?durability=full", 'write it as a key of its own: `durability = "full"`'),
    ("memory:?nonsense=1", "`memory:` has no option `nonsense`"),
]
WITH_S3 = [
    (
        "objectstore+s3://b?nonsense=1",
        "the driver of `s3:` has no option `nonsense`; the keys here are `anon`",
    ),
    ("objectstore+s3://b?max_concurency=4", "did you mean `max_concurrency`?"),
    ("objectstore+s3://b?anon=maybe", "`anon`: expected true or false"),
    ("objectstore+s3://b?anon=", "`anon`: expected true or false"),
    ("objectstore+s3://b?max_concurrency=4.5", "`max_concurrency`: expected a whole number"),
    ("objectstore+s3://b?client_kwargs=x", "`client_kwargs`: expected a table"),
    ("objectstore+s3://b?region=a&aws_region=b", "`aws_region` is another name of `region`"),
    ("objectstore+s3://b?use_listings_cache=true", "is for castore to set"),
    ("s3://b?nonsense=1", "the driver of `s3:` has no option `nonsense`"),
    ("s3://b?anon=maybe", "`anon`: expected true or false"),
    ("s3://b?anon=true&anon=false", "`anon` is given twice"),
    ("s3://b?avg_chunk_size=1", "`avg_chunk_size` is no option of a driver; write it as a key of its own"),
]


@pytest.mark.parametrize(
    ("url", "words"), [*NAMELESS, *(pytest.param(*row, marks=needs_s3) for row in WITH_S3)]
)
def test_what_is_wrong_in_a_query_is_refused_by_name(url: str, words: str) -> None:
    (problem,) = problems_of(url)
    assert words in problem


def test_all_that_is_wrong_in_a_query_is_told() -> None:
    found = problems_of("objectstore+file:./y?nonsense=1&compression_level=x&durability=process&other=2")
    named = [[problem for problem in found if f": the driver of `file:` has no option `{name}`" in problem]
             for name in ("nonsense", "other")]  # fmt: skip
    assert len(found) == 3
    assert all(named)


@needs_s3
def test_an_option_is_in_one_place() -> None:
    (problem,) = problems_of("s3://b?key=x", key="y")
    assert "`key` is in `object_store_options` as well" in problem


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("file:./x", {"anything": 1}, "`file:` has no option `anything`; it has none at all"),
        ("memory:", {"anything": 1}, "`memory:` has no option `anything`"),
        pytest.param("s3://b", {"keyy": "x"}, "did you mean `key`?", marks=needs_s3),
        pytest.param("s3://b", {"anon": 1}, "expected true or false, found the number 1", marks=needs_s3),
        pytest.param("s3://b", {"anon": "no"}, "expected true or false", marks=needs_s3),
        pytest.param("s3://b", {"client_kwargs": "no"}, "expected a table", marks=needs_s3),
    ],
)
def test_what_is_wrong_in_a_table_is_refused_by_name(url: str, options: dict[str, Any], words: str) -> None:
    (problem,) = problems_of(url, **options)
    assert words in problem


def test_a_driver_that_is_not_installed_is_told_of_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options cannot be known before."""
    import fsspec  # noqa: PLC0415 - only this test needs it

    def missing(_: str) -> None:
        raise ImportError("no such driver")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with composition("gs://b/p?anything=1", other=2) as stores, pytest.raises(castore.BuildError, match="gs"):
        stores.blobs()


def test_a_strangers_driver_may_pass_on_what_it_does_not_name() -> None:
    """So a table may have such an option, with its type; a query may not."""
    assert read_options("ftp://host/x", {"passive": True}) == {"passive": True}
    (problem,) = problems_of("objectstore+ftp://host/x?passive=true")
    assert "the driver of `ftp:` has no option `passive`" in problem
