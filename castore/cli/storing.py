"""Storing the files of `castore put`, and saying what came of each."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs

from castore.cli.faults import FAILED, document_of, exit_code
from castore.cli.output import STDOUT, JsonRows, TerminalGoneError, complain, emit, emit_text, printable
from castore.cli.progress import ProgressMeter
from castore.cli.settings import Settings
from castore.cli.walk import STDIN, Walked
from castore.contract.blobs import BlobService
from castore.digest import B3Digest
from castore.errors import CastoreError, SourceError, describe


class HopelessError(Exception):
    """An error that is not the file's fault: the next one would fare no better."""


@attrs.define
class Job:
    """What is being stored, and what came of it. For lines of text nothing is gathered.

    The service is given all files together, between any that have to be taken by themselves. What is said of
    them is in order.
    """

    service: BlobService
    meter: ProgressMeter
    settings: Settings
    exit_code: int = 0
    skipped: list[dict[str, Any]] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)
    files: JsonRows = attrs.field(init=False)
    """With `--json`, where a row for each file goes."""
    unsaid: TerminalGoneError | None = None
    """Why a digest could not be printed: its file is stored, and so are those that follow."""

    @files.default
    def _rows(self) -> JsonRows:
        return JsonRows("files", skipped=self.skipped, errors=self.errors)

    def take_all(self, all_found: Iterator[Walked]) -> None:
        """Store files; raises `HopelessError` if it makes no sense to go on."""
        by_itself: Walked | None = None
        handed_on: deque[str] = deque()
        size = 0

        def files() -> Iterator[str]:
            nonlocal by_itself
            for found in all_found:
                if not (found.is_file and found.regular):
                    by_itself = found
                    return
                handed_on.append(found.path)
                yield found.path

        def progress(count: int) -> None:
            nonlocal size
            size += count
            self.meter.name = handed_on[0] if handed_on else ""
            self.meter.advance(count)

        while True:
            outcomes = self.service.put_files(files(), progress=progress)
            while (outcome := self._next(outcomes, handed_on)) is not None:
                path = handed_on.popleft()
                if isinstance(outcome, SourceError):
                    self._fail(path, outcome)
                else:
                    self._done(path, outcome, size)
                size = 0
            if by_itself is None:
                return
            self._take(by_itself)
            by_itself = None

    def _next(
        self, outcomes: Iterator[B3Digest | SourceError], handed_on: deque[str]
    ) -> B3Digest | SourceError | None:
        """Return what came of the next file, `None` after the last one."""
        try:
            return next(outcomes, None)
        except CastoreError as error:
            if not handed_on:
                # The service has failed before it asked for a file.
                raise
            self._fail(handed_on[0], error)
            raise HopelessError from error

    def _take(self, found: Walked) -> None:
        if found.skipped:
            self._skip(found.path, found.skipped)
            return
        with self._excusing(found.path):
            if found.error:
                raise SourceError(
                    f"cannot read {found.path!r}: {found.error.strerror or describe(found.error)}"
                )
            sizes: list[int] = []

            self.meter.name = "" if found.path == STDIN else found.path

            def progress(count: int) -> None:
                sizes.append(count)
                self.meter.advance(count)

            digest = self.service.put_file(_source(found.path), progress=progress)
            self._done(found.path, digest, sum(sizes))

    @contextlib.contextmanager
    def _excusing(self, path: str) -> Iterator[None]:
        """Note an error about one file and go on, unless that is hopeless."""
        try:
            yield
        except SourceError as error:
            self._fail(path, error)
        except CastoreError as error:
            self._fail(path, error)
            raise HopelessError from error

    def _done(self, path: str, digest: B3Digest, size: int) -> None:
        self.meter.item_done()
        self.meter.step_aside()
        try:
            if self.settings.json:
                self.files.add({"digest": str(digest), "path": path, "size": size})
            elif STDOUT.is_terminal:
                # Nobody reads the line back: the terminal gets nothing that it might obey.
                emit_text(f"{digest}  {printable(path, lines=False)}\n")
            else:
                emit(b3sum_line(digest, path))
        except TerminalGoneError as error:
            self.unsaid = error

    def _skip(self, path: str, reason: str) -> None:
        if self.settings.json:
            self.skipped.append({"path": path, "reason": reason})
            return
        self.meter.step_aside()
        self.settings.remark(f"castore: skipped {path!r}: it is {reason}")

    def _fail(self, path: str, error: CastoreError) -> None:
        self.exit_code = max(self.exit_code, exit_code(error), FAILED)
        if self.settings.json:
            self.errors.append({"path": path, **document_of(error, self.settings)})
            return
        self.meter.step_aside()
        complain(f"castore: {self.settings.scrubbed(error.message)}")


def _source(path: str) -> Any:
    if path != STDIN:
        return path
    if sys.stdin is None:
        raise SourceError("cannot read stdin: it is closed")
    return sys.stdin.buffer


def b3sum_line(digest: B3Digest, path: str) -> bytes:
    """Return a line as b3sum prints it; a name that would break the line is escaped, and so marked."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return b"%s%s  %s\n" % (mark, str(digest).encode("ascii"), escaped)
