"""The service types that stand around one other service, and one that stands in for none."""

from __future__ import annotations

from typing import Final

from castore import BlobService, RefService, Registry, hookimpl
from castore.contract.directories import DirectoryService

_CLASSES: Final = {
    "breaker": "Breaker",
    "error": "Error",
    "faulty": "Faulty",
    "limit": "Limit",
    "read_only": "ReadOnly",
    "retry": "Retry",
    "timeout": "Timeout",
    "verify": "Verify",
}
"""How the config classes of a type begin, of which there is one for each kind of service."""

_OF_REFS: Final = ("read_only", "retry")
"""The types that there are for services of refs, too."""

_ONLY_IF: Final = {"faulty": "allow_faults"}


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types; `faulty` for compositions that allow faults."""
    for tag, name in _CLASSES.items():
        for kind, config in ((BlobService, f"{name}Config"), (DirectoryService, f"{name}DirectoriesConfig")):
            registry.register(kind, tag, f"castore_wrappers.{tag}.config:{config}", only_if=_ONLY_IF.get(tag))
    for tag in _OF_REFS:
        registry.register(RefService, tag, f"castore_wrappers.{tag}.config:{_CLASSES[tag]}RefsConfig")
