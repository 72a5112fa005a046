"""Configuration of `objectstore`.

Defaults: chunks of 256 KiB on average, cut by `fastcdc-2020`, compressed at level 3, as the reference does.

Example::

    [blobservices.root]
    type = "objectstore"
    object_store_url = "file:./stores/blobs"   # or s3://bucket/prefix, gs://..., any URL that fsspec opens
    object_store_options = {}                  # passed to the driver of the URL's scheme
    driver = "auto"                            # or "fsspec", "obstore": what makes the requests to a bucket
    avg_chunk_size = "256 KiB"                 # 512 B to 2097153 B
    chunker = "fastcdc-2020"
    compression_level = 3
    durability = "full"                        # or "process": no flushes
    create = "parent"                          # or "path": the folders above it, too; false: nothing is made
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import attrs

from castore import BlobService
from castore.composition import (
    Between,
    BuildContext,
    ByteSize,
    InvalidValueError,
    Problem,
    ProblemsError,
    ServiceUrl,
    Traits,
    View,
    read_query,
    secrets_in,
)
from castore.contract.directories import DirectoryService
from castore.contract.refs import RefService
from castore.format.chunking import DEFAULT_AVG_SIZE, MAX_AVG_SIZE, MIN_AVG_SIZE, Chunker, FastCdc2020
from castore.places import Create, locate
from castore.problems import toml_string
from castore.urls import shown_of, split_query
from castore_objectstore.locations import (
    DriverName,
    check_url,
    is_read_only,
    local_path,
    open_store,
    scheme_of,
    waits,
)
from castore_objectstore.looks import OBJECTS, StoreLayout
from castore_objectstore.object_store import ObjectStore
from castore_objectstore.obstore_options import kind_of
from castore_objectstore.options import read_options, require_driver, whole_url

# Written out: importing zstandard for two numbers would cost every program that has the plugin.
_DEFAULT_AVG_SIZE: Final = ByteSize(DEFAULT_AVG_SIZE)
_DEFAULT_LEVEL: Final = 3
_LEVELS: Final = Between(-7, 22)


@attrs.frozen
class StoreFields:
    """Where an object store is, and how it is opened: what all types have that keep things in one."""

    object_store_url: str = attrs.field(repr=shown_of)
    """Where the objects are: `file:` and a folder, or any URL that fsspec opens."""
    object_store_options: dict[str, Any] = attrs.field(factory=dict, repr=shown_of)
    """Options of the driver; for `s3:` also by the names that the reference uses."""
    driver: DriverName = attrs.field(default="auto")
    """What makes the requests to a bucket: fsspec, or obstore, which is for `s3:` and `abfs:`."""
    durability: Literal["process", "full"] = "full"
    """For `file:`: what a stored blob survives, a power cut (`full`) or a killed program (`process`)."""

    create: Create = "parent"
    """What is made with the first object if it is not there: its folder, all of the path, or nothing."""

    @object_store_url.validator
    def _check_url(self, attribute: attrs.Attribute[str], value: str) -> None:
        base, query = split_query(value)
        fields = {field.name for field in attrs.fields(type(self))}
        for name, text in query:
            if name in fields:
                hint = f"write it as a key of its own: `{name} = {toml_string(text)}`"
                raise InvalidValueError(f"`{name}` is no option of a driver", hint, part=str(name))
        try:
            check_url(value if scheme_of(value) == "file" else base)
        except ValueError as error:
            # The attribute tells castore which key is meant.
            raise ValueError(str(error), attribute) from None
        url, options = whole_url(value, self.object_store_options)
        problems = _problems_in_query(base, dict(query), driver=self.driver)
        if problems:
            raise ProblemsError(problems)
        require_driver(url, options, self.driver)

    @object_store_options.validator
    def _check_options(self, _attribute: attrs.Attribute[dict[str, Any]], value: dict[str, Any]) -> None:
        try:
            base, _ = split_query(self.object_store_url)
            check_url(base)
        except ValueError:
            return  # That is told of the URL.
        read_options(base, value, driver_name=self.driver)

    @driver.validator
    def _check_driver(self, _attribute: attrs.Attribute[DriverName], value: DriverName) -> None:
        scheme = scheme_of(self.object_store_url)
        if value == "auto" or (value == "obstore" and kind_of(self.object_store_url) is not None):
            return
        if value == "obstore":
            hint = "leave `driver` out"
            raise InvalidValueError("obstore serves `s3:` and `abfs:` here, and no chains of drivers", hint)
        if scheme in ("file", "memory"):
            raise InvalidValueError(f"`{scheme}:` has no driver but castore's own", "leave `driver` out")

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Accept `objectstore+<url>`; its query has fields of the config, and options of the driver."""
        parsed = ServiceUrl.parse(url)
        if not parsed.scheme:
            raise ValueError(f"the scheme of the store is missing; write `{parsed.tag}+file:` and a path")
        check_url(parsed.inner)
        fields = [name for name in attrs.fields_dict(cls) if not name.startswith("object_store_")]
        options = {name: text for name, text in parsed.query if name not in fields}
        driver: Any = dict(parsed.query).get("driver", "auto")
        problems = _problems_in_query(parsed.inner, options, beside=fields, driver=driver)
        values = {"object_store_url": parsed.inner, "object_store_options": {} if problems else options}
        query = tuple((name, text) for name, text in parsed.query if name in fields)
        try:
            config = read_query(cls, attrs.evolve(parsed, query=query), values)
        except ProblemsError as error:
            problems += error.problems
        if problems:
            raise ProblemsError(problems)
        return config

    def traits(self, view: View) -> Traits:
        """Say in which folder it keeps what it has, if it is one, and whether it can be written."""
        return Traits(
            writable=not is_read_only(self.object_store_url),
            answers=True,
            place=self._folder(view.base),
            place_field="object_store_url",
        )

    def _folder(self, base: Path) -> Path | None:
        if scheme_of(self.object_store_url) == "file":
            # Where nobody knows the home that it names, that is told to who builds it.
            with contextlib.suppress(OSError):
                return locate(base, local_path(self.object_store_url), self.create).path
        return None

    def open(self, name: str, context: BuildContext, layout: StoreLayout = OBJECTS) -> ObjectStore:
        """Return the store. A folder is made when the first object is written, not before."""
        secrets = [*secrets_in(self.object_store_options), *secrets_in(self.object_store_url)]
        url, options = whole_url(self.object_store_url, self.object_store_options)
        return open_store(
            url,
            read_options(url, options, driver_name=self.driver),
            base=context.base,
            instance=name,
            secrets=secrets,
            durability=self.durability,
            create=self.create,
            layout=layout,
            driver=self.driver,
        )


