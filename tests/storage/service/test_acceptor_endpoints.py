"""The acceptor's endpoints: prepare, accept, learn, retire, and what a rebuild reads."""

import asyncio
import hashlib
import io
from typing import Any

import pytest

from tests.storage.service.conftest import CLUSTER_KEY, RunningNode
from vstack.core.decree import digest
from vstack.core.paxos.config import Config
from vstack.core.paxos.receipts import is_genuine
from vstack.errors import VStackError
from vstack.rpc.storage import StorageClient
from vstack.wire import consensus

CHUNK = "v-chunk-000"
ROUND = 1 << 16


def config(node: RunningNode, *others: str, generation: int = 7) -> dict[str, Any]:
    return {"generation": generation, "acceptors": [node.node_id, *(others or ("b", "c"))]}


async def prepare(node: RunningNode, ballot: int, *, chunk_id: str = CHUNK, **changes: Any) -> Any:
    body = {"epoch": 0, "config": config(node), "ballot": ballot, **changes}
    return await node.json("POST", f"/acceptor/{chunk_id}/prepare", json=body)


async def accept(node: RunningNode, ballot: int, value: str, *, chunk_id: str = CHUNK, **changes: Any) -> Any:
    body = {"epoch": 0, "config": config(node), "ballot": ballot, "value": value, **changes}
    return await node.json("POST", f"/acceptor/{chunk_id}/accept", json=body)


async def learn(node: RunningNode, *items: dict[str, Any]) -> Any:
    filled = [{"chunk_id": CHUNK, "epoch": 0, "config": config(node), **item} for item in items]
    return await node.json("POST", "/acceptors/learn", json={"items": filled})


async def test_a_classic_round(node: RunningNode) -> None:
    assert await prepare(node, ROUND) == {
        "node_id": node.node_id,
        "outcome": "promised",
        "promised_ballot": ROUND,
        "accepted_ballot": -1,
        "accepted_value": None,
        "reason": "",
        "receipt": None,
    }
    assert (await prepare(node, ROUND))["outcome"] == "rejected"
    accepted = await accept(node, ROUND, "value")
    assert (accepted["outcome"], accepted["accepted_ballot"], accepted["receipt"]) == ("accepted", ROUND, None)
    late = await accept(node, ROUND - 1, "late")
    assert (late["outcome"], late["promised_ballot"], late["accepted_value"]) == ("rejected", ROUND, "value")
    promised = await prepare(node, 2 * ROUND)
    assert (promised["outcome"], promised["accepted_ballot"], promised["accepted_value"]) == (
        "promised",
        ROUND,
        "value",
    )


async def test_a_fast_acceptance_carries_a_receipt(node: RunningNode) -> None:
    reply = await accept(node, 0, "value")
    assert (reply["outcome"], reply["accepted_ballot"], reply["accepted_value"]) == ("accepted", 0, "value")
    receipt = consensus.receipt_from_text(reply["receipt"])
    assert is_genuine(receipt, CLUSTER_KEY)
    assert (receipt.chunk_id, receipt.epoch, receipt.generation) == (CHUNK, 0, 7)
    assert (receipt.value_digest, receipt.stored_checksum) == (digest(b"value"), "")
    refused = await accept(node, 0, "another")
    assert (refused["outcome"], refused["accepted_value"], refused["receipt"]) == ("rejected", "value", None)


async def test_a_receipt_tells_of_bytes_that_the_node_holds(node: RunningNode) -> None:
    await node.put(CHUNK, b"bytes")
    receipt = consensus.receipt_from_text((await accept(node, 0, "value"))["receipt"])
    assert (receipt.stored_checksum, receipt.stored_bytes) == (hashlib.sha256(b"bytes").hexdigest(), 5)


async def test_learn_and_retire(node: RunningNode) -> None:
    await accept(node, 0, "value")
    before = node.engine.counters().flushes
    answer = await learn(node, {"value": "value"}, {"chunk_id": "other", "value": "ww"}, {"chunk_id": "gone"})
    assert answer == {"node_id": node.node_id, "learned": 3}
    assert node.engine.counters().flushes == before + 1
    assert (await learn(node, {"value": "value"}))["learned"] == 1
    assert node.engine.counters().flushes == before + 1
    for reply in (await prepare(node, 9 * ROUND), await accept(node, 9 * ROUND, "xx"), await accept(node, 0, "xx")):
        assert (reply["outcome"], reply["accepted_value"], reply["receipt"]) == ("learned", "value", None)
    assert (await prepare(node, ROUND, chunk_id="gone"))["outcome"] == "retired"
    assert (await accept(node, 0, "xx", chunk_id="gone", epoch=3))["outcome"] == "retired"
    assert (await learn(node, {"value": "different"}))["learned"] == 0


async def test_a_batch_steps_in_order(node: RunningNode) -> None:
    answer = await learn(node, {"value": "aa"}, {"value": "bb"}, {"epoch": 1, "value": "cc"}, {}, {"value": "dd"})
    assert answer["learned"] == 4
    state = await node.json("GET", f"/acceptor/{CHUNK}")
    assert state["retired"]
    assert not state["learned"]


async def test_a_later_epoch_closes_the_earlier(node: RunningNode) -> None:
    await accept(node, 0, "old")
    await learn(node, {"epoch": 1, "value": "new"})
    assert (await accept(node, 5 * ROUND, "late"))["outcome"] == "retired"
    state = await node.json("GET", f"/acceptor/{CHUNK}?epoch=0")
    assert (state["epoch"], state["accepted_value"]) == (1, "new")


