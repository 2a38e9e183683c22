"""The playback buffer: how much verified media lies ahead of the playhead, and when playback starts, stalls and ends.

`step` is pure; the clock is part of the event. Media time is in seconds of the video, `at_s` in seconds of any
monotonic clock.

Rules
- Playback starts, and resumes after a stall, with 10 s of media ahead, or sooner if all of it is there.
- Chunks may be asked for up to 30 s ahead of the playhead; before the start only as far as the start needs, so that the
  first picture does not compete with the future. So that it does not compete with the future of other viewers either,
  the window is 15 s at the start and grows by what is played.
- A stall begins at the very moment the media runs out, not when somebody looks, and is one event however long it is.
- Speed 0 is as fast as possible: the playhead follows the media at once, and there are no stalls.

Invariants: the level is never negative; the playhead never passes media that is not there; media is neither made nor
lost: level + playhead = the end of what arrived without a gap.
"""

import bisect
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

EPSILON_S: Final = 1e-9
"""Media shorter than this is none: sums of durations are not exact."""


@dataclass(frozen=True, slots=True)
class BufferRules:
    """Levels in seconds of media."""

    target_s: float = 30.0
    low_water_s: float = 15.0
    start_s: float = 10.0


class Phase(Enum):
    FILLING = auto()
    PLAYING = auto()
    STALLED = auto()
    ENDED = auto()


class Effect(Enum):
    STARTED = auto()
    STALLED = auto()
    RESUMED = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class Arrived:
    """Chunk `index` is here and verified. Arrivals may come in any order, and twice."""

    index: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Clock:
    """Time has passed."""

    at_s: float


Event = Arrived | Clock


@dataclass(frozen=True, slots=True)
class BufferState:
    """`arrived` counts chunks without a gap; `ahead` holds those beyond one. `ends_s` is the media timeline.

    `level_integral` is the level integrated over `watched_s`, the wall time since playback first started.
    """

    ends_s: tuple[float, ...]
    speed: float
    now_s: float
    rules: BufferRules = BufferRules()
    phase: Phase = Phase.FILLING
    arrived: int = 0
    ahead: frozenset[int] = frozenset()
    playhead_s: float = 0.0
    stalls: int = 0
    stall_s: float = 0.0
    level_integral: float = 0.0
    watched_s: float = 0.0

    @property
    def buffered_s(self) -> float:
        """Media time up to which everything is here."""
        return self.ends_s[self.arrived - 1] if self.arrived else 0.0

    @property
    def level_s(self) -> float:
        return self.buffered_s - self.playhead_s

    @property
    def complete(self) -> bool:
        return self.arrived == len(self.ends_s)

    @property
    def waiting(self) -> bool:
        """Whether the viewer is looking at a wheel instead of a picture."""
        return self.phase in (Phase.FILLING, Phase.STALLED)

    @property
    def average_level_s(self) -> float:
        return self.level_integral / self.watched_s if self.watched_s > 0 else 0.0

    @property
    def position(self) -> int:
        """The chunk under the playhead; the number of chunks when all are played."""
        if self.phase is Phase.ENDED:
            return len(self.ends_s)
        return min(bisect.bisect_right(self.ends_s, self.playhead_s), self.arrived)

    def chunks_before(self, horizon_s: float) -> int:
        """How many chunks begin at most `horizon_s` of media ahead of the playhead."""
        beyond = bisect.bisect_right(self.ends_s, self.playhead_s + horizon_s)
        return min(beyond + 1, len(self.ends_s))

    @property
    def wanted(self) -> int:
        """Chunks 0 .. wanted - 1 may be fetched now."""
        if self.speed == 0:
            return len(self.ends_s)
        if self.waiting:  # without the chunk that begins just where enough is there
            enough_s = self.playhead_s + self.rules.start_s - EPSILON_S / 2
            return min(bisect.bisect_left(self.ends_s, enough_s) + 1, len(self.ends_s))
        return self.chunks_before(min(self.rules.target_s, self.rules.low_water_s + self.playhead_s))

    @property
    def urgent(self) -> int:
        """Chunks 0 .. urgent - 1 are due before the low-water mark is used up."""
        return len(self.ends_s) if self.speed == 0 else self.chunks_before(self.rules.low_water_s)

    @property
    def changes_at_s(self) -> float:
        """When the passing of time alone next runs the media dry or lets another chunk be fetched; maybe never."""
        if self.phase is not Phase.PLAYING or self.speed == 0:
            return float("inf")
        dry_in_s = self.level_s / self.speed
        wanted = self.wanted
        if wanted == len(self.ends_s):
            return self.now_s + dry_in_s
        begins_s = self.ends_s[wanted - 1]
        wanted_from_s = max(begins_s - self.rules.target_s, (begins_s - self.rules.low_water_s) / 2)
        return self.now_s + min(dry_in_s, (wanted_from_s - self.playhead_s) / self.speed)


