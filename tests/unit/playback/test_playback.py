"""Whole playbacks in virtual time: failover within a second, hedges, rounds, giving up; nothing fetched in vain."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.playback.simulation import Node, World, coded, replicated
from vstack.core.playback.events import Complete, Tick
from vstack.core.playback.machine import MAX_AHEAD_CHUNKS, Ended, GaveUp, Playback
from vstack.core.playback.plan import Plan
from vstack.core.playback.scheduler import HEDGE_SHARE, SILENCE_LIMIT_S, silence_limit_s
from vstack.core.playback.scoring import Failure, NodeTable

SEEDS = range(5)


def good(names: str = "abc") -> dict[str, Node]:
    return {name: Node() for name in names}


def bad(fails: Failure, names: str = "abc") -> dict[str, Node]:
    return {name: Node(fails=fails) for name in names}


def test_a_quiet_evening() -> None:
    world = World(replicated(20), good()).run()
    assert world.outcome == Ended()
    assert world.now_s - world.begun_s == pytest.approx(100, abs=1)
    assert world.started_s is not None
    assert world.started_s - world.begun_s < 0.5
    buffer = world.playback.buffer(world.now_s)
    assert (buffer.stalls, buffer.stall_s, buffer.playhead_s) == (0, 0, 100)
    assert len(world.requests) == 20
    assert world.playback.counts.fetched == 20
    assert world.playback.counts.failovers == world.playback.counts.hedges == 0


def test_chunks_are_asked_for_in_order() -> None:
    world = World(replicated(30), good(), speed=0).run()
    indexes = [request.fetch.index for request in world.requests]
    assert indexes == sorted(indexes)


def test_the_buffer_is_filled_to_its_target_and_no_further() -> None:
    world = World(replicated(40), good())
    levels: list[float] = []
    for second in range(5, 150):
        world.at(second, lambda: levels.append(world.playback.buffer(world.now_s).level_s))
    world.run()
    assert max(levels) <= 30 + 5
    assert min(levels[10:]) >= 30 - 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stops_after", [0.0, 0.5])
def test_a_hung_node_is_left_within_a_second(seed: int, stops_after: float) -> None:
    world = World(replicated(20), good(), seed=seed)
    world.nodes["a"].stops_after = stops_after
    world.run()
    assert world.outcome == Ended()
    assert world.playback.buffer(world.now_s).stalls == 0
    hung = [request for request in world.requests if request.node == "a"]
    assert hung
    for request in hung:
        chunk = world.asked(request.fetch.index)
        after = [other for other in chunk if other.at_s > request.at_s]
        heard_s = request.at_s + (0.2 if stops_after else 0)
        assert after
        assert after[0].at_s - heard_s < 1.0
        assert world.completed_s[request.fetch.index] - heard_s < 1.5
    assert len(hung) < 8  # remembered, not tried again for every chunk


@pytest.mark.parametrize("reason", [Failure.UNREACHABLE, Failure.ERROR, Failure.MISSING])
def test_a_failure_leads_to_another_node_at_once(reason: Failure) -> None:
    world = World(replicated(20), good())
    world.nodes["a"].fails = reason
    world.run()
    assert world.outcome == Ended()
    failed = [request for request in world.requests if request.node == "a"]
    assert failed
    for request in failed:
        again = next(other for other in world.asked(request.fetch.index) if other.at_s > request.at_s)
        assert again.at_s - request.at_s < 0.01
    assert world.playback.counts.failures == {reason: len(failed)}
    assert world.playback.counts.failovers == len(failed)
    assert world.table["a"].success_rate < 1


def test_wrong_bytes_lead_to_another_replica_and_lower_the_success() -> None:
    world = World(replicated(10), good())
    world.nodes["b"].fails = Failure.CORRUPT
    world.run()
    assert world.outcome == Ended()
    assert world.table["b"].downloads == 0
    assert world.table["b"].success_rate == 0
    assert len(world.completed_s) == 10


def test_a_node_that_dies_on_the_way_costs_no_stall() -> None:
    world = World(replicated(40), good())
    world.become(20.0, bad(Failure.UNREACHABLE, "a"))
    world.run()
    assert world.outcome == Ended()
    assert world.playback.buffer(world.now_s).stalls == 0


def test_a_slow_download_is_hedged_once_and_the_loser_is_cut_off() -> None:
    world = World(replicated(2, ("a", "b")), good("ab"), speed=0)
    world.nodes["a"].mbps = 1.0
    world.run()
    assert world.outcome == Ended()
    assert world.playback.counts.hedges >= 1
    assert world.now_s - world.begun_s < 3
    assert world.table["a"].bandwidth_mbps < 2  # what was learnt from the loser
    assert not world.playback.counts.failures


def test_a_download_that_is_not_due_is_not_hedged() -> None:
    world = World(replicated(12, ("a", "b")), good("ab"))
    world.become(5.0, {name: Node(mbps=2.0) for name in "ab"})  # 4 s a chunk, and 25 s in the buffer
    world.run()
    assert world.outcome == Ended()
    assert world.playback.counts.hedges == 0


def test_hedges_do_not_double_the_load_of_a_slow_cluster() -> None:
    """Nodes that were fast a moment ago all become slow, again and again: each time a hedge looks worth while."""
    world = World(replicated(100, duration_s=10.0), good())
    for minute in range(40):
        world.become(60.0 * minute + 20, {name: Node(mbps=0.5) for name in "abc"})
        world.become(60.0 * minute + 60, good())
    world.run(until_s=4000)
    assert world.outcome == Ended()
    counts = world.playback.counts
    assert 2 <= counts.hedges <= 2 + HEDGE_SHARE * counts.fetched


def test_a_trickle_is_no_sign_of_life() -> None:
    world = World(replicated(1, ("a", "b")), {"a": Node(mbps=0.01), "b": Node()}, seed=3)
    world.run()
    assert world.outcome == Ended()
    assert world.now_s - world.begun_s < 8


def test_patience_with_silence_grows_with_latency_and_rounds_and_is_bounded() -> None:
    assert silence_limit_s(1.0, 0) == SILENCE_LIMIT_S
    assert silence_limit_s(400.0, 0) == pytest.approx(1.6)
    assert silence_limit_s(1.0, 1) == 2 * SILENCE_LIMIT_S
    assert silence_limit_s(1e9, 1000) == 6.0


def test_what_this_process_lost_is_not_held_against_nodes() -> None:
    plan = replicated(4)
    playback = Playback(plan, NodeTable(), lambda: 0.0, now_s=0.0)
    playback.step(Tick(), 0.0)
    effects = playback.step(Tick(), 5.0)  # the process was stopped for five seconds
    assert effects == []
    now_s = 5.0
    while not effects:
        now_s += 0.1
        effects = playback.step(Tick(), now_s)
    assert now_s == pytest.approx(5.0 + SILENCE_LIMIT_S - 0.1, abs=0.2)


def test_when_all_replicas_fail_the_plan_is_fetched_again_and_the_new_place_is_used_at_once() -> None:
    moved = replicated(10, nodes=("d",))
    world = World(replicated(10), {**good(), "d": Node()}, fresh_plan=lambda: moved)
    for name in "abc":
        world.nodes[name].fails = Failure.MISSING
    world.run()
    assert world.outcome == Ended()
    assert world.refreshes >= 1
    assert world.started_s is not None
    assert world.started_s - world.begun_s < 1
    assert {request.node for request in world.requests[-3:]} == {"d"}
    first = world.asked(0)
    assert first[-1].at_s - first[-2].at_s < 0.05  # as long as it takes to fetch a plan, not to be patient


def test_without_a_new_plan_the_old_replicas_are_tried_again_at_growing_intervals() -> None:
    world = World(replicated(1), good())
    for node in world.nodes.values():
        node.fails = Failure.UNREACHABLE
    world.become(12.0, good())
    world.run()
    assert world.outcome == Ended()
    times = [request.at_s for request in world.requests]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times) if later - earlier > 0.05]
    assert len(world.requests) < 40
    assert 0.1 <= pauses[0] <= 0.3
    assert max(pauses) <= 4.01
    assert world.now_s - world.begun_s < 12 + 4 + 1 + 5


@pytest.mark.parametrize("speed", [0.0, 1.0])
def test_it_gives_up_when_patience_is_over_and_says_why(speed: float) -> None:
    world = World(replicated(3), good(), speed=speed, patience_s=5.0)
    for node in world.nodes.values():
        node.fails = Failure.UNREACHABLE
    world.run()
    assert isinstance(world.outcome, GaveUp)
    assert "chunk-0" in world.outcome.reason
    assert "a: unreachable" in world.outcome.reason
    assert world.now_s - world.begun_s == pytest.approx(5.0, abs=0.2)


def test_it_does_not_give_up_while_there_is_something_to_see() -> None:
    world = World(replicated(40), good(), patience_s=5.0)
    world.become(10.0, bad(Failure.UNREACHABLE))
    world.run()
    assert isinstance(world.outcome, GaveUp)
    buffer = world.playback.buffer(world.now_s)
    assert world.started_s is not None
    dry_s = world.started_s + buffer.playhead_s
    assert world.now_s - dry_s == pytest.approx(5.0, abs=0.1)
    assert buffer.stalls == 1


def test_a_blocked_output_stops_the_fetching_not_the_playback() -> None:
    world = World(replicated(60), good(), speed=0)
    world._in_order = -1  # the output never takes anything
    with pytest.raises(AssertionError, match="nothing will ever happen"):
        world.run()
    assert len(world.completed_s) == MAX_AHEAD_CHUNKS
    assert world.outcome is None


@pytest.mark.parametrize("dead", ["", "a", "ab", "de"])
def test_any_three_of_five_fragments_will_do(dead: str) -> None:
    world = World(coded(20), good("abcde"))
    for name in dead:
        world.nodes[name].fails = Failure.UNREACHABLE
    world.run()
    assert world.outcome == Ended()
    assert world.playback.buffer(world.now_s).stalls == 0
    assert world.playback.counts.fetched == 60 + world.playback.counts.hedges


def test_hung_fragments_are_left_within_a_second() -> None:
    world = World(coded(10), good("abcde"))
    world.nodes["a"].stops_after = world.nodes["b"].stops_after = 0.0
    world.run()
    assert world.outcome == Ended()
    assert world.playback.buffer(world.now_s).stalls == 0


def test_fragments_that_do_not_make_the_chunk_are_fetched_again() -> None:
    spoiled: list[int] = []

    def spoil(complete: Complete) -> bool:
        spoiled.append(complete.index)
        return len(spoiled) <= 2

    world = World(coded(3), good("abcde"), spoil=spoil)
    world.run()
    assert world.outcome == Ended()
    assert len(spoiled) == 3 + 2
    assert world.refreshes >= 1


def test_a_chunk_that_is_converted_on_the_way_is_fetched_in_its_new_form() -> None:
    converted = coded(20, nodes=("d", "e", "f", "g", "h"))
    world = World(replicated(20), good("abcdefgh"), fresh_plan=lambda: converted)
    world.become(3.0, bad(Failure.MISSING))
    world.run()
    assert world.outcome == Ended()
    assert world.playback.buffer(world.now_s).stalls == 0


behaviours = st.builds(
    Node,
    mbps=st.sampled_from([0.5, 3.0, 20.0, 300.0]),
    fails=st.sampled_from([None, None, *Failure]),
    stops_after=st.sampled_from([1.0, 1.0, 0.0, 0.4]),
)


@settings(max_examples=20)
@given(
    plan=st.sampled_from([replicated(8), coded(8), replicated(8, duration_s=0.3), replicated(3, nodes=("a",))]),
    nodes=st.fixed_dictionaries(dict.fromkeys("abcde", behaviours)),
    changes=st.lists(st.tuples(st.floats(0, 40), st.sampled_from("abcde"), behaviours), max_size=8),
    speed=st.sampled_from([0.0, 1.0, 4.0]),
    seed=st.integers(0, 100),
)
def test_whatever_nodes_do_the_playback_ends_once_they_behave(
    plan: Plan, nodes: dict[str, Node], changes: list[tuple[float, str, Node]], speed: float, seed: int
) -> None:
    """The simulation checks the invariants at every step; here: no chunk is lost, none comes twice, and it ends."""
    copies = {name: Node(node.mbps, node.fails, node.stops_after) for name, node in nodes.items()}
    world = World(plan, copies, speed=speed, seed=seed, patience_s=500.0)
    for after_s, name, node in changes:
        world.become(after_s, {name: node})
    world.become(50.0, good("abcde"))
    world.run(until_s=1000)
    assert world.outcome == Ended()
    assert sorted(world.completed_s) == list(range(len(plan.chunks)))
    assert world.playback.in_flight == 0
    assert all(record.in_flight == 0 for _, record in world.table.items())
    counts = world.playback.counts
    assert len(world.requests) == counts.fetched + counts.failed + counts.dropped