@attrs.frozen
class ChunkedStoreFields(StoreFields):
    """How blobs are kept as chunks in an object store."""

    avg_chunk_size: Annotated[ByteSize, Between(MIN_AVG_SIZE, MAX_AVG_SIZE)] = _DEFAULT_AVG_SIZE
    """The average size of new chunks; they are between half and twice as large."""
    chunker: type[Chunker] = FastCdc2020
    """How new blobs are cut; chunks are only shared between blobs that were cut alike."""
    compression_level: Annotated[int, _LEVELS] = _DEFAULT_LEVEL
    """The zstd level of new chunks, from -7 (fastest) to 22 (smallest)."""

    def traits(self, view: View) -> Traits:
        """Say how blobs are cut as well, and whether a bucket may be waited for."""
        cuts = f"{self.chunker.__name__} {self.avg_chunk_size}"
        return attrs.evolve(super().traits(view), cuts=cuts, waits=waits(self.object_store_url))


@attrs.frozen
class ObjectStoreConfig(ChunkedStoreFields):
    """Blobs in an object store. URL form: `objectstore+<url>?<fields and options>`."""

    def offers(self, kind: type, view: View) -> bool:  # noqa: ARG002 - all configs have it
        """Have the capabilities of the service; only in a folder can processes tell each other anything."""
        from castore.contract.capabilities import SharedPlace  # noqa: PLC0415 - once somebody asks
        from castore_objectstore.service import ObjectStoreBlobService  # noqa: PLC0415 - as above

        if kind is SharedPlace:
            return scheme_of(self.object_store_url) == "file"
        return issubclass(ObjectStoreBlobService, kind)

    def build(self, name: str, context: BuildContext) -> BlobService:
        """Return the service. A folder is made when the first object is written, not before."""
        from castore_objectstore.service import (  # noqa: PLC0415 - once it is named
            AddOnlyBlobService,
            ObjectStoreBlobService,
        )

        store = self.open(name, context)
        # A service must not claim capabilities that its store can never have.
        made = ObjectStoreBlobService if store.removes else AddOnlyBlobService
        return made(
            store,
            chunker=self.chunker,
            avg_chunk_size=self.avg_chunk_size,
            compression_level=self.compression_level,
            pool=context.pool,
        )


@attrs.frozen
class ObjectStoreDirectoriesConfig(StoreFields):
    """Trees in an object store, each as one object. URL form: `objectstore+<url>?<fields and options>`."""

    index: bool = False
    """Whether any directory can be had by itself, and not only roots: trees are written with an index behind
    them, which the reference skips."""

    def build(self, name: str, context: BuildContext) -> DirectoryService:
        """Return the service. A folder is made when the first tree is written, not before."""
        from castore_objectstore.directories import ClosureDirectoryService  # noqa: PLC0415 - once it is named

        return ClosureDirectoryService(self.open(name, context), index=self.index)


@attrs.frozen
class ObjectStoreRefsConfig(StoreFields):
    """Refs in an object store, each as one object. URL form: `objectstore+<url>?<fields and options>`."""

    def build(self, name: str, context: BuildContext) -> RefService:
        """Return the service. A folder is made when the first ref is set, not before."""
        from castore_objectstore.refs import ObjectRefService  # noqa: PLC0415 - once it is named

        return ObjectRefService(self.open(name, context), pool=context.pool, closes=True)


def _problems_in_query(
    url: str, options: Mapping[str, Any], beside: Sequence[str] = (), *, driver: DriverName = "auto"
) -> list[Problem]:
    """Return what is wrong with options that stand in the query of a URL."""
    try:
        read_options(url, options, beside=beside, driver_name=driver)
    except ProblemsError as error:
        return [
            attrs.evolve(
                problem,
                path=(),
                at="value",
                part=str(problem.path[0]),
                message=problem.message if problem.at == "key" else f"`{problem.dotted}`: {problem.message}",
            )
            for problem in error.problems
        ]
    return []
