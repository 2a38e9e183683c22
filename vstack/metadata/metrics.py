"""What the metadata service counts beyond its requests."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vstack.metadata.postgres.database import Database
from vstack.service.metrics import LATENCY_BUCKETS_S
from vstack.wire.metadata import NodeStatus


class MetadataMetrics:
    """The service's own metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commit_s = Histogram(
            "vstack_metadata_commit_duration_seconds",
            "Time to commit a chunk, by outcome: committed, degraded, or the code of the error",
            ("outcome",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._nodes = Gauge("vstack_metadata_nodes", "Storage nodes by status", ("status",), registry=registry)
        self._videos = Gauge("vstack_metadata_videos", "Videos by status", ("status",), registry=registry)
        self._chunks = Gauge("vstack_metadata_chunks", "Committed chunks", registry=registry)
        self._degraded = Gauge(
            "vstack_metadata_degraded_chunks", "Committed chunks with a copy or fragment missing", registry=registry
        )
        self._reaped_videos = Counter(
            "vstack_metadata_reaper_videos_total", "Videos whose data were removed everywhere", registry=registry
        )
        self._reaped_objects = Counter(
            "vstack_metadata_reaper_objects_total", "Chunks and fragments removed from storage nodes", registry=registry
        )
        self._reap_pending = Gauge(
            "vstack_metadata_reaper_pending_videos", "Videos whose data wait to be removed", registry=registry
        )

    def observe_commit(self, outcome: str, elapsed_s: float) -> None:
        self._commit_s.labels(outcome).observe(elapsed_s)

    def set_nodes(self, counts: Mapping[NodeStatus, int]) -> None:
        for status, count in counts.items():
            self._nodes.labels(status).set(count)

    def set_videos(self, counts: Mapping[str, int]) -> None:
        for status, count in counts.items():
            self._videos.labels(status).set(count)

    def set_chunks(self, total: int, degraded: int) -> None:
        self._chunks.set(total)
        self._degraded.set(degraded)

    def set_reap_pending(self, videos: int) -> None:
        self._reap_pending.set(videos)

    def count_reaped_objects(self, objects: int) -> None:
        self._reaped_objects.inc(objects)

    def count_reaped_video(self) -> None:
        self._reaped_videos.inc()


class DatabaseCollector(Collector):
    """The state of the database and of the pool of connections to it, read when they are scraped."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def collect(self) -> Iterator[Metric]:
        pool = self._db.pool_figures()
        yield GaugeMetricFamily(
            "vstack_metadata_database_up", "1 while the database answers", value=float(self._db.available)
        )
        connections = GaugeMetricFamily(
            "vstack_metadata_database_connections", "Pooled connections, all and idle", labels=("state",)
        )
        connections.add_metric(("all",), pool.get("pool_size", 0))
        connections.add_metric(("idle",), pool.get("pool_available", 0))
        yield connections
        yield GaugeMetricFamily(
            "vstack_metadata_database_waiting",
            "Calls that wait for a connection",
            value=pool.get("requests_waiting", 0),
        )
        yield CounterMetricFamily(
            "vstack_metadata_database_wait_seconds",
            "Time that calls have waited for a connection",
            value=pool.get("requests_wait_ms", 0) / 1000,
        )