async def test_a_mismatch_is_rejected(node: RunningNode) -> None:
    await prepare(node, ROUND)
    for wrong in (config(node, "b", "d"), config(node, generation=8), {"generation": 7, "acceptors": [node.node_id]}):
        reply = await prepare(node, 2 * ROUND, config=wrong)
        assert reply["outcome"] == "mismatch"
        assert reply["reason"]
    stranger = {"generation": 7, "acceptors": ["x", "y", "z"]}
    assert (await accept(node, 0, "vv", chunk_id="fresh", config=stranger))["outcome"] == "mismatch"
    assert (await learn(node, {"value": "vv", "config": stranger}))["learned"] == 0
    state = await node.json("GET", f"/acceptor/{CHUNK}")
    assert (state["promised_ballot"], state["generation"]) == (ROUND, 7)
    await node.json("GET", "/acceptor/fresh", status=404)


async def test_concurrent_prepares_promise_each_ballot_once(node: RunningNode) -> None:
    ballots = [ROUND * (1 + number % 5) for number in range(20)]
    replies = await asyncio.gather(*(prepare(node, ballot) for ballot in ballots))
    promised = [reply["promised_ballot"] for reply in replies if reply["outcome"] == "promised"]
    assert len(promised) == len(set(promised))
    state = await node.json("GET", f"/acceptor/{CHUNK}")
    assert state["promised_ballot"] == max(ballots) == max(promised)


async def test_pages_for_a_rebuild(node: RunningNode) -> None:
    client = StorageClient(node.session)
    names = [f"v-chunk-{number:03d}" for number in range(7)]
    for name in names:
        await accept(node, 0, name, chunk_id=name)
    seen: list[tuple[str, str | None]] = []
    after: str | None = None
    while True:
        params = {"limit": "2"} | ({"after": after} if after is not None else {})
        page = await node.json("GET", "/acceptors", params=params)
        seen += [(row["chunk_id"], row["accepted_value"]) for row in page["states"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == [(name, name) for name in names]
    whole = await client.acceptor_page(node.url, None)
    assert {state.to_core().instance.config for state in whole.states} == {Config(7, (node.node_id, "b", "c"))}


async def test_our_client_speaks_it(node: RunningNode) -> None:
    client = StorageClient(node.session)
    body = consensus.ConfigBody(generation=7, acceptors=(node.node_id,))
    promise = await client.prepare(node.url, CHUNK, consensus.PrepareRequest(epoch=1, config=body, ballot=ROUND))
    assert promise.outcome == "promised"
    request = consensus.AcceptRequest(epoch=1, config=body, ballot=ROUND, value="vv")
    assert (await client.accept(node.url, CHUNK, request)).outcome == "accepted"
    item = consensus.LearnItem(chunk_id=CHUNK, epoch=1, config=body, value="vv")
    assert (await client.learn(node.url, consensus.LearnRequest(items=(item,)))).learned == 1
    state = await client.acceptor_state(node.url, CHUNK, 1)
    assert state is not None
    assert state.learned
    assert await client.acceptor_state(node.url, "none", 0) is None


@pytest.mark.parametrize(
    "change",
    [
        {"ballot": -1},
        {"ballot": 2**52},
        {"ballot": "1"},
        {"ballot": 1.5},
        {"epoch": -1},
        {"epoch": 2**31},
        {"value": ""},
        {"value": "x" * 3073},
        {"value": "\u00e4" * 2000},
        {"value": "\ud800 lone"},
        {"value": 3},
        {"config": None},
        {"config": {"generation": 1, "acceptors": []}},
        {"config": {"generation": 1, "acceptors": ["a", "b"]}},
        {"config": {"generation": 1, "acceptors": ["a", "a", "b"]}},
        {"config": {"generation": 1, "acceptors": ["a.b"]}},
        {"config": {"generation": -1, "acceptors": ["a"]}},
    ],
)
async def test_bad_bodies_are_400(memory_node: RunningNode, change: dict[str, Any]) -> None:
    body = {"epoch": 0, "config": config(memory_node), "ballot": 0, "value": "v", **change}
    answer = await memory_node.json("POST", f"/acceptor/{CHUNK}/accept", json=body, status=400)
    assert answer["detail"]
    await memory_node.json("GET", f"/acceptor/{CHUNK}", status=404)


@pytest.mark.parametrize("path", [f"/acceptor/{CHUNK}/prepare", f"/acceptor/{CHUNK}/accept", "/acceptors/learn"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"items": []}'])
async def test_bad_json_is_400(memory_node: RunningNode, path: str, data: bytes) -> None:
    assert (await memory_node.json("POST", path, data=data, status=400))["detail"]


async def test_limits_and_ids(memory_node: RunningNode) -> None:
    item = {"chunk_id": CHUNK, "epoch": 0, "config": config(memory_node)}
    await memory_node.json("POST", "/acceptors/learn", json={"items": [item] * 257}, status=400)
    await memory_node.json("POST", "/acceptors/learn", data=io.BytesIO(b" " * 1_048_577), status=413)
    await memory_node.json("GET", "/acceptor/a.b", status=400)
    await memory_node.json("GET", f"/acceptor/{CHUNK}?epoch=x", status=400)
    await memory_node.json("GET", "/acceptors?limit=0", status=400)
    with pytest.raises(VStackError):
        await StorageClient(memory_node.session).acceptor_state(memory_node.url, "a.b", 0)
