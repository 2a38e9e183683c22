"""A playback in virtual time: nodes that behave as they are told, and checks that hold at every step."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from vstack.core.playback.events import (
    Assembled,
    Cancel,
    Complete,
    Failed,
    Fetch,
    Fetched,
    Progress,
    Refresh,
    Replanned,
    Spoiled,
    Tick,
)
from vstack.core.playback.machine import Delivered, Ended, Event, GaveUp, Playback, Started
from vstack.core.playback.plan import WHOLE, ChunkPlan, Plan, Source
from vstack.core.playback.scheduler import MAX_DOWNLOADS
from vstack.core.playback.scoring import Failure, NodeTable

SIZE_BYTES = 1_000_000
PIECE_S = 0.1
CONNECT_S = 0.002


@dataclass(slots=True)
class Node:
    """How one node answers. `stops_after` is the share of a body after which nothing more comes; 0: not even a head."""

    mbps: float = 100.0
    fails: Failure | None = None
    stops_after: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """A download as the simulation saw it begin."""

    at_s: float
    fetch: Fetch

    @property
    def node(self) -> str:
        return self.fetch.source.node


def replicated(count: int, nodes: tuple[str, ...] = ("a", "b", "c"), duration_s: float = 5.0) -> Plan:
    """A plan whose chunks are whole on every one of `nodes`."""
    return Plan(tuple(_chunk(number, nodes, duration_s) for number in range(count)))


def coded(count: int, nodes: tuple[str, ...] = ("a", "b", "c", "d", "e"), duration_s: float = 5.0) -> Plan:
    """A plan whose chunks need three of five fragments, one on each node."""
    return Plan(
        tuple(
            ChunkPlan(
                f"chunk-{number}",
                SIZE_BYTES,
                "0" * 64,
                duration_s,
                tuple(
                    Source(node, f"chunk-{number}-frag-{index}", SIZE_BYTES // 3 + 1, "0" * 64, index)
                    for index, node in enumerate(nodes)
                ),
                needed=3,
            )
            for number in range(count)
        )
    )


def _chunk(number: int, nodes: tuple[str, ...], duration_s: float) -> ChunkPlan:
    sources = tuple(Source(node, f"chunk-{number}", SIZE_BYTES, "0" * 64, WHOLE) for node in nodes)
    return ChunkPlan(f"chunk-{number}", SIZE_BYTES, "0" * 64, duration_s, sources)


@dataclass
class World:
    """Runs one playback. `at` schedules what the test does to the nodes on the way."""

    plan: Plan
    nodes: dict[str, Node]
    speed: float = 1.0
    patience_s: float = 30.0
    fresh_plan: Callable[[], Plan | None] = lambda: None
    spoil: Callable[[Complete], bool] = lambda _complete: False
    seed: int = 0
    now_s: float = 100.0
    requests: list[Request] = field(default_factory=list)
    cancelled: list[tuple[float, Cancel]] = field(default_factory=list)
    completed_s: dict[int, float] = field(default_factory=dict)
    started_s: float | None = None
    refreshes: int = 0
    outcome: Ended | GaveUp | None = None

    def __post_init__(self) -> None:
        self.table = NodeTable()
        self.table.keep(self.plan.nodes)
        draw = random.Random(self.seed).random
        self.begun_s = self.now_s
        self.playback = Playback(
            self.plan, self.table, draw, now_s=self.now_s, speed=self.speed, patience_s=self.patience_s
        )
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._active: dict[int, Fetch] = {}
        self._here: set[str] = set()
        self._in_order = 0

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_s + after_s, next(self._order), action))

    def become(self, after_s: float, nodes: dict[str, Node]) -> None:
        """From then on these nodes behave so."""
        self.at(after_s, lambda: self.nodes.update(nodes))

    def run(self, until_s: float = 600.0) -> "World":
        """Play until the end, or for so long."""
        limit_s = self.begun_s + until_s
        self._step(Tick())
        while self.outcome is None and self.now_s < limit_s:
            wake_s = self.playback.wake_at_s(self.now_s)
            assert wake_s > self.now_s, "the machine asks to be woken in the past"
            if self._agenda and self._agenda[0][0] <= wake_s:
                self.now_s, _, action = heapq.heappop(self._agenda)
                action()
            else:
                assert wake_s < float("inf"), "nothing will ever happen again"
                self.now_s = wake_s
                self._step(Tick())
        return self

    def asked(self, index: int) -> list[Request]:
        return [request for request in self.requests if request.fetch.index == index]

    def _step(self, event: Event) -> None:
        for effect in self.playback.step(event, self.now_s):
            match effect:
                case Fetch():
                    self._begin(effect)
                case Cancel(attempt=attempt):
                    del self._active[attempt]
                    self.cancelled.append((self.now_s, effect))
                case Complete():
                    self.at(0.001, lambda complete=effect: self._assemble(complete))  # type: ignore[misc]
                case Refresh():
                    self.refreshes += 1
                    self.at(0.02, lambda: self._step(Replanned(self.fresh_plan())))
                case Started():
                    assert self.started_s is None
                    self.started_s = self.now_s
                case Ended() | GaveUp():
                    self.outcome = effect
        assert self.playback.in_flight == len(self._active)

    def _begin(self, fetch: Fetch) -> None:
        for other in self._active.values():
            assert other.source != fetch.source, "asked twice at once"
        assert fetch.source.object_id not in self._here, "asked for what is here"
        self._active[fetch.attempt] = fetch
        assert len(self._active) <= MAX_DOWNLOADS
        self.requests.append(Request(self.now_s, fetch))
        hedges = [request for request in self.asked(fetch.index) if request.fetch.hedge]
        assert len(hedges) <= 1
        node = self.nodes[fetch.source.node]
        if node.fails in (Failure.UNREACHABLE, Failure.MISSING, Failure.ERROR):
            self.at(CONNECT_S, lambda reason=node.fails: self._fail(fetch, reason))  # type: ignore[misc]
        else:
            self.at(CONNECT_S + PIECE_S, lambda: self._receive(fetch, 0))

    def _receive(self, fetch: Fetch, received_bytes: int) -> None:
        if fetch.attempt not in self._active:
            return
        node, size_bytes = self.nodes[fetch.source.node], fetch.source.size_bytes
        if node.fails is Failure.UNREACHABLE:  # died on the way
            self._fail(fetch, Failure.BROKEN)
            return
        limit_bytes = int(size_bytes * node.stops_after)
        received_bytes = min(limit_bytes, received_bytes + int(node.mbps * 1e6 / 8 * PIECE_S))
        self._step(Progress(fetch.attempt, received_bytes))
        if received_bytes < size_bytes:
            self.at(PIECE_S, lambda: self._receive(fetch, received_bytes))
        elif node.fails is None:
            del self._active[fetch.attempt]
            self._here.add(fetch.source.object_id)
            self._step(Fetched(fetch.attempt))
        else:
            self._fail(fetch, node.fails)

    def _fail(self, fetch: Fetch, reason: Failure) -> None:
        if self._active.pop(fetch.attempt, None) is not None:
            self._step(Failed(fetch.attempt, reason))

    def _assemble(self, complete: Complete) -> None:
        assert len({source.object_id for source in complete.sources}) >= complete.chunk.needed
        if self.spoil(complete):
            self._here -= {source.object_id for source in complete.sources}
            self._step(Spoiled(complete.index))
            return
        assert complete.index not in self.completed_s, "fetched twice"
        self.completed_s[complete.index] = self.now_s
        self._step(Assembled(complete.index))
        while self._in_order in self.completed_s:
            self._in_order += 1
            self._step(Delivered(self._in_order - 1))
