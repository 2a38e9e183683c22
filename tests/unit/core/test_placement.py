"""Placement: the same answer everywhere, as little movement as possible, shares by weight, distinct hosts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vstack.core.placement import Generation, Node, choose, config_for, rank


def node(number: int, *, host: str | None = None, weight: float = 1.0) -> Node:
    return Node(f"node-{number}", f"host-{number}" if host is None else host, weight)


nodes = st.lists(
    st.builds(
        Node,
        st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True),
        st.sampled_from(["h0", "h1", "h2", "h3", "h4", "h5"]),
        st.floats(0.01, 1000),
    ),
    unique_by=lambda node: node.node_id,
    max_size=9,
)
keys = st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True)


@given(key=keys, nodes=nodes, count=st.integers(0, 6), data=st.data())
def test_the_order_of_the_nodes_does_not_matter(key: str, nodes: list[Node], count: int, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(nodes))
    assert rank(key, shuffled) == rank(key, nodes)
    assert choose(key, shuffled, count) == choose(key, nodes, count)


@given(key=keys, nodes=nodes, count=st.integers(0, 6))
def test_hosts_are_distinct_while_there_are_enough(key: str, nodes: list[Node], count: int) -> None:
    chosen = choose(key, nodes, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(nodes))
    hosts = {each.host for each in nodes}
    assert len({each.host for each in chosen}) == min(len(chosen), len(hosts))
    assert len({each.host for each in chosen[: len(hosts)]}) == len(chosen[: len(hosts)])


@given(key=keys, nodes=nodes, count=st.integers(1, 6), data=st.data())
def test_one_node_more_or_less_moves_one_copy_at_most(
    key: str, nodes: list[Node], count: int, data: st.DataObject
) -> None:
    """A copy moves only to the node that came, or away from the one that went."""
    newcomer = data.draw(st.builds(Node, st.just("NEW"), st.sampled_from(["h0", "h1", "fresh"]), st.floats(0.01, 1000)))
    before, after = set(choose(key, nodes, count)), set(choose(key, [*nodes, newcomer], count))
    assert after - before <= {newcomer}
    assert len(before - after) <= len(after - before)


def test_the_share_of_a_node_is_its_weight() -> None:
    weights = {0: 1.0, 1: 2.0, 2: 4.0, 3: 1.0}
    pool = [node(number, weight=weight) for number, weight in weights.items()]
    keys = [f"video-{number}-chunk-000" for number in range(20_000)]
    firsts = Counter(choose(key, pool, 1)[0].node_id for key in keys)
    for number, weight in weights.items():
        share = firsts[f"node-{number}"] / len(keys)
        assert share == pytest.approx(weight / sum(weights.values()), abs=0.015)  # over four standard deviations


def test_a_heavier_node_only_gains() -> None:
    light = [node(number) for number in range(6)]
    heavy = [node(0, weight=3.0), *light[1:]]
    for number in range(500):
        before = {each.node_id for each in choose(f"chunk-{number}", light, 3)}
        after = {each.node_id for each in choose(f"chunk-{number}", heavy, 3)}
        assert after - before <= {"node-0"}


@pytest.mark.parametrize(("size", "acceptors"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)])
def test_acceptors_are_drawn_from_the_generation(size: int, acceptors: int) -> None:
    generation = Generation(7, tuple(node(number) for number in range(size)))
    config = config_for("video-chunk-000", generation)
    assert config.generation == 7
    assert len(config.acceptors) == acceptors
    assert set(config.acceptors) <= {each.node_id for each in generation.nodes}


def test_acceptors_do_not_depend_on_what_is_proposed() -> None:
    """Two proposals with disjoint placements still meet: acceptors are of the chunk and the generation, and stay."""
    generation = Generation(1, tuple(node(number) for number in range(9)))
    assert config_for("chunk", generation) == config_for("chunk", Generation(1, generation.nodes[::-1]))
    chosen = choose("chunk", generation.nodes, 9)
    disjoint = {each.node_id for each in chosen[:3]}, {each.node_id for each in chosen[6:]}
    assert not disjoint[0] & disjoint[1]
    assert config_for("chunk", generation).acceptors == tuple(each.node_id for each in chosen[:5])


def test_replicas_fall_on_acceptors() -> None:
    generation = Generation(1, tuple(node(number) for number in range(9)))
    for number in range(200):
        acceptors = config_for(f"chunk-{number}", generation).acceptors
        replicas = tuple(each.node_id for each in choose(f"chunk-{number}", generation.nodes, 3))
        assert replicas == acceptors[:3]


def test_the_ranking_is_fixed() -> None:
    """Acceptors are computed by several services and releases: this ranking never changes."""
    pool = [node(number, weight=1.0 + number % 3) for number in range(7)]
    ranked = [each.node_id.removeprefix("node-") for each in rank("6f1c-chunk-000", pool)]
    assert ranked == ["6", "0", "5", "2", "3", "4", "1"]
