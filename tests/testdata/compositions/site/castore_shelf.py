"""A plugin as a stranger may write it: all sorts of fields, and validators of attrs without a word of castore."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs

from castore import BlobService, Ref, Registry, hookimpl
from castore.composition import Between, BuildContext, ByteSize, Duration, InvalidValueError, ServiceUrl, formerly


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@attrs.frozen
class Retry:
    attempts: int = attrs.field(validator=attrs.validators.ge(1))
    pause: Duration = Duration(1.0)
    on: list[str] = attrs.field(factory=list)


def _even(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value % 2:
        raise InvalidValueError(f"{value} is odd", f"write {value + 1}")


@attrs.frozen
class ShelfConfig:
    inner: Ref[BlobService] | None = None
    services: list[Ref[BlobService]] = attrs.field(factory=list)
    by_name: dict[str, Ref[BlobService]] = attrs.field(factory=dict)
    priority: dict[int, Ref[BlobService]] = attrs.field(factory=dict)
    port: int = attrs.field(
        default=80, validator=[attrs.validators.ge(1), attrs.validators.le(65535)], metadata=formerly("portno")
    )
    label: str = attrs.field(default="x", validator=attrs.validators.matches_re("[a-z]+"))
    shelves: int = attrs.field(default=2, validator=_even)
    mode: Literal["open", "closed", 3] = "open"
    level: Level = Level.LOW
    folder: Path | None = None
    retry: Retry | None = None
    retries: tuple[Retry, ...] = ()
    ratio: float = 1.0
    eager: bool = False
    size: Annotated[ByteSize, Between(1, 1024)] = ByteSize(1)
    pause: Annotated[Duration, Between(0.5, 60)] = Duration(1.0)
    tags: set[str] = attrs.field(factory=set)
    pair: tuple[int, str] = (1, "a")
    limit: int | Literal["none"] = "none"
    size_or_text: list[str] | ByteSize = ByteSize(0)
    since: datetime.date | None = None
    options: dict[str, Any] = attrs.field(factory=dict)

    @label.validator
    def _check_label(self, attribute: attrs.Attribute[str], value: str) -> None:
        if value == "shelf":
            raise ValueError("a shelf cannot be called `shelf`")

    def __attrs_post_init__(self) -> None:
        if self.eager and self.mode == "closed":
            raise InvalidValueError("what is closed cannot be eager", "leave out `eager`")

    @classmethod
    def from_url(cls, url: str) -> ShelfConfig:
        parsed = ServiceUrl.parse(url)
        return cls(inner=Ref(dict(parsed.query)["to"], BlobService), label=parsed.path or "x")

    def build(self, name: str, context: BuildContext) -> BlobService:
        raise NotImplementedError


@hookimpl
def castore_register(registry: Registry) -> None:
    registry.register(BlobService, "shelf", ShelfConfig)
