"""The `faulty` service type: another service, with faults made on purpose."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the type, for compositions that allow faults."""
    from castore_faulty.config import FaultyConfig  # noqa: PLC0415 - only when the registry is filled

    registry.register(BlobService, "faulty", FaultyConfig, only_if="allow_faults")
