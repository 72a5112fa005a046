"""A service of a composition with faults in front of another one."""

from __future__ import annotations

import logging
from typing import Final

from castore import BlobService
from castore.faults import Fault, FaultPlan, FaultyService

_log: Final = logging.getLogger("castore_wrappers.faulty")


class Rehearsal(FaultyService):
    """Makes faults in front of a service that is not its own.

    Each is logged, by the logger `castore_wrappers.faulty`: as a warning, or, if it is a delay, as news.
    """

    def __init__(self, service: BlobService, *, instance: str, plan: FaultPlan) -> None:
        super().__init__(service, instance=instance, plan=plan)
        self.faults.on_fault = self._report

    def _report(self, fault: Fault) -> None:
        _log.log(
            logging.INFO if fault.kind == "delay" else logging.WARNING, "`%s`: %s", self._instance, fault
        )

    def close(self) -> None:
        """Let go of all who wait. The composition closes the service behind."""
        self.faults.release()
