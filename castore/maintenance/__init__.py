"""Looking after services: checking, mending and copying what they keep, through their powers alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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

# What is imported when it is first used: a service that reads for the sake of checking needs little of this.
_HOMES: Final = {
    "Collected": "castore.maintenance.collecting",
    "Copied": "castore.maintenance.copying",
    "Copier": "castore.maintenance.copying",
    "CopyTally": "castore.maintenance.copying",
    "Finding": "castore.maintenance.findings",
    "Ledger": "castore.maintenance.ledger",
    "Location": "castore.maintenance.locating",
    "Mending": "castore.maintenance.repairing",
    "MissingRootsError": "castore.maintenance.collecting",
    "Report": "castore.maintenance.findings",
    "Scope": "castore.maintenance.findings",
    "StateFileError": "castore.maintenance.ledger",
    "Tally": "castore.maintenance.findings",
    "Verification": "castore.maintenance.verifying",
    "collect": "castore.maintenance.collecting",
    "copy": "castore.maintenance.copying",
    "explain": "castore.maintenance.explaining",
    "locate": "castore.maintenance.locating",
    "repair": "castore.maintenance.repairing",
    "verify": "castore.maintenance.verifying",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `castore.maintenance` has no attribute `{name}`")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
