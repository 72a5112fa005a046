"""What was measured of compositions, for Prometheus; needs the extra `castore[prometheus]`.

::

    from prometheus_client import REGISTRY, start_http_server
    from castore.metrics.prometheus import CompositionCollector

    REGISTRY.register(CompositionCollector(stores))
    start_http_server(9400)

======================================  =========  ==================================================
`castore_operations_total`              counter    calls that have ended, by `operation`
`castore_operations_under_way`          gauge      calls that have not, by `operation`
`castore_items_total`                   counter    how many things those were about, by `operation`
`castore_operation_duration_seconds`    histogram  how long calls took, by `operation`
`castore_hits_total`                    counter    what was asked for and there, by `operation`
`castore_misses_total`                  counter    what was asked for and absent, by `operation`
`castore_errors_total`                  counter    calls, and items of calls for many, that failed, by
                                                   `error`: corrupt, unavailable, unsupported, other
`castore_read_bytes_total`              counter    bytes that were read
`castore_written_bytes_total`           counter    bytes that were written
`castore_gauge`                         gauge      what a service tells of itself, by `gauge`
======================================  =========  ==================================================

Each has the labels `composition`, `kind`, `instance` and `type`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from castore.errors import MissingDriverError
from castore.metrics.model import BOUNDS, ERROR_KINDS, Histogram, InstanceMetrics

if TYPE_CHECKING:
    from castore.composition.composition import Composition

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingDriverError(
        "the package `prometheus_client` is not installed: install castore with the extra `prometheus`,"
        " as by `pip install 'castore[prometheus]'`"
    ) from error

_LABELS: Final = ("composition", "kind", "instance", "type")
_STEP: Final = 2
"""Every second bucket is enough for a dashboard, and half the series."""

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class CompositionCollector(Collector):
    """Collects from compositions, whenever it is asked; register it once.

    Arguments:
        compositions: Their label `composition` is the name of their file.
        named: More of them, by what their label is to be.

    Raises `ValueError` for two of one name.
    """

    def __init__(self, *compositions: Composition, **named: Composition) -> None:
        names = [Path(stores.name).name for stores in compositions]
        self._compositions = [*zip(names, compositions, strict=True), *named.items()]
        for name in {name for name, _ in self._compositions}:
            if [other for other, _ in self._compositions].count(name) > 1:
                hint = "name them, as in `CompositionCollector(one=..., two=...)`"
                raise ValueError(f"two compositions are called `{name}`: {hint}")

    def describe(self) -> Iterator[Family]:
        """Return what there is, without asking for it."""
        yield from _new_families()

    def collect(self) -> Iterator[Family]:
        """Return what was measured up to now."""
        families = _new_families()
        for name, stores in self._compositions:
            for instance in stores.metrics():
                _add(families, [name, instance.kind, instance.name, instance.type], instance)
        yield from families


class _Families(NamedTuple):
    operations: CounterMetricFamily
    under_way: GaugeMetricFamily
    items: CounterMetricFamily
    duration: HistogramMetricFamily
    hits: CounterMetricFamily
    misses: CounterMetricFamily
    errors: CounterMetricFamily
    read_bytes: CounterMetricFamily
    written_bytes: CounterMetricFamily
    gauge: GaugeMetricFamily


def _new_families() -> _Families:
    by_operation = (*_LABELS, "operation")
    return _Families(
        CounterMetricFamily("castore_operations", "Calls that have ended.", labels=by_operation),
        GaugeMetricFamily("castore_operations_under_way", "Calls that have not ended.", labels=by_operation),
        CounterMetricFamily("castore_items", "Things that ended calls were about.", labels=by_operation),
        HistogramMetricFamily(
            "castore_operation_duration_seconds", "How long calls took.", labels=by_operation
        ),
        CounterMetricFamily("castore_hits", "What was asked for and there.", labels=by_operation),
        CounterMetricFamily("castore_misses", "What was asked for and absent.", labels=by_operation),
        CounterMetricFamily(
            "castore_errors", "Calls, and items of calls, that failed.", labels=(*_LABELS, "error")
        ),
        CounterMetricFamily("castore_read_bytes", "Bytes that were read.", labels=_LABELS),
        CounterMetricFamily("castore_written_bytes", "Bytes that were written.", labels=_LABELS),
        GaugeMetricFamily("castore_gauge", "What a service tells of itself.", labels=(*_LABELS, "gauge")),
    )


def _add(families: _Families, labels: Sequence[str], instance: InstanceMetrics) -> None:
    for operation, counted in instance.operations.items():
        where = (*labels, operation)
        families.operations.add_metric(where, counted.calls)
        families.under_way.add_metric(where, counted.under_way)
        families.items.add_metric(where, counted.items)
        families.duration.add_metric(where, _buckets(counted.latency), counted.seconds)
        families.hits.add_metric(where, counted.hits)
        families.misses.add_metric(where, counted.misses)
    total = instance.total
    for kind in ERROR_KINDS:
        families.errors.add_metric((*labels, kind), total.errors.get(kind, 0))
    families.read_bytes.add_metric(labels, total.bytes_out)
    families.written_bytes.add_metric(labels, total.bytes_in)
    for name, value in instance.gauges.items():
        families.gauge.add_metric((*labels, name), value)


def _buckets(latency: Histogram) -> list[tuple[str, float]]:
    """Return how many calls took no longer than each of some bounds, and how many there were."""
    reached = list(accumulate(latency.counts))
    bounds = list(zip(BOUNDS, reached, strict=False))[::_STEP]
    return [*((repr(bound), float(count)) for bound, count in bounds), ("+Inf", float(reached[-1]))]
