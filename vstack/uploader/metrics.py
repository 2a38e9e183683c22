"""The uploader's own metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vstack.service.metrics import LATENCY_BUCKETS_S


class Metrics:
    """Counts of what the service does. Labels are outcomes, never ids."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.uploads = Counter(
            "vstack_uploader_uploads_total",
            "Uploads by how they ended: completed, failed, refused (in the request)",
            ("outcome",),
            registry=registry,
        )
        self.resumed_uploads = Counter(
            "vstack_uploader_resumed_uploads_total",
            "Uploads that an earlier process had not finished and this one goes on with",
            registry=registry,
        )
        self.received_bytes = Counter(
            "vstack_uploader_received_bytes_total", "Bytes of files received", registry=registry
        )
        self.receiving = Gauge("vstack_uploader_receiving", "Files being received now", registry=registry)
        self.active_jobs = Gauge("vstack_uploader_active_jobs", "Files being worked on now", registry=registry)
        self.queued_jobs = Gauge("vstack_uploader_queued_jobs", "Files waiting for their turn", registry=registry)
        self.chunk_put_seconds = Histogram(
            "vstack_uploader_chunk_put_duration_seconds",
            "Time to store one copy of a chunk durably on one node",
            ("outcome",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.chunk_commits = Counter(
            "vstack_uploader_chunk_commits_total",
            "Chunks committed: full (all copies), degraded (a copy is missing yet)",
            ("outcome",),
            registry=registry,
        )
        self.retries = Counter(
            "vstack_uploader_retries_total",
            "Repeated steps: chunk (storing and committing again), placement (other nodes chosen), metadata (a call), "
            "job (all of it)",
            ("what",),
            registry=registry,
        )
        self.ffmpeg_seconds = Counter("vstack_uploader_ffmpeg_seconds_total", "Time that ffmpeg ran", registry=registry)
