"""PUTs that carry a proposal: data and vote under one flush, and the receipt that proves them."""

import asyncio
import hashlib
from typing import Any

import pytest

from tests.storage.service.conftest import CLUSTER_KEY, RunningNode
from vstack.core.decree import Decree, Mode, Placement, digest
from vstack.core.paxos.receipts import Receipt, is_genuine
from vstack.wire import consensus

DATA = b"x" * 9000
SHA = hashlib.sha256(DATA).hexdigest()
CHUNK = "v-chunk-000"


async def propose(
    node: RunningNode, proposal: consensus.Proposal | str, *, chunk_id: str = CHUNK, data: bytes = DATA, **headers: str
) -> tuple[int, Receipt | None]:
    text = proposal if isinstance(proposal, str) else consensus.to_header(proposal)
    named = {consensus.PROPOSAL_HEADER: text, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with node.request("PUT", f"/chunk/{chunk_id}", data=data, headers=named) as answer:
        if answer.status >= 400:
            assert "detail" in await answer.json()
        receipt = answer.headers.get(consensus.RECEIPT_HEADER)
        return answer.status, consensus.receipt_from_text(receipt) if receipt is not None else None


async def state(node: RunningNode, *, epoch: int = 0) -> dict[str, Any] | None:
    async with node.request("GET", f"/acceptor/{CHUNK}?epoch={epoch}") as answer:
        return await answer.json() if answer.status == 200 else None


async def test_data_and_vote_are_one_flush(node: RunningNode) -> None:
    decree = node.decree(DATA, SHA)
    before = node.engine.counters()
    status, receipt = await propose(node, node.proposal(decree))
    after = node.engine.counters()
    assert status == 201
    assert after.flushes - before.flushes == 1
    assert after.flushed_writes - before.flushed_writes == 2
    assert receipt is not None
    assert is_genuine(receipt, CLUSTER_KEY)
    assert not is_genuine(receipt, CLUSTER_KEY + b"!")
    assert (receipt.node_id, receipt.chunk_id, receipt.epoch, receipt.generation) == (node.node_id, CHUNK, 0, 7)
    assert receipt.value_digest == digest(decree.encode())
    assert (receipt.stored_checksum, receipt.stored_bytes, receipt.fragment_index) == (SHA, len(DATA), -1)
    assert await state(node) == {
        "node_id": node.node_id,
        "chunk_id": CHUNK,
        "epoch": 0,
        "generation": 7,
        "acceptors": [node.node_id, "b", "c"],
        "promised_ballot": 0,
        "accepted_ballot": 0,
        "accepted_value": decree.encode().decode(),
        "learned": False,
        "retired": False,
    }


async def test_the_same_proposal_again_costs_nothing_and_proves_the_same(node: RunningNode) -> None:
    proposal = node.proposal(node.decree(DATA, SHA))
    first = await propose(node, proposal)
    flushes = node.engine.counters().flushes
    second = await propose(node, proposal)
    assert node.engine.counters().flushes == flushes
    assert (first[0], second[0]) == (201, 200)
    assert first[1] == second[1]
    assert await node.metric("vstack_storage_acceptor_messages_total", kind="accept", outcome="accepted") == 2


async def test_a_vote_for_bytes_that_were_there_already(node: RunningNode) -> None:
    await node.put(CHUNK, DATA)
    status, receipt = await propose(node, node.proposal(node.decree(DATA, SHA)))
    assert status == 200
    assert receipt is not None
    assert receipt.value_digest
    assert receipt.stored_checksum == SHA


async def test_a_second_value_is_stored_without_a_vote(node: RunningNode) -> None:
    first = node.decree(DATA, SHA)
    await propose(node, node.proposal(first))
    status, receipt = await propose(node, node.proposal(node.decree(DATA, SHA, title="another")))
    assert status == 200
    assert receipt is not None
    assert is_genuine(receipt, CLUSTER_KEY)
    assert (receipt.value_digest, receipt.stored_checksum) == ("", SHA)
    held = await state(node)
    assert held is not None
    assert held["accepted_value"] == first.encode().decode()


async def test_after_a_promise_the_data_is_stored_without_a_vote(node: RunningNode) -> None:
    config = {"generation": 7, "acceptors": [node.node_id, "b", "c"]}
    body = {"epoch": 0, "config": config, "ballot": 1 << 16}
    assert (await node.json("POST", f"/acceptor/{CHUNK}/prepare", json=body))["outcome"] == "promised"
    status, receipt = await propose(node, node.proposal(node.decree(DATA, SHA)))
    assert status == 201
    assert receipt is not None
    assert (receipt.value_digest, receipt.stored_checksum) == ("", SHA)


async def test_a_vote_stays_proven_after_a_later_promise(node: RunningNode) -> None:
    proposal = node.proposal(node.decree(DATA, SHA))
    _, first = await propose(node, proposal)
    body = {"epoch": 0, "config": {"generation": 7, "acceptors": [node.node_id, "b", "c"]}, "ballot": 1 << 16}
    await node.json("POST", f"/acceptor/{CHUNK}/prepare", json=body)
    assert (await propose(node, proposal))[1] == first


async def test_a_node_that_is_no_acceptor_stores_without_a_vote(node: RunningNode) -> None:
    config = consensus.ConfigBody(generation=9, acceptors=("b", "c", "d"))
    status, receipt = await propose(node, node.proposal(node.decree(DATA, SHA), config=config))
    assert status == 201
    assert receipt is not None
    assert (receipt.generation, receipt.value_digest, receipt.stored_checksum) == (9, "", SHA)
    assert await state(node) is None


async def test_other_acceptors_than_begun_with_are_409(node: RunningNode) -> None:
    decree = node.decree(DATA, SHA)
    await propose(node, node.proposal(decree))
    before = await state(node)
    for config in (node.config("b", "d"), node.config("b", "c", generation=8), node.config()):
        assert (await propose(node, node.proposal(decree, config=config)))[0] == 409
    assert await state(node) == before


async def test_a_retired_chunk_refuses_proposals(node: RunningNode) -> None:
    config = {"generation": 7, "acceptors": [node.node_id, "b", "c"]}
    retire = {"items": [{"chunk_id": CHUNK, "epoch": 0, "config": config}]}
    assert (await node.json("POST", "/acceptors/learn", json=retire))["learned"] == 1
    for epoch in (0, 1):
        assert (await propose(node, node.proposal(node.decree(DATA, SHA), epoch=epoch)))[0] == 409
    await node.json("GET", f"/chunk/{CHUNK}", status=404)


async def test_a_fragment_votes_in_the_instance_of_its_chunk(node: RunningNode) -> None:
    placements = tuple(
        Placement(node.node_id if index == 3 else f"n{index}", SHA if index == 3 else "0" * 64, index)
        for index in range(5)
    )
    decree = node.decree(DATA, "1" * 64, mode=Mode.ERASURE_CODING, size_bytes=3 * len(DATA) - 2, placements=placements)
    config = node.config("b", "c", "d", "e")
    status, receipt = await propose(node, node.proposal(decree, epoch=2, config=config), chunk_id=f"{CHUNK}-frag-3")
    assert status == 201
    assert receipt is not None
    assert (receipt.chunk_id, receipt.epoch, receipt.fragment_index) == (CHUNK, 2, 3)
    assert receipt.value_digest == digest(decree.encode())
    held = await state(node, epoch=2)
    assert held is not None
    assert held["accepted_value"] == decree.encode().decode()
    row = (await node.json("GET", "/chunks"))["chunks"][0]
    assert (row["chunk_id"], row["fragment_index"], row["epoch"]) == (f"{CHUNK}-frag-3", 3, 2)


def changed(node: RunningNode, **changes: Any) -> Decree:
    return node.decree(DATA, SHA, **changes)


async def test_a_decree_that_disagrees_with_the_put_is_400_and_changes_nothing(node: RunningNode) -> None:
    elsewhere = (Placement("b", SHA), Placement("c", SHA))
    own = (Placement(node.node_id, "2" * 64),)
    for decree in (
        changed(node, checksum="1" * 64),
        changed(node, checksum="1" * 64, placements=(Placement(node.node_id, "1" * 64),)),
        changed(node, placements=own),
        changed(node, size_bytes=len(DATA) + 1),
        changed(node, placements=elsewhere),
        changed(node, placements=(Placement(node.node_id, SHA, 0),)),
        changed(node, mode=Mode.ABORT, placements=()),
        changed(node, mode=Mode.ERASURE_CODING),
        changed(node, sequence_num=1),
        changed(node, video_id="w"),
    ):
        assert (await propose(node, node.proposal(decree)))[0] == 400, decree
    assert await state(node) is None
    assert (await node.json("GET", "/chunks"))["chunks"] == []


async def test_headers_that_disagree_are_400(node: RunningNode) -> None:
    proposal = node.proposal(node.decree(DATA, SHA))
    assert (await propose(node, proposal, X_Chunk_Checksum="1" * 64))[0] == 400
    assert (await propose(node, proposal, X_Chunk_Checksum=f"sha256:{SHA}"))[0] == 201


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!!!",
        "e30=",
        "bnVsbA==",
        "//79",
        "eyJlcG9jaCI6MX0=",
        consensus.to_header({"epoch": -1, "config": {"generation": 1, "acceptors": ["a"]}, "value": "{}"}),
        consensus.to_header({"epoch": 0, "config": {"generation": 1, "acceptors": ["a", "b"]}, "value": "{}"}),
        consensus.to_header({"epoch": 0, "config": {"generation": 1, "acceptors": ["a", "a", "b"]}, "value": "{}"}),
        consensus.to_header({"epoch": 0, "config": {"generation": 1, "acceptors": ["a"]}, "value": "{}"}),
        consensus.to_header({"epoch": 0, "config": {"generation": 1, "acceptors": ["a"]}, "value": "x" * 3073}),
        consensus.to_header({"epoch": 0, "config": {"generation": 1, "acceptors": ["a"]}, "value": "ä" * 3000}),
    ],
)
async def test_a_malformed_proposal_is_400(memory_node: RunningNode, text: str) -> None:
    assert (await propose(memory_node, text))[0] == 400
    assert (await memory_node.json("GET", "/chunks"))["chunks"] == []


async def test_racing_proposals_leave_one_vote(node: RunningNode) -> None:
    decrees = [node.decree(DATA, SHA, title=f"title {number}") for number in range(6)]
    results = await asyncio.gather(*(propose(node, node.proposal(decree)) for decree in decrees))
    votes = {receipt.value_digest for _, receipt in results if receipt is not None and receipt.value_digest}
    held = await state(node)
    assert held is not None
    assert votes == {digest(held["accepted_value"].encode())}
    assert sorted(status for status, _ in results) == [200] * 5 + [201]
