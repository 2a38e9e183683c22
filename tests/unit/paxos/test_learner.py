"""LEARN off the commit path, and RETIRE until it is confirmed."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.paxos.inprocess import Acceptors
from vstack.core.paxos.config import Config
from vstack.core.paxos.messages import Accept, Instance
from vstack.metadata.deciding import learning
from vstack.metadata.deciding.learning import MAX_BATCH_ITEMS, Learner

NODES = ("n0", "n1", "n2")
CONFIG = Config(1, NODES)


def instance(number: int, config: Config = CONFIG) -> Instance:
    return Instance(f"chunk-{number}", 0, config)


def items(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("vstack_metadata_learn_items_total", {"outcome": outcome}) or 0.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "GATHER_S", 0.0)


async def test_values_are_learned_in_batches() -> None:
    acceptors, registry = Acceptors(NODES), CollectorRegistry()
    count = 2 * MAX_BATCH_ITEMS + 1
    async with Learner(acceptors, registry) as learner:
        for number in range(count):
            learner.learn(instance(number), b"v", acceptors.urls)
    assert len(acceptors.states) == count * len(NODES)
    assert all(states[0].learned and states[0].accepted_value == b"v" for states in acceptors.states.values())
    assert acceptors.calls == ["learn"] * 3 * len(NODES)
    assert items(registry, "learned") == count * len(NODES)


async def test_a_node_that_is_gone_loses_only_its_own() -> None:
    acceptors, registry = Acceptors(NODES), CollectorRegistry()
    acceptors.down = {"http://n0"}
    async with Learner(acceptors, registry) as learner:
        learner.learn(instance(0), b"v", acceptors.urls)
        learner.learn(instance(1), b"v", {"n1": "http://n1"})
    assert {node for node, _ in acceptors.states} == {"n1", "n2"}
    assert (items(registry, "learned"), items(registry, "dropped")) == (3, 1)


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MAX_PENDING_ITEMS", 4)
    acceptors, registry = Acceptors(NODES), CollectorRegistry()
    async with Learner(acceptors, registry) as learner:
        for number in range(3):
            learner.learn(instance(number), b"v", acceptors.urls)
    assert (items(registry, "learned"), items(registry, "dropped")) == (4, 5)


async def test_closing_does_not_wait_for_a_hung_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "CLOSE_TIMEOUT_S", 0.05)
    acceptors = Acceptors(NODES)
    acceptors.hung = {"http://n0"}
    async with asyncio.timeout(5):
        async with Learner(acceptors, CollectorRegistry()) as learner:
            learner.learn(instance(0), b"v", acceptors.urls)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_retirement_is_confirmed_by_node() -> None:
    acceptors = Acceptors(NODES)
    acceptors.down = {"http://n2"}
    doomed = [instance(number) for number in range(MAX_BATCH_ITEMS + 1)]
    async with Learner(acceptors, CollectorRegistry()) as learner:
        assert await learner.retire(doomed, acceptors.urls) == {"n0", "n1"}
        acceptors.down = set()
        assert await learner.retire(doomed, {"n2": "http://n2"}) == {"n2"}
        assert await learner.retire(doomed, acceptors.urls) == set(NODES)
    assert all(states[0].retired for states in acceptors.states.values())


async def test_a_refusal_is_no_confirmation() -> None:
    acceptors = Acceptors(NODES)
    acceptors.take("n0", Accept(instance(1, Config(2, NODES)), 0, b"v"))
    acceptors.moved = {"http://n1": "n2"}
    async with Learner(acceptors, CollectorRegistry()) as learner:
        assert await learner.retire([instance(0), instance(1)], acceptors.urls) == {"n2"}
