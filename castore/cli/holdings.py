"""What a service has of a blob, as it is shown with `--json`."""

from __future__ import annotations

from typing import Any

from castore.cli.settings import Settings
from castore.contract.plans import Holding


def holding_row(holding: Holding, settings: Settings) -> dict[str, Any]:
    """Return what a service has; chunks and bytes are `None` where nobody knows its chunks."""
    listed = bool(holding.chunks)
    return {
        "state": holding.state,
        "indexed": holding.listed,
        "chunks": len(holding.distinct) if listed else None,
        "chunks_present": len(holding.here) if listed else None,
        "size": holding.distinct.size if listed else None,
        "size_present": holding.here.size if listed else None,
        "cause": settings.scrubbed(holding.cause) or None,
    }
