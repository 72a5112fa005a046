"""The exporter for Prometheus: what was measured, under names and labels that stay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from castore import B3Digest, Composition, UnavailableError
from castore.metrics.prometheus import CompositionCollector
from castore.testing import HELLO

TABLES: dict[str, Any] = {
    "root": {"type": "breaker", "inner": "&kept", "failures": 1},
    "kept": {"type": "memory"},
    "gone": {"type": "error"},
}


@pytest.fixture
def stores() -> Iterator[Composition]:
    tables = {"blobservices": TABLES, "allow_faults": True}
    with Composition.from_mapping(tables) as stores:
        yield stores


def samples(collector: CompositionCollector) -> dict[tuple[str, str, str], float]:
    """Return the samples as Prometheus reads them: by name, instance, and what else tells them apart."""
    registry = CollectorRegistry()
    registry.register(collector)
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                continue
            labels = dict(sample.labels)
            assert labels.pop("kind") == "blob service"
            composition, instance = labels.pop("composition"), labels.pop("instance")
            assert composition == "<mapping>"
            assert labels.pop("type") == TABLES[instance]["type"]
            [last] = labels.values() or [""]
            found[sample.name, instance, last] = sample.value
    return found


def test_everything_that_was_measured(stores: Composition) -> None:
    root = stores.blobs()
    digest = root.write(HELLO.data)
    root.has(digest)
    root.missing([digest, B3Digest.of(b"absent"), B3Digest.of(b"gone")])
    root.read(digest)
    with pytest.raises(UnavailableError):
        stores.blobs("gone").has(digest)

    found = samples(CompositionCollector(stores))

    assert found["castore_operations_total", "root", "has"] == 1
    assert found["castore_operations_under_way", "root", "has"] == 0
    assert found["castore_items_total", "root", "has"] == 1
    assert found["castore_operations_total", "root", "missing"] == 1
    assert found["castore_items_total", "root", "missing"] == 3
    assert found["castore_misses_total", "root", "missing"] == 2
    assert found["castore_hits_total", "root", "has"] == 1
    assert found["castore_misses_total", "root", "has"] == 0
    assert found["castore_written_bytes_total", "root", ""] == len(HELLO.data)
    assert found["castore_read_bytes_total", "root", ""] == len(HELLO.data)
    assert found["castore_errors_total", "gone", "unavailable"] == 1
    assert found["castore_gauge", "root", "is_closed"] == 1
    assert found["castore_operation_duration_seconds_count", "root", "has"] == 1
    assert found["castore_operation_duration_seconds_sum", "root", "has"] > 0


def test_errors_are_there_before_there_are_any(stores: Composition) -> None:
    """Else the first one would not be seen to come."""
    found = samples(CompositionCollector(stores))
    kinds = [kind for name, instance, kind in found if (name, instance) == ("castore_errors_total", "kept")]
    assert kinds == ["corrupt", "unavailable", "unsupported", "other"]


def test_buckets_add_up(stores: Composition) -> None:
    for _ in range(10):
        stores.blobs().has(HELLO.digest)
    registry = CollectorRegistry()
    registry.register(CompositionCollector(stores))
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name.endswith("_bucket") and sample.labels["instance"] == "root"
    ]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), 10)
    assert len(buckets) == 15


def test_registering_asks_for_nothing(stores: Composition, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = CompositionCollector(stores)
    monkeypatch.setattr(Composition, "metrics", None)
    CollectorRegistry().register(collector)


def test_several_compositions_have_names(stores: Composition) -> None:
    with Composition.from_mapping({"blobservices": {"root": {"type": "memory"}}}) as other:
        with pytest.raises(ValueError, match=r"two compositions are called `<mapping>`: name them"):
            CompositionCollector(stores, other)
        registry = CollectorRegistry()
        registry.register(CompositionCollector(one=stores, two=other))
        text = generate_latest(registry).decode()
    assert 'composition="one"' in text
    assert 'composition="two"' in text


def test_without_the_package_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; import castore.metrics.prometheus"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "castore.errors.MissingDriverError" in run.stderr.splitlines()[-1]
    assert "pip install 'castore[prometheus]'" in run.stderr.splitlines()[-1]
