"""A kit to test services with: bundled ones, a stranger's, and compositions of both.

============================  ==================================================================
`BlobServiceContract`         a pytest class: write one fixture, get a test for each clause
`blob_service_machine`        a hypothesis state machine that compares a service with a dict
`run_contract`, `CLAUSES`     the same clauses without pytest
`DirectoryServiceContract`    a pytest class for services of directories
`DIRECTORY_CLAUSES`           its clauses, for `run_contract`
`RefServiceContract`          a pytest class for services of refs
`REF_CLAUSES`                 its clauses
`Hides`                       tells the clauses which blobs a service hides
`FaultyService`               a service that fails when told to, or by a plan, to test what stands before it
`FaultyDirectoryService`      the same for services of directories
`FaultyObjects`               an object store that does so by a plan, to test what stands on it
`FaultPlan`                   which faults come, how often, and the seed that decides when
`BLOBS` and their names       blobs with known digests
============================  ==================================================================

The first needs pytest, the second hypothesis: `pip install 'castore[testing]'`; the others need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from castore.faults import FaultPlan, FaultyDirectoryService, FaultyObjects, FaultyService
from castore.testing.blobs import BLOB_A, BLOB_B, BLOBS, CHUNKS, EMPTY, HELLO, P3M, ZEROS_1M, Blob
from castore.testing.clause import Clause, ContractError, Hides
from castore.testing.contract import CLAUSES, DIRECTORY_CLAUSES, REF_CLAUSES, Outcome, run_contract

if TYPE_CHECKING:
    from castore.testing.stateful import blob_service_machine
    from castore.testing.suite import BlobServiceContract, DirectoryServiceContract, RefServiceContract

__all__ = [
    "BLOBS",
    "BLOB_A",
    "BLOB_B",
    "CHUNKS",
    "CLAUSES",
    "DIRECTORY_CLAUSES",
    "EMPTY",
    "HELLO",
    "P3M",
    "REF_CLAUSES",
    "ZEROS_1M",
    "Blob",
    "BlobServiceContract",
    "Clause",
    "ContractError",
    "DirectoryServiceContract",
    "FaultPlan",
    "FaultyDirectoryService",
    "FaultyObjects",
    "FaultyService",
    "Hides",
    "Outcome",
    "RefServiceContract",
    "blob_service_machine",
    "run_contract",
]

# Importing the kit must need neither pytest nor hypothesis: the command line checks services, too.
_LAZY: Final = {
    "BlobServiceContract": "castore.testing.suite",
    "DirectoryServiceContract": "castore.testing.suite",
    "RefServiceContract": "castore.testing.suite",
    "blob_service_machine": "castore.testing.stateful",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
