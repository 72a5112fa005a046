"""How long to fuzz: a moment each in an ordinary run, `CASTORE_FUZZ_SECONDS` each by hand.

`CASTORE_FUZZ_SECONDS=60 pytest tests/fuzz` runs each test again and again for a minute. What hypothesis
finds it keeps in `.hypothesis`, and tries first the next time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

SECONDS = float(os.environ.get("CASTORE_FUZZ_SECONDS", "0"))

settings.register_profile(
    "fuzz",
    max_examples=2000 if SECONDS else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if "fuzz" in item.path.parts and SECONDS:
            # What hangs is still found, only later.
            item.add_marker(pytest.mark.timeout(2 * SECONDS + 300))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test until its time is over, with other random data each time."""
    if not SECONDS:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        pyfuncitem.obj(**arguments)
    return True