def step(state: BufferState, event: Event) -> tuple[BufferState, tuple[Effect, ...]]:
    """The state after `event`, and what happened on the way. A clock that runs backwards is taken as standing still."""
    state, passed = _advance(state, max(event.at_s, state.now_s))
    if isinstance(event, Clock):
        return state, passed
    state = _arrive(state, event.index)
    if state.speed == 0:
        state = replace(state, playhead_s=state.buffered_s)
    return _settle(state, passed)


def _advance(state: BufferState, now_s: float) -> tuple[BufferState, tuple[Effect, ...]]:
    elapsed_s = now_s - state.now_s
    if state.phase in (Phase.FILLING, Phase.ENDED):
        return replace(state, now_s=now_s), ()
    state = replace(state, watched_s=state.watched_s + elapsed_s, now_s=now_s)
    if state.phase is Phase.STALLED:
        integral = state.level_integral + state.level_s * elapsed_s
        return replace(state, stall_s=state.stall_s + elapsed_s, level_integral=integral), ()
    if state.speed == 0:
        return state, ()
    playable_s = state.level_s / state.speed
    played_s = min(elapsed_s, playable_s)
    level_after_s = max(0.0, state.level_s - played_s * state.speed)
    state = replace(
        state,
        level_integral=state.level_integral + played_s * (state.level_s + level_after_s) / 2,
        playhead_s=state.buffered_s - level_after_s,
    )
    if playable_s - elapsed_s > EPSILON_S:
        return state, ()
    if state.complete:
        return replace(state, phase=Phase.ENDED), (Effect.ENDED,)
    stalled_s = elapsed_s - played_s
    state = replace(state, phase=Phase.STALLED, stalls=state.stalls + 1, stall_s=state.stall_s + stalled_s)
    return state, (Effect.STALLED,)


def _arrive(state: BufferState, index: int) -> BufferState:
    if index < state.arrived or index in state.ahead:
        return state
    ahead = state.ahead | {index}
    arrived = state.arrived
    while arrived in ahead:
        ahead -= {arrived}
        arrived += 1
    return replace(state, arrived=arrived, ahead=ahead)


def _settle(state: BufferState, passed: tuple[Effect, ...]) -> tuple[BufferState, tuple[Effect, ...]]:
    """Start, resume or (at speed 0) end where an arrival allows it."""
    enough = state.complete or (
        state.arrived > 0 if state.speed == 0 else state.level_s >= state.rules.start_s - EPSILON_S
    )
    if state.waiting and enough:
        begun = Effect.STARTED if state.phase is Phase.FILLING else Effect.RESUMED
        state, passed = replace(state, phase=Phase.PLAYING), (*passed, begun)
    if state.phase is Phase.PLAYING and state.complete and state.level_s <= EPSILON_S:
        state, passed = replace(state, phase=Phase.ENDED), (*passed, Effect.ENDED)
    return state, passed
