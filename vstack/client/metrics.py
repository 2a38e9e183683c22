"""The client's metrics: totals over all playbacks of this process, and the state of the one that runs.

Nodes have no label, so that the number of series does not grow with the cluster: their scores are told as the lowest,
the mean and the highest.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vstack.client.station import Station
from vstack.client.views import scores
from vstack.core.playback.scoring import Failure

PREFIX: Final = "vstack_client"
STARTUP_BUCKETS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
OUTCOMES: Final = ("ok", "cancelled", *(str(reason) for reason in Failure))


def startup_histogram(registry: CollectorRegistry) -> Histogram:
    """Startup latencies, observed as playbacks start."""
    return Histogram(
        f"{PREFIX}_startup_seconds",
        "Time from pressing play to the first picture",
        buckets=STARTUP_BUCKETS_S,
        registry=registry,
    )


class StationCollector(Collector):
    """A station's figures, read at every scrape."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def collect(self) -> Iterator[Metric]:
        yield from self._now()
        yield from self._counts()

    def _now(self) -> Iterator[Metric]:
        figures = self._station.figures
        playing = figures is not None and figures.playing
        level_s = figures.buffer.level_s if figures is not None and playing else 0.0
        yield GaugeMetricFamily(f"{PREFIX}_playing", "1 while a video plays", value=float(playing))
        yield GaugeMetricFamily(f"{PREFIX}_buffer_seconds", "Verified media ahead of the playhead", value=level_s)
        values = list(scores(self._station.client.nodes).values())
        score = GaugeMetricFamily(f"{PREFIX}_node_score", "Scores of the known nodes", labels=("aggregate",))
        if values:
            score.add_metric(("lowest",), min(values))
            score.add_metric(("mean",), sum(values) / len(values))
            score.add_metric(("highest",), max(values))
        yield score

    def _counts(self) -> Iterator[Metric]:
        totals = self._station.totals
        endings = CounterMetricFamily(f"{PREFIX}_playbacks", "Playbacks by how they ended", labels=("outcome",))
        for ending, count in self._station.endings.items():
            endings.add_metric((ending,), count)
        yield endings
        downloads = CounterMetricFamily(f"{PREFIX}_downloads", "Downloads by outcome", labels=("outcome",))
        for outcome in OUTCOMES:
            downloads.add_metric((outcome,), totals.outcomes[outcome])
        yield downloads
        for name, text, value in (
            ("download_bytes", "Bytes that were received and verified", totals.downloaded_bytes),
            ("failovers", "Failed downloads that another node took over", totals.failovers),
            ("hedges", "Second requests for chunks that were late", totals.hedges),
            ("stalls", "Times that playback ran out of media", totals.stalls),
            ("stall_seconds", "Time that playback waited for media after it had started", totals.stall_s),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)
