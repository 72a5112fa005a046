"""A server over HTTP and a browser, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, browsing
from served_over_http import web

__all__ = ["browser", "web"]


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all, as it takes a second to begin."""
    with browsing(tmp_path_factory.mktemp("browser")) as one:
        yield one
