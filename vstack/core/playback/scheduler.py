"""The scheduler: which chunk next, from which node, and what to do about a download that is late, silent or wrong.

Rules
- Chunks are fetched in playing order, at most 4 requests at a time, hedges included.
- A download from which nothing arrives for `silence_limit_s` (under one second on an ordinary network) is cut off and
  the chunk goes to another source. A failed one goes there at once.
- A chunk that is due soon and later than three times what its node should need gets one second request elsewhere; the
  first to finish wins and the other is cut off. Hedges are at most a tenth of all downloads (beyond the first two), so
  that they cannot double the load of a cluster that is slow as a whole (Dean and Barroso, "The tail at scale", 2013).
- When every source of a chunk has failed, the plan is refreshed (repair and conversion move chunks), and the chunk is
  tried again after an exponential, jittered pause, with more patience for silence each round.

Invariants: at most MAX_DOWNLOADS requests in flight; at most one hedge per chunk; no object is asked for that is
already here; two requests for one chunk never go to the same node and object at the same time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vstack.core.playback.events import (
    Assembled,
    Cancel,
    Complete,
    Demand,
    Effect,
    Event,
    Failed,
    Fetch,
    Fetched,
    Progress,
    Refresh,
    Replanned,
    Spoiled,
    Tick,
)
from vstack.core.playback.plan import ChunkPlan, Plan, Source
from vstack.core.playback.scoring import Draw, Failure, NodeTable

MAX_DOWNLOADS: Final = 4
TICK_S: Final = 0.1
"""How often the caller lets time pass while downloads are in flight."""
SILENCE_LIMIT_S: Final = 0.75
SILENCE_LATENCIES: Final = 4
MAX_SILENCE_LIMIT_S: Final = 6.0
SILENT_LOSER_S: Final = 0.4
MIN_PROGRESS_BYTES: Final = 4096
"""Fewer bytes than this are as good as silence: a trickle must not keep a download alive."""
HEDGE_FLOOR_S: Final = 0.5
HEDGE_CEILING_S: Final = 2.0
HEDGE_FACTOR: Final = 3.0
HEDGE_BURST: Final = 2.0
HEDGE_SHARE: Final = 0.1
RETRY_BASE_S: Final = 0.25
RETRY_MAX_S: Final = 4.0
MAX_DOUBLINGS: Final = 8


@dataclass(slots=True)
class _Attempt:
    """A request in flight. Patience is counted from `heard_s` and `waiting_since_s`, speed from `started_s`."""

    index: int
    source: Source
    started_s: float
    waiting_since_s: float
    heard_s: float
    received_bytes: int = 0
    heard_bytes: int = 0


@dataclass(slots=True)
class _Task:
    """One chunk on its way.

    `got` maps the ids of fetched objects to where they came from, `failed` holds the sources that failed in this round,
    `errors` each node's last failure, `lost` counts failed requests that nothing has replaced yet. A `complete` chunk
    waits to be put together; a `verified` one only for those before it.
    """

    got: dict[str, Source] = field(default_factory=dict)
    failed: set[Source] = field(default_factory=set)
    errors: dict[str, Failure] = field(default_factory=dict)
    lost: int = 0
    round: int = 0
    retry_at_s: float = 0.0
    hedged: bool = False
    complete: bool = False
    verified: bool = False


@dataclass(slots=True)
class Counts:
    """Totals of one playback. A download that was cut off because another won is in none of the first two."""

    fetched: int = 0
    failures: dict[Failure, int] = field(default_factory=dict)
    dropped: int = 0
    failovers: int = 0
    hedges: int = 0

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def silence_limit_s(latency_ms: float, tries: int) -> float:
    """How long a download may be silent: longer on a slow network, doubled with each round of the chunk."""
    patience_s = max(SILENCE_LIMIT_S, SILENCE_LATENCIES * latency_ms / 1000)
    return min(MAX_SILENCE_LIMIT_S, patience_s * 2.0 ** min(tries, MAX_DOUBLINGS))


class Scheduler:
    """Schedules the downloads of one playback. `draw` is its randomness; nodes are judged in `nodes`."""

    def __init__(self, plan: Plan, nodes: NodeTable, draw: Draw, now_s: float) -> None:
        self.counts = Counts()
        self._plan = plan
        self._nodes = nodes
        self._draw = draw
        self._tasks: dict[int, _Task] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._next_attempt = 0
        self._first_missing = 0
        self._refreshing = False
        self._hedge_tokens = HEDGE_BURST
        self._stepped_s = now_s

    @property
    def in_flight(self) -> int:
        return len(self._attempts)

    @property
    def first_missing(self) -> int:
        """The first chunk that is not here and verified."""
        return self._first_missing

    @property
    def retry_at_s(self) -> float:
        """When the next chunk that is pausing will be tried again; infinite where none is."""
        pauses = (task.retry_at_s for task in self._tasks.values() if task.retry_at_s > self._stepped_s)
        return min(pauses, default=float("inf"))

    def trouble(self) -> str:
        """What keeps the first missing chunk from arriving, for people."""
        chunk = self._plan.chunks[self._first_missing]
        task = self._tasks.get(self._first_missing, _Task())
        told = ", ".join(f"{node}: {reason}" for node, reason in sorted(task.errors.items()))
        return f"{chunk.chunk_id} cannot be fetched ({told or 'too few nodes hold it'})"

    def step(self, event: Event, demand: Demand, now_s: float) -> list[Effect]:
        """What to do after `event`. Effects are to be performed in order."""
        self._forgive_lag(now_s)
        effects: list[Effect] = []
        match event:
            case Progress(attempt=number, received_bytes=received):
                self._progress(number, received, now_s)
            case Fetched(attempt=number):
                effects += self._fetched(number, now_s)
            case Failed(attempt=number, reason=reason):
                self._failed(number, reason, now_s)
            case Assembled(index=index):
                self._assembled(index)
            case Spoiled(index=index):
                self._spoiled(index)
            case Replanned(plan=plan):
                self._replanned(plan, now_s)
            case Tick():
                pass
        effects += self._cut_silent(now_s)
        effects += self._start(demand, now_s)
        effects += self._hedge(demand, now_s)
        return effects

    def stop(self, now_s: float) -> list[Effect]:
        """Cut off everything: the playback is over."""
        return [self._drop(number, now_s) for number in list(self._attempts)]

    def _forgive_lag(self, now_s: float) -> None:
        """Take off every download's clock what this process lost: ticks that come late are not a node's fault.

        Without this a client that is short of CPU would cut off healthy downloads, and need more CPU for it.
        """
        lag_s = now_s - self._stepped_s - TICK_S
        self._stepped_s = now_s
        if lag_s > TICK_S / 2:
            for attempt in self._attempts.values():
                attempt.heard_s += lag_s
                attempt.waiting_since_s += lag_s

    def _progress(self, number: int, received_bytes: int, now_s: float) -> None:
        attempt = self._attempts.get(number)
        if attempt is None:
            return
        attempt.received_bytes = received_bytes
        if received_bytes - attempt.heard_bytes >= MIN_PROGRESS_BYTES:
            attempt.heard_bytes, attempt.heard_s = received_bytes, now_s

    def _fetched(self, number: int, now_s: float) -> Iterator[Effect]:
        attempt = self._attempts.pop(number, None)
        if attempt is None:
            return
        source = attempt.source
        self._nodes.fetched(source.node, source.size_bytes, now_s - attempt.started_s, now_s)
        self.counts.fetched += 1
        self._hedge_tokens = min(HEDGE_BURST, self._hedge_tokens + HEDGE_SHARE)
        task = self._tasks[attempt.index]
        task.got[source.object_id] = source
        yield from self._drop_losers(attempt.index, task, now_s)
        chunk = self._plan.chunks[attempt.index]
        if len(task.got) >= chunk.needed:
            task.complete = True
            yield Complete(attempt.index, chunk, tuple(task.got.values()))

    def _drop_losers(self, index: int, task: _Task, now_s: float) -> Iterator[Effect]:
        """Cut off requests for what is here already, or for a chunk that needs no more."""
        enough = len(task.got) >= self._plan.chunks[index].needed
        for number, other in list(self._attempts.items()):
            if other.index == index and (enough or other.source.object_id in task.got):
                yield self._lose(number, now_s)

    def _lose(self, number: int, now_s: float) -> Cancel:
        """Cut off a request that another has overtaken; one that has fallen silent has failed and was replaced."""
        attempt = self._attempts[number]
        if now_s - attempt.heard_s < SILENT_LOSER_S:
            return self._drop(number, now_s)
        self._failed(number, Failure.STALLED, now_s)
        self._tasks[attempt.index].lost -= 1
        self.counts.failovers += 1
        return Cancel(number, Failure.STALLED)

    def _drop(self, number: int, now_s: float) -> Cancel:
        attempt = self._attempts.pop(number)
        self._nodes.dropped(attempt.source.node, attempt.received_bytes, now_s - attempt.started_s, now_s)
        self.counts.dropped += 1
        return Cancel(number, None)

    def _assembled(self, index: int) -> None:
        self._tasks[index].verified = True
        while (task := self._tasks.get(self._first_missing)) is not None and task.verified:
            del self._tasks[self._first_missing]
            self._first_missing += 1

    def _spoiled(self, index: int) -> None:
        """Every part was as promised and yet the whole is not: only a new plan can help."""
        task = self._tasks[index]
        task.complete = False
        task.got.clear()
        task.failed.update(self._plan.chunks[index].sources)
        task.errors = {source.node: Failure.CORRUPT for source in self._plan.chunks[index].sources}

    def _failed(self, number: int, reason: Failure, now_s: float) -> None:
        attempt = self._attempts.pop(number, None)
        if attempt is None:
            return
        self._nodes.failed(attempt.source.node, reason, now_s)
        self.counts.failures[reason] = self.counts.failures.get(reason, 0) + 1
        task = self._tasks[attempt.index]
        task.failed.add(attempt.source)
        task.errors[attempt.source.node] = reason
        task.lost += 1

    def _replanned(self, plan: Plan | None, now_s: float) -> None:
        self._refreshing = False
        if plan is None:
            return
        old, self._plan = self._plan, plan
        for index, task in self._tasks.items():
            chunk = plan.chunks[index]
            if task.complete or chunk == old.chunks[index]:
                continue
            task.failed.clear()
            task.retry_at_s = now_s
            objects = {source.object_id for source in chunk.sources}
            task.got = {object_id: source for object_id, source in task.got.items() if object_id in objects}

    def _cut_silent(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for number, attempt in list(self._attempts.items()):
            latency_ms = self._nodes[attempt.source.node].latency_ms
            if now_s - attempt.heard_s >= silence_limit_s(latency_ms, self._tasks[attempt.index].round):
                self._failed(number, Failure.STALLED, now_s)
                effects.append(Cancel(number, Failure.STALLED))
        return effects

    def _start(self, demand: Demand, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for index in range(self._first_missing, min(demand.wanted, len(self._plan.chunks))):
            if len(self._attempts) >= MAX_DOWNLOADS:
                break
            task = self._tasks.setdefault(index, _Task())
            if task.complete or now_s < task.retry_at_s:
                continue
            effects += self._start_chunk(index, task, now_s, explore=index >= demand.urgent)
        return effects

    def _start_chunk(self, index: int, task: _Task, now_s: float, *, explore: bool) -> Iterator[Effect]:
        """Requests for what the chunk still lacks, while there are slots and sources left."""
        chunk = self._plan.chunks[index]
        while len(self._attempts) < MAX_DOWNLOADS:
            asked = [attempt.source for attempt in self._attempts.values() if attempt.index == index]
            lacking = chunk.needed - len(task.got) - len({source.object_id for source in asked})
            if lacking <= 0:
                return
            untried = self._untried(chunk, task, asked)
            if len({source.object_id for source in untried}) < lacking:
                yield from self._next_round(task, now_s)
                return
            if task.lost:
                task.lost -= 1
                self.counts.failovers += 1
            yield self._fetch(index, untried, now_s, hedge=False, explore=explore)

    def _untried(self, chunk: ChunkPlan, task: _Task, asked: list[Source]) -> list[Source]:
        """Sources of objects that are neither here nor asked for, and that have not failed in this round."""
        busy = {source.object_id for source in asked} | task.got.keys()
        return [source for source in chunk.sources if source not in task.failed and source.object_id not in busy]

    def _fetch(self, index: int, sources: list[Source], now_s: float, *, hedge: bool, explore: bool) -> Fetch:
        node = self._nodes.pick([source.node for source in sources], now_s, self._draw, explore=explore)
        source = next(source for source in sources if source.node == node)
        number = self._next_attempt
        self._next_attempt += 1
        self._attempts[number] = _Attempt(index, source, now_s, now_s, now_s)
        self._nodes.started(node)
        return Fetch(number, index, source, hedge)

    def _next_round(self, task: _Task, now_s: float) -> Iterator[Effect]:
        pause_s = min(RETRY_MAX_S, RETRY_BASE_S * 2 ** min(task.round, MAX_DOUBLINGS))
        task.retry_at_s = now_s + pause_s * (0.5 + self._draw() / 2)
        task.round += 1
        task.failed.clear()
        if not self._refreshing:
            self._refreshing = True
            yield Refresh()

    def _hedge(self, demand: Demand, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for attempt in sorted(self._attempts.values(), key=lambda attempt: attempt.index):
            if len(self._attempts) >= MAX_DOWNLOADS or self._hedge_tokens < 1:
                break
            task = self._tasks[attempt.index]
            if task.hedged or attempt.index >= demand.urgent or not self._late(attempt, now_s):
                continue
            rivals = self._rivals(attempt, task, now_s)
            if rivals:
                task.hedged = True
                self._hedge_tokens -= 1
                self.counts.hedges += 1
                effects.append(self._fetch(attempt.index, rivals, now_s, hedge=True, explore=False))
        return effects

    def _late(self, attempt: _Attempt, now_s: float) -> bool:
        expected_s = self._nodes[attempt.source.node].expected_s(attempt.source.size_bytes)
        limit_s = min(HEDGE_CEILING_S, max(HEDGE_FLOOR_S, HEDGE_FACTOR * expected_s))
        return now_s - attempt.waiting_since_s >= limit_s

    def _rivals(self, attempt: _Attempt, task: _Task, now_s: float) -> list[Source]:
        """Sources that should deliver before `attempt` does at its present pace."""
        chunk = self._plan.chunks[attempt.index]
        asked = [other.source for other in self._attempts.values() if other.index == attempt.index]
        taken = {source.object_id for source in asked if source.object_id != attempt.source.object_id} | task.got.keys()
        pace = attempt.received_bytes / max(now_s - attempt.started_s, 1e-6)
        missing_bytes = attempt.source.size_bytes - attempt.received_bytes
        remaining_s = missing_bytes / pace if pace > 0 else float("inf")
        return [
            source
            for source in chunk.sources
            if source not in asked
            and source not in task.failed
            and source.object_id not in taken
            and not self._nodes.avoided(source.node, now_s)
            and self._nodes[source.node].expected_s(source.size_bytes) < remaining_s
        ]
