"""The kinds of services that there are wrappers for."""

from __future__ import annotations

from typing import TypeVar

from castore import BlobService
from castore.contract.directories import DirectoryService

S = TypeVar("S", bound=BlobService | DirectoryService)
"""A service of either kind."""
