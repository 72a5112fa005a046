"""Clusters that run parts of long work."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from castore.errors import CastoreError, MissingDriverError, UnavailableError

if TYPE_CHECKING:
    from castore.upkeep.spreading import Submit

_CONNECT_SECONDS: Final = 10.0

_TRIES: Final = 3
"""How often a task is run whose worker is lost."""


@contextlib.contextmanager
def dask_cluster(address: str) -> Iterator[Submit]:
    """Connect to the scheduler of a Dask cluster; give what runs a function there.

    Raises `MissingDriverError` without Dask, and `UnavailableError` if there is no scheduler.
    """
    try:
        distributed: Any = importlib.import_module("distributed")  # Heavy, and only for who has a cluster.
    except ImportError:
        raise MissingDriverError("Dask is not installed: pip install 'dask[distributed]'") from None
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UnavailableError(address, error) from error
    with client:

        def submit(function: Callable[..., Any], *arguments: Any) -> _Task:
            # Two tasks of the same arguments are two: what they find may have changed.
            return _Task(address, client.submit(function, *arguments, pure=False, retries=_TRIES - 1))

        yield submit


@attrs.frozen
class _Task:
    """A task of a cluster, whose own errors are those of something that cannot be reached."""

    address: str
    future: Any

    def result(self) -> Any:
        try:
            return self.future.result()
        except CastoreError:
            raise
        except Exception as error:
            raise UnavailableError(self.address, error) from error

    def cancel(self) -> None:
        self.future.cancel()
