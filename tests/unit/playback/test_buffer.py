"""The playback buffer: conservation of media, exact stalls, start rules, windows."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.playback.buffer import Arrived, BufferState, Clock, Effect, Event, Phase, step

ENDS_10S = tuple(10.0 * (number + 1) for number in range(20))


@dataclass
class Run:
    """A buffer under test and everything it said."""

    state: BufferState
    said: list[Effect] = field(default_factory=list)

    def at(self, at_s: float, *indexes: int) -> "Run":
        events: list[Event] = [Arrived(index, at_s) for index in indexes] or [Clock(at_s)]
        for event in events:
            self.state, effects = step(self.state, event)
            self.said += effects
        return self


def run(ends_s: tuple[float, ...] = ENDS_10S, speed: float = 1.0) -> Run:
    return Run(BufferState(ends_s, speed, now_s=0.0))


def test_playback_starts_with_ten_seconds_ahead() -> None:
    ends_s = tuple(4.0 * (number + 1) for number in range(10))
    player = run(ends_s).at(0.1, 0).at(0.2, 1)
    assert player.state.phase is Phase.FILLING
    player.at(0.3, 2)
    assert player.said == [Effect.STARTED]


def test_playback_starts_sooner_when_everything_is_there() -> None:
    assert run((2.0, 3.0)).at(0.0, 0).at(0.0, 1).said == [Effect.STARTED]


def test_what_lies_beyond_a_gap_does_not_count() -> None:
    player = run().at(0.0, 1, 2, 3)
    assert player.state.level_s == 0
    assert player.said == []
    player.at(0.0, 0)
    assert player.state.level_s == 40
    assert player.said == [Effect.STARTED]


def test_a_stall_begins_when_the_media_runs_out_and_is_one_event() -> None:
    player = run().at(0.0, 0).at(25.0)
    assert player.said == [Effect.STARTED, Effect.STALLED]
    assert player.state.stall_s == pytest.approx(15)
    for at_s in (26.0, 27.0, 40.0):
        player.at(at_s)
    assert player.state.stalls == 1
    assert player.state.stall_s == pytest.approx(30)
    player.at(40.0, 1)
    assert player.said[-1] is Effect.RESUMED
    assert player.at(45.0).state.playhead_s == pytest.approx(15)


def test_a_chunk_in_time_means_no_stall() -> None:
    player = run().at(0.0, 0).at(9.999, 1).at(15.0)
    assert player.state.stalls == 0
    assert player.state.playhead_s == pytest.approx(15)


def test_a_stall_ends_with_ten_seconds_or_with_the_rest() -> None:
    player = run((10.0, 14.0, 18.0)).at(0.0, 0).at(12.0, 1)
    assert player.state.phase is Phase.STALLED
    player.at(13.0, 2)
    assert player.said == [Effect.STARTED, Effect.STALLED, Effect.RESUMED]
    player.at(21.0)
    assert player.said[-1] is Effect.ENDED
    assert player.state.stall_s == pytest.approx(3)


def test_speed_scales_media_time_not_wall_time() -> None:
    player = run(speed=2.0).at(0.0, 0).at(4.0)
    assert player.state.playhead_s == pytest.approx(8)
    player.at(7.0)
    assert player.state.stall_s == pytest.approx(2)


def test_speed_zero_follows_the_media_and_never_stalls() -> None:
    player = run((10.0, 20.0, 30.0), speed=0).at(1.0, 0).at(100.0)
    assert player.said == [Effect.STARTED]
    player.at(200.0, 2).at(300.0, 1)
    assert player.said == [Effect.STARTED, Effect.ENDED]
    assert player.state.stalls == 0


def test_media_without_duration_starts_and_ends_at_once() -> None:
    assert run((0.0,)).at(0.0, 0).said == [Effect.STARTED, Effect.ENDED]


def test_before_the_start_only_what_the_start_needs_is_wanted() -> None:
    ends_s = tuple(4.0 * (number + 1) for number in range(30))
    player = run(ends_s)
    assert player.state.wanted == 3
    player.at(0.0, 0, 1, 2)
    assert player.state.wanted == 4  # chunk 3 begins at 12 s, chunk 4 at 16 s
    assert player.at(2.0).state.wanted == 5  # up to 15 s ahead and 2 s more
    assert player.state.urgent == 5


def test_the_window_is_open_when_as_much_is_played_as_it_had_to_grow() -> None:
    player = run(tuple(4.0 * (number + 1) for number in range(30))).at(0.0, *range(10)).at(15.0)
    assert player.state.wanted == 12  # chunk 11 begins at 44 s, chunk 12 at 48 s
    assert player.state.changes_at_s == pytest.approx(18.0)


def test_a_chunk_that_begins_where_enough_is_there_waits_for_the_start() -> None:
    player = run((5.0, 10.0, 15.0, 20.0))
    assert player.state.wanted == 2
    player.at(0.0, 0, 1)
    assert player.said == [Effect.STARTED]
    assert player.state.wanted == 4


def test_time_alone_opens_the_window_or_runs_the_media_dry() -> None:
    player = run(tuple(4.0 * (number + 1) for number in range(30))).at(0.0, 0, 1, 2)
    assert player.state.changes_at_s == pytest.approx(0.5)  # (16 s - 15 s) / 2: the playhead moves, the window grows
    player = run((10.0, 20.0)).at(0.0, 0)
    assert player.state.changes_at_s == pytest.approx(10.0)
    assert run().state.changes_at_s == float("inf")


def test_position_is_the_chunk_under_the_playhead() -> None:
    player = run().at(0.0, 0, 1)
    assert [player.at(at_s).state.position for at_s in (0.0, 9.9, 10.0, 19.9)] == [0, 0, 1, 1]
    assert run((5.0,)).at(0.0, 0).at(6.0).state.position == 1


def test_average_level_is_over_time() -> None:
    player = run((10.0, 20.0)).at(0.0, 0).at(10.0).at(20.0)
    assert player.state.average_level_s == pytest.approx((10 * 5 + 10 * 0) / 20)


def test_a_clock_that_runs_backwards_stands_still() -> None:
    player = run().at(0.0, 0).at(5.0).at(3.0)
    assert player.state.playhead_s == pytest.approx(5)


happenings = st.lists(st.tuples(st.floats(0, 20), st.one_of(st.none(), st.integers(0, 11))), max_size=60)


@given(
    durations=st.lists(st.one_of(st.just(0.0), st.floats(0.01, 10)), min_size=1, max_size=12),
    speed=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    events=happenings,
)
def test_invariants(durations: list[float], speed: float, events: list[tuple[float, int | None]]) -> None:
    ends_s = tuple(itertools.accumulate(durations))
    state, said, now_s, here = BufferState(ends_s, speed, 0.0), list[Effect](), 0.0, set[int]()
    started_s: float | None = None
    for elapsed_s, index in events:
        now_s += elapsed_s
        before = state
        event: Event = Clock(now_s) if index is None or index >= len(ends_s) else Arrived(index, now_s)
        if isinstance(event, Arrived):
            here.add(event.index)
        state, effects = step(state, event)
        said += effects
        if Effect.STARTED in effects:
            started_s = now_s

        gapless = next((number for number in range(len(ends_s)) if number not in here), len(ends_s))
        assert state.arrived == gapless
        assert state.level_s >= 0
        assert state.level_s + state.playhead_s == pytest.approx(ends_s[gapless - 1] if gapless else 0.0)
        assert before.playhead_s <= state.playhead_s + 1e-9
        assert 0 <= state.urgent <= len(ends_s)
        if state.waiting:
            assert state.arrived < state.wanted  # or it would wait for what nobody fetches
        if state.phase is Phase.PLAYING and speed > 0:
            assert state.changes_at_s >= state.now_s - 1e-9
        if started_s is not None and speed > 0 and state.phase is not Phase.ENDED:
            wall_s = now_s - started_s
            assert state.playhead_s == pytest.approx((wall_s - state.stall_s) * speed, abs=1e-6)
    assert said.count(Effect.STARTED) <= 1
    assert said.count(Effect.ENDED) <= 1
    assert said.count(Effect.STALLED) == state.stalls
    assert said.count(Effect.STALLED) - said.count(Effect.RESUMED) == (state.phase is Phase.STALLED)
    if said:
        assert said[0] is Effect.STARTED
        assert Effect.ENDED not in said[:-1]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_arrivals_twice_or_in_any_order_make_no_difference(order: list[int]) -> None:
    ends_s = tuple(1.0 * (number + 1) for number in range(10))
    shuffled = run(ends_s).at(0.0, *order)
    sorted_once = run(ends_s).at(0.0, *sorted(set(order)))
    assert shuffled.state.arrived == sorted_once.state.arrived
    assert shuffled.state.ahead == sorted_once.state.ahead
