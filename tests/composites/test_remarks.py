"""One warning a minute: `castore.composites.remarks`."""

from __future__ import annotations

import logging

import pytest

from castore.composites.remarks import Remarks


def test_a_part_that_is_down_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With how often it failed meanwhile."""
    now = [0.0]
    remarks = Remarks(logging.getLogger("a part"), lambda: now[0])
    for second, times in ((0, 1), (1, 1), (30, 2), (59, 1), (61, 1), (62, 1), (200, 3)):
        now[0] = second
        remarks.warn("`%s` fails: %s", "it", second, times=times)

    assert [record.getMessage() for record in caplog.records] == [
        "`it` fails: 0",
        "`it` fails: 61 (and 4 more)",
        "`it` fails: 200 (and 3 more)",
    ]
