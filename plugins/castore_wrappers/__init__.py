"""The service types that stand around one other service, and one that stands in for none."""

from __future__ import annotations

from castore import BlobService, Registry, hookimpl


@hookimpl
def castore_register(registry: Registry) -> None:
    """Register the types; `faulty` for compositions that allow faults."""
    registry.register(BlobService, "breaker", "castore_wrappers.breaker.config:BreakerConfig")
    registry.register(BlobService, "error", "castore_wrappers.error.config:ErrorConfig")
    registry.register(
        BlobService, "faulty", "castore_wrappers.faulty.config:FaultyConfig", only_if="allow_faults"
    )
    registry.register(BlobService, "limit", "castore_wrappers.limit.config:LimitConfig")
    registry.register(BlobService, "read_only", "castore_wrappers.read_only.config:ReadOnlyConfig")
    registry.register(BlobService, "retry", "castore_wrappers.retry.config:RetryConfig")
    registry.register(BlobService, "timeout", "castore_wrappers.timeout.config:TimeoutConfig")
    registry.register(BlobService, "verify", "castore_wrappers.verify.config:VerifyConfig")
