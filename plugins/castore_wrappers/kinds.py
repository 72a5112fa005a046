"""The kinds of services that there are wrappers for."""

from __future__ import annotations

from typing import TypeVar

from castore import BlobService, RefService
from castore.contract.directories import DirectoryService

S = TypeVar("S", bound=BlobService | DirectoryService | RefService)
"""A service of any kind."""
