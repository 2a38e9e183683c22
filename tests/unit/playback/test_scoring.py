"""The score formula to the digit, what unmeasured and failing nodes are worth, and who is picked."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.playback.scoring import AVOID_BASE_S, AVOID_MAX_S, EXPLORE_AFTER_S, Failure, NodeTable

A, B, C = "http://a", "http://b", "http://c"


def first() -> float:
    return 0.0


def table(*nodes: str) -> NodeTable:
    made = NodeTable()
    made.keep(nodes)
    return made


def fetch(nodes: NodeTable, node: str, mbps: float, now_s: float = 0.0) -> None:
    nodes.started(node)
    nodes.fetched(node, 1_000_000, 8 / mbps, now_s)


def fail(nodes: NodeTable, node: str, reason: Failure = Failure.STALLED, now_s: float = 0.0) -> None:
    nodes.started(node)
    nodes.failed(node, reason, now_s)


def test_a_node_without_data_scores_50() -> None:
    assert table(A)[A].score == 50.0


def test_the_example_of_the_api_document() -> None:
    nodes = table(A)
    fetch(nodes, A, 48.2)
    nodes.ponged(A, 18.5)
    assert nodes[A].score == pytest.approx(48.2 / (1 + 0.1 * 18.5))
    assert nodes[A].score == pytest.approx(16.8, abs=0.2)


def test_what_is_not_measured_counts_as_default() -> None:
    nodes = table(A, B, C)
    nodes.ponged(A, 10)
    assert nodes[A].score == pytest.approx(50 / 2)
    fetch(nodes, B, 80)
    assert nodes[B].score == pytest.approx(80)
    fail(nodes, C, Failure.CORRUPT)
    assert nodes[C].score == 0


@given(st.lists(st.floats(0.1, 10_000), min_size=1, max_size=40), st.lists(st.booleans(), min_size=1, max_size=60))
def test_means_are_of_the_last_10_and_20(speeds: list[float], outcomes: list[bool]) -> None:
    nodes = table(A)
    for mbps in speeds:
        fetch(nodes, A, mbps)
    for outcome in outcomes:
        if outcome:
            nodes.ponged(A, 0.0)
        else:
            nodes.ping_failed(A)
    history = ([True] * len(speeds) + outcomes)[-20:]
    bandwidth = sum(speeds[-10:]) / len(speeds[-10:])
    assert nodes[A].score == pytest.approx(bandwidth * sum(history) / len(history))


def test_latency_is_a_mean_of_recent_pings() -> None:
    nodes = table(A)
    for latency_ms in (1000.0, *([10.0, 30.0] * 5)):
        nodes.ponged(A, latency_ms)
    assert nodes[A].latency_ms == pytest.approx(20)


def test_a_failing_node_sinks_and_pings_raise_it_again() -> None:
    nodes = table(A)
    fetch(nodes, A, 100)
    seen = [nodes[A].score]
    for _ in range(5):
        fail(nodes, A)
        seen.append(nodes[A].score)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < seen[0] / 5
    for _ in range(20):
        nodes.ponged(A, 0.0)
    assert nodes[A].score == pytest.approx(100)


def test_an_unreachable_node_is_picked_only_when_it_is_the_last() -> None:
    nodes = table(A, B)
    fetch(nodes, A, 1000)
    nodes.ping_failed(A)
    assert nodes.pick([A, B], 0.0, first) == B
    assert nodes.pick([A], 0.0, first) == A
    nodes.ponged(A, 0.0)
    assert nodes.pick([A, B], 0.0, first) == A


def test_a_node_whose_reads_fail_is_avoided_longer_each_time() -> None:
    nodes = table(A)
    now_s, lengths = 0.0, []
    for _ in range(8):
        fail(nodes, A, now_s=now_s)
        nodes.ponged(A, 0.0)  # it answers pings all the while
        lengths.append(nodes[A].avoid_until_s - now_s)
        now_s = nodes[A].avoid_until_s
        assert not nodes.avoided(A, now_s)
    assert lengths[:3] == [AVOID_BASE_S, 2 * AVOID_BASE_S, 4 * AVOID_BASE_S]
    assert lengths == sorted(lengths)
    assert lengths[-1] == AVOID_MAX_S
    fetch(nodes, A, 10, now_s)
    assert nodes[A].failures_in_row == 0


@pytest.mark.parametrize("reason", [Failure.CORRUPT, Failure.MISSING])
def test_a_fault_of_one_chunk_does_not_make_the_node_avoided(reason: Failure) -> None:
    nodes = table(A)
    fail(nodes, A, reason)
    assert not nodes.avoided(A, 0.0)
    assert nodes[A].success_rate == 0


def test_downloads_in_flight_scale_the_score_by_a_fifth_each() -> None:
    nodes = table(A, B)
    fetch(nodes, A, 100)
    fetch(nodes, B, 90)
    assert nodes.pick([A, B], 0.0, first) == A
    nodes.started(A)  # 100 / 1.2 = 83
    assert nodes.pick([A, B], 0.0, first) == B
    nodes.started(B)  # 90 / 1.2 = 75
    assert nodes.pick([A, B], 0.0, first) == A


def test_equals_are_told_apart_by_lot() -> None:
    nodes = table(A, B, C)
    draws = itertools.cycle([0.0, 0.34, 0.99])
    assert {nodes.pick([A, B, C], 0.0, lambda: next(draws)) for _ in range(3)} == {A, B, C}


def test_exploring_prefers_a_node_that_was_not_measured_lately() -> None:
    nodes = table(A, B)
    fetch(nodes, A, 1000, now_s=0.0)
    assert nodes.pick([A, B], 1.0, first, explore=True) == B
    fetch(nodes, B, 1, now_s=2.0)
    assert nodes.pick([A, B], 3.0, first, explore=True) == A
    assert nodes.pick([A, B], EXPLORE_AFTER_S + 1, first, explore=True) == A  # only A is stale, and it is the best too
    nodes.ping_failed(B)
    assert nodes.pick([A, B], 1000.0, first, explore=True) == A


def test_a_dropped_download_tells_speed_but_neither_success_nor_failure() -> None:
    nodes = table(A)
    nodes.started(A)
    nodes.dropped(A, 125_000, 1.0, 5.0)
    assert nodes[A].bandwidth_mbps == pytest.approx(1.0)
    assert nodes[A].success_rate == 1.0
    nodes.started(A)
    nodes.dropped(A, 0, 0.01, 6.0)  # too short to tell
    assert nodes[A].bandwidth_mbps == pytest.approx(1.0)
    assert nodes[A].in_flight == 0


def test_nodes_that_no_plan_names_are_forgotten_unless_busy() -> None:
    nodes = table(A, B)
    nodes.started(B)
    nodes.keep({C})
    assert set(nodes.known) == {B, C}


def test_expected_time_is_latency_plus_transfer() -> None:
    nodes = table(A)
    nodes.ponged(A, 100)
    assert nodes[A].expected_s(6_250_000) == pytest.approx(0.1 + 1.0)
    nodes.started(A)
    nodes.dropped(A, 0, 1.0, 0.0)
    assert nodes[A].expected_s(1) == float("inf")
