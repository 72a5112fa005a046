"""A line for each call: as text for people, or as JSON for programs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any, Literal

import attrs

from castore.serving.grpc.calls import CallRecord


class AccessLog:
    """Writes a line for each call that has ended.

    Arguments:
        write: Takes a line, from any thread.
        form: `text` or `json`.
    """

    def __init__(self, write: Callable[[str], object], form: Literal["text", "json"]) -> None:
        self._write = write
        self._line = _as_json if form == "json" else _as_text

    def __call__(self, record: CallRecord) -> None:
        """Write the line of a call."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write(self._line(now, record))


def _as_json(now: str, record: CallRecord) -> str:
    facts: dict[str, Any] = {"time": now, **attrs.asdict(record)}
    facts["seconds"] = round(record.seconds, 6)
    return json.dumps(facts)


def _as_text(now: str, record: CallRecord) -> str:
    words = [
        now,
        record.peer or "-",
        record.client or "-",
        record.path,
        record.code,
        f"{record.seconds * 1000:.1f}ms",
        f"in={record.received}",
        f"out={record.sent}",
        record.digest or "-",
    ]
    if record.details:
        words.append(json.dumps(record.details))
    return " ".join(words)
