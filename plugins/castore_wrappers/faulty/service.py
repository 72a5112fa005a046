"""A service of a composition with faults in front of another one."""

from __future__ import annotations

import logging
from typing import Final

from castore import BlobService
from castore.contract.directories import DirectoryService
from castore.faults import Fault, FaultPlan, Faulty, FaultyDirectoryService, FaultyService

_log: Final = logging.getLogger("castore_wrappers.faulty")


class _Reporting(Faulty):
    """Logs each fault, by `castore_wrappers.faulty`: as a warning, or, if it is a delay, as news."""

    def report(self) -> None:
        """Begin to log."""
        self.faults.on_fault = self._report

    def _report(self, fault: Fault) -> None:
        _log.log(
            logging.INFO if fault.kind == "delay" else logging.WARNING, "`%s`: %s", self._instance, fault
        )

    def close(self) -> None:
        """Let go of all who wait. The composition closes the service behind."""
        self.faults.release()


class Rehearsal(_Reporting, FaultyService):
    """Makes faults in front of a service of blobs that is not its own."""

    def __init__(self, service: BlobService, *, instance: str, plan: FaultPlan) -> None:
        FaultyService.__init__(self, service, instance=instance, plan=plan)
        self.report()


class DirectoryRehearsal(_Reporting, FaultyDirectoryService):
    """Makes faults in front of a service of directories that is not its own."""

    def __init__(self, service: DirectoryService, *, instance: str, plan: FaultPlan) -> None:
        FaultyDirectoryService.__init__(self, service, instance=instance, plan=plan)
        self.report()
