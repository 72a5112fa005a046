"""The `faulty` service type: another service, with faults made on purpose."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type, for compositions that allow faults."""
    registry.register(BlobService, "faulty", "castore_faulty.config:FaultyConfig", only_if="allow_faults")
