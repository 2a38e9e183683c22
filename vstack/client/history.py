"""The last minutes of a client's figures, for charts: one ring buffer per curve, sampled every 2 s."""

from collections import deque
from collections.abc import Mapping
from typing import Final

from vstack.wire.client import History, LevelSample, ScoreSample, ThroughputSample

SAMPLE_INTERVAL_S: Final = 2.0
MAX_SAMPLES: Final = 300


class Recorder:
    """Ten minutes of samples. Curves of nodes that are no longer known are dropped."""

    def __init__(self) -> None:
        self._levels: deque[LevelSample] = deque(maxlen=MAX_SAMPLES)
        self._throughputs: deque[ThroughputSample] = deque(maxlen=MAX_SAMPLES)
        self._scores: dict[str, deque[ScoreSample]] = {}

    def sample(self, timestamp: float, *, level_s: float, mbps: float, scores: Mapping[str, float]) -> None:
        """Add one point to every curve. `timestamp` is in seconds since 1970."""
        self._levels.append(LevelSample(timestamp=timestamp, level=level_s))
        self._throughputs.append(ThroughputSample(timestamp=timestamp, mbps=mbps))
        self._scores = {node: self._scores.get(node) or deque(maxlen=MAX_SAMPLES) for node in scores}
        for node, score in scores.items():
            self._scores[node].append(ScoreSample(timestamp=timestamp, score=score))

    def history(self) -> History:
        return History(
            buffer_history=tuple(self._levels),
            throughput_history=tuple(self._throughputs),
            node_score_history={node: tuple(samples) for node, samples in self._scores.items()},
        )
