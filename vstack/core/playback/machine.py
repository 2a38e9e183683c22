"""One playback: buffer and scheduler joined into a state machine that its driver feeds with events.

The driver performs the effects, in order, and answers them with events; it calls `step` with `Tick` no later than
`wake_at_s`. `Started` and `Ended` come once each at most, and nothing follows `Ended` or `GaveUp`.

A chunk that cannot be had is waited for as long as the viewer still has something to see, and `patience_s` longer;
then the playback gives up with the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vstack.core.playback import buffer, events
from vstack.core.playback.buffer import BufferRules, BufferState, Phase
from vstack.core.playback.events import Assembled, Demand, Tick
from vstack.core.playback.plan import Plan
from vstack.core.playback.scheduler import TICK_S, Counts, Scheduler
from vstack.core.playback.scoring import Draw, NodeTable

MAX_AHEAD_CHUNKS: Final = 16
"""Chunks fetched beyond what the output has taken: 32 MiB at most where it blocks, or where a chunk is late."""
MIN_WAIT_S: Final = 0.001
PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The output has taken chunk `index` and all before it."""

    index: int


@dataclass(frozen=True, slots=True)
class Started:
    """Playback begins now."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Everything was played and taken by the output."""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The playback cannot go on; `reason` is a sentence."""

    reason: str


Event = events.Event | Delivered
Effect = events.Effect | Started | Ended | GaveUp


class Playback:
    """The state machine of one playback of `plan` that begins at `now_s`."""

    def __init__(
        self,
        plan: Plan,
        nodes: NodeTable,
        draw: Draw,
        *,
        now_s: float,
        speed: float = 1.0,
        rules: BufferRules = BufferRules(),  # noqa: B008 - frozen
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._buffer = BufferState(plan.ends_s, speed, now_s, rules)
        self._scheduler = Scheduler(plan, nodes, draw, now_s)
        self._patience_s = patience_s
        self._delivered = 0
        self._hopeful_s = now_s
        self._over = False

    @property
    def counts(self) -> Counts:
        return self._scheduler.counts

    @property
    def in_flight(self) -> int:
        return self._scheduler.in_flight

    def buffer(self, now_s: float) -> BufferState:
        """The buffer as it stands at `now_s`."""
        return buffer.step(self._buffer, buffer.Clock(now_s))[0]

    def step(self, event: Event, now_s: float) -> list[Effect]:
        """What to do after `event`."""
        if self._over:
            return []
        effects: list[Effect] = []
        effects += self._let_time_pass(event, now_s)
        if isinstance(event, Delivered):
            self._delivered = event.index + 1
            event = Tick()
        effects += self._scheduler.step(event, self._demand(), now_s)
        effects += self._conclude(now_s)
        return effects

    def wake_at_s(self, now_s: float) -> float:
        """When to call `step(Tick())` at the latest; infinite while only other events can change anything."""
        if self._over:
            return float("inf")
        if self._scheduler.in_flight:
            return now_s + TICK_S
        at_s = min(self._buffer.changes_at_s, self._scheduler.retry_at_s)
        if self._starving:
            at_s = min(at_s, self._hopeful_s + self._patience_s)
        return max(at_s, now_s + MIN_WAIT_S)

    def stop(self, now_s: float) -> Iterable[Effect]:
        """End the playback here; the effects cut off what is in flight."""
        self._over = True
        return self._scheduler.stop(now_s)

    @property
    def _starving(self) -> bool:
        """Whether the viewer (or, at speed 0, the output) waits for a chunk that may be fetched."""
        dry = self._buffer.waiting or self._buffer.speed == 0
        return dry and self._scheduler.first_missing < self._demand().wanted

    def _demand(self) -> Demand:
        limit = self._delivered + MAX_AHEAD_CHUNKS
        return Demand(min(self._buffer.wanted, limit), min(self._buffer.urgent, limit))

    def _let_time_pass(self, event: Event, now_s: float) -> list[Effect]:
        happened: buffer.Event = buffer.Clock(now_s)
        if isinstance(event, Assembled):
            happened = buffer.Arrived(event.index, now_s)
        arrived, starved = self._buffer.arrived, self._starving
        self._buffer, passed = buffer.step(self._buffer, happened)
        if self._buffer.arrived > arrived or not starved:
            self._hopeful_s = now_s
        return [Started()] if buffer.Effect.STARTED in passed else []

    def _conclude(self, now_s: float) -> list[Effect]:
        if self._buffer.phase is Phase.ENDED and self._delivered == len(self._buffer.ends_s):
            self._over = True
            return [Ended()]
        if self._starving and now_s - self._hopeful_s >= self._patience_s:
            reason = self._scheduler.trouble()
            self._over = True
            return [*self._scheduler.stop(now_s), GaveUp(reason)]
        return []
