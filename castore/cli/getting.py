"""Getting many blobs: into a folder, each under its digest, or to stdout, one after the other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

import attrs

from castore.cli.faults import FAILED, document_of
from castore.cli.files import replacing
from castore.cli.output import JsonRows, complain
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.contract.batches import MOST_ITEMS
from castore.contract.blobs import Answer, BlobReader, BlobService
from castore.digest import B3Digest
from castore.errors import BlobNotFoundError, CastoreError, CorruptBlobError

_PIECE: Final = 1 << 20


def copy_blob(
    reader: BlobReader, count: int, write: Callable[[memoryview], Any], meter: ProgressMeter
) -> None:
    """Write the next *count* bytes of a blob."""
    while count:
        view = reader.read_view(min(_PIECE, count))
        if not view:
            raise EOFError(f"the blob ends {count} bytes before its size")
        write(view)
        meter.advance(len(view))
        count -= len(view)


def naming(error: CorruptBlobError, digest: B3Digest) -> CorruptBlobError:
    """Return an error about a chunk as one that names the blob as well."""
    if str(digest) not in error.message:
        error.args = (f"cannot read blob {digest}: {error.message}", *error.args[1:])
    return error


@attrs.define
class Getter:
    """Gets many blobs of a service."""

    service: BlobService
    meter: ProgressMeter
    settings: Settings

    def write_all(self, digests: Iterable[B3Digest], write: Callable[[memoryview], Any]) -> None:
        """Write blobs, one after the other; raises what is wrong with the first one that cannot be had."""
        for digest in digests:
            self._copy(digest, self.service.open_read(digest), write)

    def fill(self, folder: str, wanted: Iterable[tuple[B3Digest, str]]) -> int:
        """Write each blob into a file of this name in *folder*; return the exit code.

        One that is absent or corrupt does not keep the others from it.
        """
        errors: list[dict[str, Any]] = []
        document = JsonRows("files", errors=errors) if self.settings.json else None
        with document or contextlib.nullcontext():
            self._fill(folder, wanted, document, errors)
        return FAILED if errors else 0

    def _fill(
        self,
        folder: str,
        wanted: Iterable[tuple[B3Digest, str]],
        document: JsonRows | None,
        errors: list[dict[str, Any]],
    ) -> None:
        for digest, name, answer in self._answers(wanted):
            path = os.path.join(folder, name)  # noqa: PTH118 - the user's string
            try:
                size = self._get(digest, answer, path)
            except (BlobNotFoundError, CorruptBlobError) as error:
                errors.append({"digest": str(digest), **document_of(error, self.settings)})
                if document is None:
                    self.meter.step_aside()
                    complain(f"castore: {self.settings.scrubbed(error.message)}")
                continue
            if document is not None:
                document.add({"digest": str(digest), "path": path, "size": size})

    def _answers(self, wanted: Iterable[tuple[B3Digest, str]]) -> Iterator[tuple[B3Digest, str, Answer]]:
        remaining = iter(wanted)
        while batch := list(islice(remaining, MOST_ITEMS)):
            names: dict[B3Digest, list[str]] = {}
            for digest, name in batch:
                if name not in names.setdefault(digest, []):
                    names[digest].append(name)
            for digest, answer in self.service.read_many(names):
                first, *others = names[digest]
                yield digest, first, answer
                for name in others:
                    # What reads a large blob is closed when that was written.
                    again = answer if not isinstance(answer, BlobReader) else self.service.open_read(digest)
                    yield digest, name, again

    def _get(self, digest: B3Digest, answer: Answer, path: str) -> int:
        try:
            return self._write_file(digest, answer, path)
        except CorruptBlobError as error:
            if not error.passed_over:
                raise
        return self._write_file(digest, self.service.open_read(digest), path)

    def _write_file(self, digest: B3Digest, answer: Answer, path: str) -> int:
        if not isinstance(answer, (bytes, BlobReader)):
            return self._copy(digest, answer, lambda _: None)  # It raises: no file is made for that.
        size = answer.size if isinstance(answer, BlobReader) else len(answer)
        with replacing(path, size) as write:
            return self._copy(digest, answer, write)

    def _copy(self, digest: B3Digest, answer: Answer, write: Callable[[memoryview], Any]) -> int:
        """Write a blob; return its size. Raises what is wrong with it."""
        self.meter.name = str(digest)
        try:
            if answer is None:
                raise BlobNotFoundError(digest, instance=self.settings.service_name)
            if isinstance(answer, CastoreError):
                raise answer
            if isinstance(answer, bytes):
                write(memoryview(answer))
                self.meter.advance(len(answer))
                size = len(answer)
            else:
                with answer:
                    size = answer.size
                    copy_blob(answer, size, write, self.meter)
        except CorruptBlobError as error:
            raise naming(error, digest) from error.__cause__
        self.meter.item_done()
        return size
