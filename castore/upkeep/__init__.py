"""Looking after services: checking, mending and copying what they keep, through their capabilities alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from castore.upkeep.collecting import Collected, MissingRootsError, collect
    from castore.upkeep.copying import Copied, Copier, CopyCounts, copy
    from castore.upkeep.copying_trees import TreeCopier, TreeStores
    from castore.upkeep.explaining import explain
    from castore.upkeep.findings import Counts, Finding, Report, Scope
    from castore.upkeep.ledger import Ledger, StateFileError
    from castore.upkeep.locating import Location, locate
    from castore.upkeep.repairing import Mending, repair
    from castore.upkeep.repairing_trees import TreeDonor, repair_trees
    from castore.upkeep.spreading import PartDone, spread
    from castore.upkeep.totalling import Totals, total
    from castore.upkeep.verifying import Verification, verify
    from castore.upkeep.verifying_trees import TreeReport, TreeRoot, TreeVerification, verify_trees

__all__ = [
    "Collected",
    "Copied",
    "Copier",
    "CopyCounts",
    "Counts",
    "Finding",
    "Ledger",
    "Location",
    "Mending",
    "MissingRootsError",
    "PartDone",
    "Report",
    "Scope",
    "StateFileError",
    "Totals",
    "TreeCopier",
    "TreeDonor",
    "TreeReport",
    "TreeRoot",
    "TreeStores",
    "TreeVerification",
    "Verification",
    "collect",
    "copy",
    "explain",
    "locate",
    "repair",
    "repair_trees",
    "spread",
    "total",
    "verify",
    "verify_trees",
]

# What is imported when it is first used: a service that reads for the sake of checking needs little of this.
_HOMES: Final = {
    "Collected": "castore.upkeep.collecting",
    "Copied": "castore.upkeep.copying",
    "Copier": "castore.upkeep.copying",
    "CopyCounts": "castore.upkeep.copying",
    "Finding": "castore.upkeep.findings",
    "Ledger": "castore.upkeep.ledger",
    "Location": "castore.upkeep.locating",
    "Mending": "castore.upkeep.repairing",
    "MissingRootsError": "castore.upkeep.collecting",
    "PartDone": "castore.upkeep.spreading",
    "Report": "castore.upkeep.findings",
    "Scope": "castore.upkeep.findings",
    "StateFileError": "castore.upkeep.ledger",
    "Counts": "castore.upkeep.findings",
    "Totals": "castore.upkeep.totalling",
    "TreeCopier": "castore.upkeep.copying_trees",
    "TreeStores": "castore.upkeep.copying_trees",
    "TreeDonor": "castore.upkeep.repairing_trees",
    "TreeReport": "castore.upkeep.verifying_trees",
    "TreeRoot": "castore.upkeep.verifying_trees",
    "TreeVerification": "castore.upkeep.verifying_trees",
    "Verification": "castore.upkeep.verifying",
    "collect": "castore.upkeep.collecting",
    "copy": "castore.upkeep.copying",
    "explain": "castore.upkeep.explaining",
    "locate": "castore.upkeep.locating",
    "repair": "castore.upkeep.repairing",
    "repair_trees": "castore.upkeep.repairing_trees",
    "spread": "castore.upkeep.spreading",
    "total": "castore.upkeep.totalling",
    "verify": "castore.upkeep.verifying",
    "verify_trees": "castore.upkeep.verifying_trees",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `castore.upkeep` has no attribute `{name}`")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
