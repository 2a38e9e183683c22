"""Keeps the gauges of /metrics fresh, so that a scrape never waits for the database."""

from typing import Final

from vstack.metadata.catalogue import nodes, stats
from vstack.metadata.metrics import MetadataMetrics
from vstack.metadata.postgres.database import Database

INTERVAL_S: Final = 5.0
PASSES_PER_COUNT: Final = 12
"""Counting all chunks reads whole indexes, so it happens once a minute."""


class Sampler:
    """The job of one instance."""

    def __init__(self, db: Database, metrics: MetadataMetrics) -> None:
        self._db = db
        self._metrics = metrics
        self._until_count = 0

    async def run_once(self) -> None:
        """Sample; without a database the gauges keep what they had."""
        self._metrics.set_nodes(nodes.counts(await nodes.all_nodes(self._db)))
        self._metrics.set_videos(await stats.videos_by_status(self._db))
        if self._until_count <= 0:
            counts = await stats.chunk_counts(self._db)
            self._metrics.set_chunks(counts.chunks, counts.degraded)
            self._until_count = PASSES_PER_COUNT
        self._until_count -= 1
