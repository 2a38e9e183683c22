"""How each node has behaved, and which one to ask next.

score = mean bandwidth in Mbps (last 10 downloads) x mean success (last 20 requests) / (1 + 0.1 x mean latency in ms).
What has not been measured counts as 50 Mbps, full success and no latency. Success counts downloads and pings alike, so
a failing node sinks with every failure and rises again as its pings come back.

The score alone forgets too slowly for a node that has just died, so two facts stand before it: a node whose last ping
failed is not reachable, and one whose downloads fail in a row is avoided for a time that doubles with each failure
(pings may succeed where reads hang). Such a node is asked only when nothing else is left.

Invariant: every history is bounded, and a node that no plan names is forgotten.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

BANDWIDTH_SAMPLES: Final = 10
OUTCOME_SAMPLES: Final = 20
LATENCY_SAMPLES: Final = 10
DEFAULT_BANDWIDTH_MBPS: Final = 50.0
LATENCY_WEIGHT_PER_MS: Final = 0.1
IN_FLIGHT_WEIGHT: Final = 0.2
AVOID_BASE_S: Final = 3.0
AVOID_MAX_S: Final = 60.0
MIN_SAMPLE_S: Final = 0.25
"""A download that was dropped sooner says nothing about speed."""
EXPLORE_AFTER_S: Final = 60.0
"""A node whose bandwidth was last measured longer ago is worth a download that is not urgent."""

Draw = Callable[[], float]
"""Randomness passed in: uniform in [0, 1)."""


class Failure(StrEnum):
    """Why a download failed. Only the last two say nothing about the node's other chunks."""

    UNREACHABLE = "unreachable"
    STALLED = "stalled"
    BROKEN = "broken"
    ERROR = "error"
    CORRUPT = "corrupt"
    MISSING = "missing"


_ABOUT_ONE_CHUNK: Final = frozenset({Failure.CORRUPT, Failure.MISSING})


@dataclass(slots=True)
class NodeRecord:
    """One node's recent history. `downloads` and `failures` count for as long as the record lives."""

    bandwidths_mbps: deque[float] = field(default_factory=lambda: deque(maxlen=BANDWIDTH_SAMPLES))
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=OUTCOME_SAMPLES))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_SAMPLES))
    in_flight: int = 0
    downloads: int = 0
    failures: int = 0
    reachable: bool = True
    failures_in_row: int = 0
    avoid_until_s: float = 0.0
    measured_at_s: float | None = None

    @property
    def bandwidth_mbps(self) -> float:
        return _mean(self.bandwidths_mbps, DEFAULT_BANDWIDTH_MBPS)

    @property
    def success_rate(self) -> float:
        return _mean(self.outcomes, 1.0)

    @property
    def latency_ms(self) -> float:
        return _mean(self.latencies_ms, 0.0)

    @property
    def score(self) -> float:
        return self.bandwidth_mbps * self.success_rate / (1 + LATENCY_WEIGHT_PER_MS * self.latency_ms)

    def expected_s(self, size_bytes: int) -> float:
        """How long a download of this size should take; infinite from a node that delivered nothing lately."""
        bits_per_s = self.bandwidth_mbps * 1e6
        return self.latency_ms / 1000 + (size_bytes * 8 / bits_per_s if bits_per_s > 0 else float("inf"))


class NodeTable:
    """The records of all nodes that current plans name. One table may serve several playbacks of one client."""

    def __init__(self) -> None:
        self._records: dict[str, NodeRecord] = {}

    def keep(self, nodes: Collection[str]) -> None:
        """Know exactly these nodes (and any with downloads in flight)."""
        for node in [known for known in self._records if known not in nodes and not self._records[known].in_flight]:
            del self._records[node]
        for node in nodes:
            self[node]

    def __getitem__(self, node: str) -> NodeRecord:
        record = self._records.get(node)
        if record is None:
            record = self._records[node] = NodeRecord()
        return record

    @property
    def known(self) -> tuple[str, ...]:
        """All nodes that have a record."""
        return tuple(self._records)

    def items(self) -> Iterable[tuple[str, NodeRecord]]:
        return sorted(self._records.items())

    def ponged(self, node: str, latency_ms: float) -> None:
        """A ping came back after `latency_ms`."""
        record = self[node]
        record.latencies_ms.append(latency_ms)
        record.outcomes.append(True)
        record.reachable = True

    def ping_failed(self, node: str) -> None:
        record = self[node]
        record.outcomes.append(False)
        record.reachable = False

    def started(self, node: str) -> None:
        self[node].in_flight += 1

    def fetched(self, node: str, size_bytes: int, elapsed_s: float, now_s: float) -> None:
        """A download came through and was verified."""
        record = self[node]
        record.in_flight -= 1
        record.downloads += 1
        record.outcomes.append(True)
        record.reachable = True
        record.failures_in_row = 0
        record.avoid_until_s = 0.0
        self._measure(record, size_bytes, elapsed_s, now_s)

    def dropped(self, node: str, received_bytes: int, elapsed_s: float, now_s: float) -> None:
        """A download was no longer wanted: no success and no failure, but its speed is known."""
        record = self[node]
        record.in_flight -= 1
        if elapsed_s >= MIN_SAMPLE_S:
            self._measure(record, received_bytes, elapsed_s, now_s)

    def failed(self, node: str, reason: Failure, now_s: float) -> None:
        record = self[node]
        record.in_flight -= 1
        record.failures += 1
        record.outcomes.append(False)
        if reason not in _ABOUT_ONE_CHUNK:
            record.avoid_until_s = now_s + min(AVOID_MAX_S, AVOID_BASE_S * 2**record.failures_in_row)
            record.failures_in_row = min(record.failures_in_row + 1, 16)

    def avoided(self, node: str, now_s: float) -> bool:
        """Whether this node is asked only when nothing else is left."""
        record = self[node]
        return not record.reachable or now_s < record.avoid_until_s

    def pick(self, nodes: Sequence[str], now_s: float, draw: Draw, *, explore: bool = False) -> str:
        """The node to ask among `nodes` (at least one): the best score, scaled by what is in flight there.

        Equals are told apart by lot, so that many clients that know nothing yet do not all pick the same node. With
        `explore`, a node that has not been measured lately goes first: a score can only be right where it is tested.
        """
        good = [node for node in nodes if not self.avoided(node, now_s)] or list(nodes)
        if explore:
            good = [node for node in good if self._stale(self[node], now_s)] or good
        values = {node: self[node].score / (1 + IN_FLIGHT_WEIGHT * self[node].in_flight) for node in good}
        best = max(values.values())
        ties = [node for node in good if values[node] == best]
        return ties[int(draw() * len(ties))]

    @staticmethod
    def _stale(record: NodeRecord, now_s: float) -> bool:
        return not record.in_flight and (record.measured_at_s is None or now_s - record.measured_at_s > EXPLORE_AFTER_S)

    @staticmethod
    def _measure(record: NodeRecord, size_bytes: int, elapsed_s: float, now_s: float) -> None:
        record.bandwidths_mbps.append(size_bytes * 8 / 1e6 / max(elapsed_s, 1e-6))
        record.measured_at_s = now_s


def _mean(values: Collection[float], default: float) -> float:
    return sum(values) / len(values) if values else default
