"""Things that go wrong on purpose, and the same way each time: services and object stores with faults.

========================  =====================================================================
`FaultyService`           any service of blobs, with faults
`FaultyDirectoryService`  any service of directories, with faults
`FaultyObjects`           any object store, with faults
`FaultPlan`               how often which fault comes, and the seed that decides when
`Faults`                  what came of a plan: its `trace`; and `release`, which ends all waiting
`READS`, `WRITES`         the names of a service's operations; `OBJECT_READS`, `OBJECT_WRITES` of a store's
========================  =====================================================================
"""

from __future__ import annotations

from castore.faults.injecting import Fault, Faults
from castore.faults.objects import FaultyObjects
from castore.faults.operations import OBJECT_READS, OBJECT_WRITES, READS, WRITES
from castore.faults.plan import KINDS, FaultPlan
from castore.faults.service import Faulty, FaultyDirectoryService, FaultyService

__all__ = [
    "KINDS",
    "OBJECT_READS",
    "OBJECT_WRITES",
    "READS",
    "WRITES",
    "Fault",
    "FaultPlan",
    "Faults",
    "Faulty",
    "FaultyDirectoryService",
    "FaultyObjects",
    "FaultyService",
]
