"""What a server did, and what its composition measured, for Prometheus; needs `castore[prometheus]`.

====================================  =======  ==================================================
`castore_grpc_calls_total`            counter  calls that have ended, by `method` and `code`
`castore_grpc_call_seconds_total`     counter  how long those took together, by `method`
`castore_grpc_received_bytes_total`   counter  bytes of messages that have come, by `method`
`castore_grpc_sent_bytes_total`       counter  bytes of messages that were sent, by `method`
====================================  =======  ==================================================

And all that `castore.metrics.prometheus` has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from castore.errors import CompositionError
from castore.metrics.prometheus import CompositionCollector
from castore.threads import forks

if TYPE_CHECKING:
    from castore.composition.composition import Composition
    from castore.serving.grpc.calls import CallRecord


class CallCounts:
    """Counts calls that have ended."""

    def __init__(self) -> None:
        self._lock = forks.new_lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()

    def __call__(self, record: CallRecord) -> None:
        """Count a call."""
        with self._lock:
            self._calls[record.path, record.code] += 1
            self._seconds[record.path] += record.seconds  # type: ignore[assignment] # a counter takes them
            self._received[record.path] += record.received
            self._sent[record.path] += record.sent

    def collect(self) -> Iterator[Any]:
        """Return what was counted up to now."""
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - once somebody asks

        with self._lock:
            calls = dict(self._calls)
            sums = {
                ("castore_grpc_call_seconds", "Seconds that calls took."): dict(self._seconds),
                ("castore_grpc_received_bytes", "Bytes of messages received."): dict(self._received),
                ("castore_grpc_sent_bytes", "Bytes of messages sent."): dict(self._sent),
            }
        family = CounterMetricFamily(
            "castore_grpc_calls", "Calls that have ended.", labels=("method", "code")
        )
        for labels, count in calls.items():
            family.add_metric(labels, count)
        yield family
        for (name, words), values in sums.items():
            family = CounterMetricFamily(name, words, labels=("method",))
            for path, value in values.items():
                family.add_metric((path,), value)
            yield family


class MetricsPage:
    """Serves `/metrics`, until it is closed.

    Arguments:
        host: Where to listen.
        port: The port; 0 is any that is free.
        stores: The composition, which must be measured.
        calls: What was counted of calls.

    Raises `CompositionError` if it cannot listen there.
    """

    def __init__(self, host: str, port: int, stores: Composition, calls: CallCounts) -> None:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - as above

        registry = CollectorRegistry(auto_describe=False)
        registry.register(CompositionCollector(stores))
        registry.register(calls)
        try:
            self._server, self._thread = start_http_server(port, host or "0.0.0.0", registry)
        except OSError as error:
            raise CompositionError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
