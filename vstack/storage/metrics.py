"""The storage node's metrics: counts of its own, and the engine's figures read at every scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vstack.service.metrics import LATENCY_BUCKETS_S
from vstack.storage.contract import DiskState, Engine

PREFIX = "vstack_storage"


class StorageMetrics:
    """What handlers count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.put_bytes = Counter(f"{PREFIX}_put_bytes", "Bytes of chunks that were stored durably", registry=registry)
        self.get_bytes = Counter(f"{PREFIX}_get_bytes", "Bytes of chunks that were served", registry=registry)
        self.put_duration = Histogram(
            f"{PREFIX}_put_duration_seconds",
            "Time from a received body to its durability",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.get_duration = Histogram(
            f"{PREFIX}_get_duration_seconds",
            "Time to read and verify a chunk",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.corruption = Counter(f"{PREFIX}_corruption", "Reads that failed their checksum", registry=registry)
        self._acceptor_messages = Counter(
            f"{PREFIX}_acceptor_messages",
            "Messages of ChunkPaxos by kind and by what the acceptor answered",
            ("kind", "outcome"),
            registry=registry,
        )

    def count_acceptor_message(self, kind: str, outcome: str) -> None:
        self._acceptor_messages.labels(kind, outcome).inc()


class EngineCollector(Collector):
    """The engine's figures."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        usage, counters = self._engine.usage(), self._engine.counters()
        yield GaugeMetricFamily(f"{PREFIX}_chunks", "Stored chunks and fragments", value=usage.chunk_count)
        yield GaugeMetricFamily(f"{PREFIX}_disk_capacity_bytes", "What the node may use", value=usage.capacity_bytes)
        yield GaugeMetricFamily(f"{PREFIX}_disk_used_bytes", "What decides the disk state", value=usage.used_bytes)
        yield GaugeMetricFamily(f"{PREFIX}_live_bytes", "Bytes of chunks that can be read", value=usage.live_bytes)
        yield GaugeMetricFamily(
            f"{PREFIX}_quarantined_bytes", "Bytes that recovery could not make sense of", value=usage.quarantined_bytes
        )
        state = GaugeMetricFamily(f"{PREFIX}_disk_state", "1 for the state that the disk is in", labels=("state",))
        for name in DiskState:
            state.add_metric((name,), float(name is usage.state))
        yield state
        yield CounterMetricFamily(f"{PREFIX}_flushes", "Calls of fdatasync", value=counters.flushes)
        yield CounterMetricFamily(
            f"{PREFIX}_flushed_writes", "Records made durable by those flushes", value=counters.flushed_writes
        )
        yield CounterMetricFamily(
            f"{PREFIX}_flushed_bytes", "Bytes of those records on the disk", value=counters.flushed_bytes
        )
