"""Looking after services: checking, mending and copying what they keep, through their powers alone."""

from __future__ import annotations

from castore.maintenance.collecting import Collected, MissingRootsError, collect
from castore.maintenance.copying import Copied, Copier, CopyTally, copy
from castore.maintenance.explaining import explain
from castore.maintenance.findings import Finding, Report, Scope, Tally
from castore.maintenance.ledger import Ledger, StateFileError
from castore.maintenance.locating import Location, locate
from castore.maintenance.repairing import Mending, repair
from castore.maintenance.verifying import Verification, verify

__all__ = [
    "Collected",
    "Copied",
    "Copier",
    "CopyTally",
    "Finding",
    "Ledger",
    "Location",
    "Mending",
    "MissingRootsError",
    "Report",
    "Scope",
    "StateFileError",
    "Tally",
    "Verification",
    "collect",
    "copy",
    "explain",
    "locate",
    "repair",
    "verify",
]
