"""The I/O driver over acceptors in this process: what it asks, what it returns, what it leaves behind."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from tests.unit.paxos.inprocess import Acceptors
from vstack.core import decree
from vstack.core.decree import Decree
from vstack.core.paxos.config import MAX_ROUND, Config, ballot
from vstack.core.paxos.messages import Accept, Instance, Learn, Prepare, Retire
from vstack.core.paxos.receipts import Receipt, sign
from vstack.errors import ConflictError, UnavailableError
from vstack.metadata.deciding import consensus as module
from vstack.metadata.deciding.consensus import Consensus

KEY = b"a key of the tests, long enough"
NODES = ("n0", "n1", "n2", "n3", "n4")
FIVE = Instance("chunk", 0, Config(1, NODES))
THREE = Instance("chunk", 0, Config(1, NODES[:3]))


@pytest.fixture
def acceptors() -> Acceptors:
    return Acceptors(NODES)


@pytest.fixture
async def consensus(acceptors: Acceptors) -> AsyncIterator[Consensus]:
    async with driver(acceptors) as consensus:
        yield consensus
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the driver left a task behind"


def driver(acceptors: Acceptors, proposer_id: int = 1) -> Consensus:
    chance = random.Random(proposer_id)
    return Consensus(
        acceptors, KEY, proposer_id, CollectorRegistry(), uniform=lambda low, high: chance.uniform(low, high) / 20
    )


def receipts(
    instance: Instance, value: bytes, nodes: Sequence[str], *, key: bytes = KEY, **wrong: object
) -> list[Receipt]:
    facts = {"chunk_id": instance.chunk_id, "epoch": instance.epoch, "generation": instance.config.generation}
    return [
        sign(Receipt(**{"node_id": node, "value_digest": decree.digest(value), **facts, **wrong}), key)  # type: ignore[arg-type]
        for node in nodes
    ]


async def test_a_fast_quorum_of_receipts_decides_without_a_message(consensus: Consensus, acceptors: Acceptors) -> None:
    assert await consensus.decide(FIVE, b"v", acceptors.urls, receipts(FIVE, b"v", NODES[:4])) == b"v"
    assert await consensus.decide(THREE, b"v", {}, receipts(THREE, b"v", NODES[:3])) == b"v"
    assert acceptors.calls == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": b"the key of another cluster"},
        {"chunk_id": "another"},
        {"epoch": 1},
        {"generation": 2},
        {"value_digest": decree.digest(b"w")},
        {"value_digest": ""},
    ],
)
async def test_receipts_that_prove_something_else_do_not_count(
    consensus: Consensus, acceptors: Acceptors, wrong: dict[str, object]
) -> None:
    key = wrong.pop("key", KEY)
    assert isinstance(key, bytes)
    proof = receipts(FIVE, b"v", NODES, key=key, **wrong)
    with pytest.raises(UnavailableError):
        await consensus.decide(FIVE, b"v", {}, proof)


async def test_neither_do_receipts_of_strangers_or_one_receipt_four_times(consensus: Consensus) -> None:
    for nodes in (("n0", "n1", "n2", "m3", "m4"), ("n0", "n0", "n0", "n0")):
        with pytest.raises(UnavailableError):
            await consensus.decide(FIVE, b"v", {}, receipts(FIVE, b"v", nodes))


async def test_a_changed_receipt_is_not_genuine(consensus: Consensus) -> None:
    forged = [replace(receipt, value_digest=decree.digest(b"v")) for receipt in receipts(FIVE, b"w", NODES)]
    with pytest.raises(UnavailableError):
        await consensus.decide(FIVE, b"v", {}, forged)


async def test_fewer_receipts_are_completed_to_a_fast_round(consensus: Consensus, acceptors: Acceptors) -> None:
    for node in NODES[:3]:
        acceptors.take(node, Accept(FIVE, 0, b"v"))
    assert await consensus.decide(FIVE, b"v", acceptors.urls, receipts(FIVE, b"v", NODES[:3])) == b"v"
    assert acceptors.calls == ["accept", "accept"]


async def test_without_receipts_one_round_trip_decides(consensus: Consensus, acceptors: Acceptors) -> None:
    assert await consensus.decide(FIVE, b"v", acceptors.urls) == b"v"
    assert acceptors.calls == ["accept"] * 5


async def test_with_two_nodes_away_classic_rounds_decide(consensus: Consensus, acceptors: Acceptors) -> None:
    urls = {node: url for node, url in acceptors.urls.items() if node in NODES[2:]}
    assert await consensus.decide(FIVE, b"v", urls) == b"v"
    assert acceptors.calls == ["prepare"] * 3 + ["accept"] * 3
    assert await consensus.decide(FIVE, b"w", acceptors.urls) == b"v"


async def test_what_a_fast_quorum_chose_is_found_with_one_of_it_gone(
    consensus: Consensus, acceptors: Acceptors
) -> None:
    for node in NODES[:4]:
        acceptors.take(node, Accept(FIVE, 0, b"v"))
    acceptors.take("n4", Accept(FIVE, 0, b"w"))
    acceptors.down = {"http://n0", "http://n1"}
    assert await consensus.decide(FIVE, b"w", acceptors.urls) == b"v"


async def test_a_collided_fast_round_is_settled(consensus: Consensus, acceptors: Acceptors) -> None:
    for node in NODES[:2]:
        acceptors.take(node, Accept(FIVE, 0, b"v"))
    chosen = await consensus.decide(FIVE, b"w", acceptors.urls)
    assert chosen in (b"v", b"w")
    assert await consensus.decide(FIVE, b"x", acceptors.urls) == chosen


async def test_a_higher_promise_is_overtaken(consensus: Consensus, acceptors: Acceptors) -> None:
    for node in NODES:
        acceptors.take(node, Prepare(FIVE, ballot(7, 9)))
    assert await consensus.decide(FIVE, b"v", acceptors.urls) == b"v"


async def test_the_last_ballot_is_a_503_and_no_crash(consensus: Consensus, acceptors: Acceptors) -> None:
    for node in NODES:
        acceptors.take(node, Prepare(FIVE, ballot(MAX_ROUND - 1, 0)))
    with pytest.raises(UnavailableError, match="exhausted"):
        await consensus.decide(FIVE, b"v", acceptors.urls)


async def test_no_quorum_is_unavailable(consensus: Consensus, acceptors: Acceptors) -> None:
    acceptors.down = {"http://n0", "http://n1", "http://n2"}
    with pytest.raises(UnavailableError, match="3 of 5") as raised:
        await consensus.decide(FIVE, b"v", acceptors.urls)
    assert raised.value.retry_after_s >= 1


async def test_hung_nodes_do_not_hold_up_a_quorum(consensus: Consensus, acceptors: Acceptors) -> None:
    acceptors.hung = {"http://n0", "http://n1"}
    async with asyncio.timeout(5):
        assert await consensus.abort(FIVE, acceptors.urls, video_id="v", sequence_num=0) == _abort()


async def test_a_hung_node_does_not_hold_up_a_fast_round(
    consensus: Consensus, acceptors: Acceptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAST_PATIENCE_S", 0.05)
    acceptors.hung = {"http://n0", "http://n1"}
    async with asyncio.timeout(5):
        assert await consensus.decide(FIVE, b"v", acceptors.urls) == b"v"
    assert acceptors.calls == ["accept"] * 5 + ["prepare"] * 5 + ["accept"] * 5


async def test_a_hung_quorum_ends_at_the_deadline(
    consensus: Consensus, acceptors: Acceptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECIDE_TIMEOUT_S", 0.05)
    acceptors.hung = {"http://n0", "http://n1", "http://n2"}
    with pytest.raises(UnavailableError, match="in time"):
        await consensus.decide(FIVE, b"v", acceptors.urls)


async def test_late_answers_are_bounded(
    consensus: Consensus, acceptors: Acceptors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LATE_ANSWERS", 3)
    acceptors.hung = {"http://n0"}
    before = len(asyncio.all_tasks())
    for number in range(20):
        await consensus.decide(Instance(f"chunk-{number}", 0, FIVE.config), b"v", acceptors.urls)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) <= before + 3


async def test_a_node_behind_anothers_address_does_not_vote_twice(consensus: Consensus, acceptors: Acceptors) -> None:
    acceptors.moved = {f"http://{node}": "n0" for node in NODES}
    with pytest.raises(UnavailableError):
        await consensus.decide(FIVE, b"v", acceptors.urls)


async def test_other_acceptors_for_the_same_chunk_are_refused(consensus: Consensus, acceptors: Acceptors) -> None:
    assert await consensus.decide(FIVE, b"v", acceptors.urls) == b"v"
    with pytest.raises(UnavailableError):
        await consensus.decide(Instance("chunk", 0, Config(2, NODES)), b"w", acceptors.urls)


async def test_a_retired_chunk_is_a_conflict(consensus: Consensus, acceptors: Acceptors) -> None:
    for node in NODES[:3]:
        acceptors.take(node, Retire(FIVE))
    with pytest.raises(ConflictError):
        await consensus.decide(FIVE, b"v", acceptors.urls)


async def test_an_epoch_behind_a_decided_one_is_a_conflict(consensus: Consensus, acceptors: Acceptors) -> None:
    next_epoch = Instance("chunk", 1, FIVE.config)
    for node in NODES[:3]:
        acceptors.take(node, Learn(FIVE, b"v"))
        acceptors.take(node, Learn(next_epoch, b"w"))
    with pytest.raises(ConflictError):
        await consensus.decide(FIVE, b"x", acceptors.urls)
    assert await consensus.decide(next_epoch, b"x", acceptors.urls) == b"w"


def _abort() -> bytes:
    return decree.abort("v", 0, 1).encode()


async def test_abort_wins_where_nothing_was_chosen(consensus: Consensus, acceptors: Acceptors) -> None:
    acceptors.take("n0", Accept(FIVE, 0, b"v"))
    assert await consensus.abort(FIVE, acceptors.urls, video_id="v", sequence_num=0) == _abort()
    assert Decree.decode(_abort()).mode is decree.Mode.ABORT
    assert await consensus.decide(FIVE, b"v", acceptors.urls) == _abort()


async def test_abort_finds_what_was_chosen(consensus: Consensus, acceptors: Acceptors) -> None:
    assert await consensus.decide(FIVE, b"v", acceptors.urls) == b"v"
    assert await consensus.abort(FIVE, acceptors.urls, video_id="v", sequence_num=0) == b"v"


async def test_inspect_tells_every_acceptor_apart(consensus: Consensus, acceptors: Acceptors) -> None:
    acceptors.take("n0", Accept(FIVE, 0, b"v"))
    acceptors.down = {"http://n2"}
    acceptors.moved = {"http://n3": "n0"}
    urls = {node: url for node, url in acceptors.urls.items() if node != "n4"}
    answers = await consensus.inspect(FIVE, urls)
    assert [answer.node_id for answer in answers] == list(NODES)
    assert [answer.reachable for answer in answers] == [True, True, False, False, False]
    assert [answer.state.accepted_value if answer.state else None for answer in answers] == [b"v", *[None] * 4]


async def test_cancelling_a_decision_cancels_its_requests(acceptors: Acceptors) -> None:
    acceptors.hung = set(acceptors.urls.values())
    async with driver(acceptors) as consensus:
        deciding = asyncio.create_task(consensus.decide(FIVE, b"v", acceptors.urls))
        async with asyncio.timeout(5):
            while len(acceptors.calls) < len(NODES):  # noqa: ASYNC110 - the loop turns until all were asked
                await asyncio.sleep(0)
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_proposers_that_race_agree() -> None:
    """Eight drivers, each with a wish of its own and some of them with one proposer id, at 20 chunks."""
    acceptors = Acceptors(NODES)
    drivers = [driver(acceptors, proposer_id=number // 2) for number in range(8)]
    for number in range(20):
        instance = Instance(f"chunk-{number}", 0, (FIVE if number % 2 else THREE).config)
        wishes = [f"wish {one} of {number}".encode() for one in range(len(drivers))]
        chosen = await asyncio.gather(
            *(each.decide(instance, wish, acceptors.urls) for each, wish in zip(drivers, wishes, strict=True))
        )
        assert len(set(chosen)) == 1
        assert chosen[0] in wishes
    for each in drivers:
        await each.close()
