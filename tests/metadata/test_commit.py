"""Commits against real acceptors and a real database."""

import asyncio
import hashlib
import random
from collections import Counter
from typing import Any

import pytest

from tests.metadata.cluster import Answer, Cluster, StorageNode, Video, eventually
from vstack.core.paxos.messages import Instance
from vstack.core.paxos.receipts import Receipt
from vstack.core.placement import config_for
from vstack.metadata.catalogue import chunks
from vstack.metadata.state import METADATA
from vstack.wire.consensus import receipt_from_text, receipt_to_header

pytestmark = pytest.mark.cluster

DATA = b"the bytes of a chunk" * 100
OTHER = b"other bytes" * 100


async def rows(cluster: Cluster, video: Video, number: int = 0) -> list[tuple[str, str]]:
    """(node id, status) of the replicas of a chunk."""
    found = await cluster.sql(
        "SELECT n.node_id, r.status FROM replicas r JOIN chunks USING (chunk_key) JOIN nodes n USING (node_key) "
        "WHERE chunk_id = %s ORDER BY 1",
        video.chunk_id(number),
    )
    return [(str(node_id), str(status)) for node_id, status in found]


async def down(cluster: Cluster, node: StorageNode) -> None:
    """Stop a node, and let its last heartbeat be long ago."""
    await node.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id = %s", node.node_id)


async def test_plain_put_and_commit(cluster: Cluster) -> None:
    video = await cluster.video()
    reply = await video.store(cluster.nodes, DATA)
    assert reply["success"] is True
    assert sorted(reply["committed_nodes"]) == sorted(node.url for node in cluster.nodes)
    assert reply["message"] == f"Chunk {video.chunk_id(0)} committed to 3 nodes"
    assert reply["degraded"] is False
    state = await cluster.api.ok("GET", f"/consensus/{video.chunk_id(0)}")
    assert state["phase"] == "committed"

    async def all_have_learned() -> bool:
        answers = (await cluster.api.ok("GET", f"/consensus/{video.chunk_id(0)}"))["acceptors"]
        return all(answer["learned"] for answer in answers)

    await eventually(all_have_learned)


async def test_receipts_of_a_fast_quorum_decide_without_a_message(cluster: Cluster) -> None:
    video = await cluster.video()
    receipts = await video.propose(cluster.nodes, DATA)
    assert len(receipts) == 3
    answer = await video.commit(cluster.nodes, DATA, receipts=receipts)
    assert (answer.status, answer.body["degraded"]) == (200, False)
    assert await cluster.metric("consensus_phases_total") == 0
    assert {status for _, status in await rows(cluster, video)} == {"active"}


async def test_the_same_value_again_changes_nothing_and_another_is_a_conflict(cluster: Cluster) -> None:
    video = await cluster.video()
    first = await video.store(cluster.nodes, DATA)
    before = await cluster.sql("SELECT * FROM chunks")
    again = await video.commit(cluster.nodes[::-1], DATA)
    assert (again.status, again.body) == (200, first)
    for other in (
        await video.commit(cluster.nodes, OTHER),
        await video.commit(cluster.nodes[:2], DATA),
        await video.commit(cluster.nodes, DATA, duration_ms=2000),
    ):
        assert other.status == 409
        assert other.body["checksum"] == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
        assert sorted(other.body["committed_nodes"]) == sorted(node.url for node in cluster.nodes)
    assert await cluster.sql("SELECT * FROM chunks") == before


async def test_too_few_durable_copies(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.put(cluster.nodes[:1], DATA)
    answer = await video.commit(cluster.nodes, DATA)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert await cluster.sql("SELECT * FROM chunks") == []
    await video.put(cluster.nodes[1:2], DATA)
    answer = await video.commit(cluster.nodes, DATA)
    assert (answer.status, answer.body["degraded"]) == (200, True)
    assert [status for _, status in await rows(cluster, video)] == ["active", "active", "missing"]
    again = await video.commit(cluster.nodes, DATA)
    assert (again.status, again.body) == (200, answer.body)


async def test_wrong_bytes_on_a_node_are_no_copy(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.put(cluster.nodes[:1], DATA)
    await video.put(cluster.nodes[1:], OTHER)
    assert (await video.commit(cluster.nodes, DATA)).status == 503


async def test_classic_rounds_decide_while_a_node_is_down(cluster: Cluster) -> None:
    video = await cluster.video()
    await down(cluster, cluster.nodes[2])
    receipts = await video.propose(cluster.nodes[:2], DATA)
    answer = await video.commit(cluster.nodes[:2], DATA, receipts=receipts)
    assert (answer.status, answer.body["degraded"]) == (200, True), "two of three copies that should be"
    assert await cluster.metric("consensus_phases_total") == 2
    answer = await video.commit(cluster.nodes[:2], DATA)
    assert (answer.status, answer.body["degraded"]) == (200, True)


async def test_small_clusters_need_every_copy_that_is_named(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    await cluster.add_nodes(1)
    video = await cluster.video()
    reply = await video.store(cluster.nodes, DATA)
    assert reply["degraded"] is False
    await cluster.add_nodes(1)
    await video.put(cluster.nodes[:1], OTHER, 1)
    assert (await video.commit(cluster.nodes, OTHER, 1)).status == 503
    await video.put(cluster.nodes, OTHER, 1)
    assert (await video.commit(cluster.nodes, OTHER, 1)).status == 200


async def test_a_video_older_than_the_first_node(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    video = await cluster.video("early")
    assert video.facts.generation == 0
    await cluster.add_nodes(3)
    pinned = await cluster.api.ok("POST", "/video", {"title": "early", "video_id": video.video_id})
    assert pinned["generation"]["number"] == 1
    await cluster.add_nodes(1)
    assert (await cluster.video()).facts.generation == 2
    await video.store(cluster.nodes[:3], DATA)
    assert await cluster.sql("SELECT generation FROM chunks") == [(1,)]


async def test_an_aborted_chunk(cluster: Cluster) -> None:
    video = await cluster.video()
    urls = {node.node_id: node.url for node in cluster.nodes}
    instance = Instance(video.chunk_id(0), 0, config_for(video.chunk_id(0), video.generation))
    await cluster.api.app[METADATA].consensus.abort(instance, urls, video_id=video.video_id, sequence_num=0)
    await video.put(cluster.nodes, DATA)
    answer = await video.commit(cluster.nodes, DATA)
    assert answer.status == 409
    assert await cluster.sql("SELECT * FROM chunks") == []


async def test_what_another_proposer_got_chosen_is_recorded(cluster: Cluster) -> None:
    """The nodes chose at the fast round; whoever comes with another value records that one, and hears of it."""
    video = await cluster.video()
    await video.propose(cluster.nodes, DATA)
    other = await cluster.add_metadata()
    await video.put(cluster.nodes[:0], OTHER)
    answer = await video.commit(cluster.nodes, DATA, duration_ms=7, api=other)
    assert answer.status == 409
    assert answer.body["checksum"] == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    stored = await cluster.sql("SELECT decree FROM chunks")
    assert stored == [(video.decree(cluster.nodes, DATA).encode(),)]
    assert (await video.commit(cluster.nodes, DATA)).status == 200


async def test_a_number_belongs_to_one_chunk(cluster: Cluster) -> None:
    video = await cluster.video()
    for node in cluster.nodes:
        await cluster.storage.put_chunk(node.url, "my-chunk", DATA, checksum=hashlib.sha256(DATA).hexdigest())
    free = await cluster.api.call("POST", "/chunk/my-chunk/commit", video.body(cluster.nodes, DATA))
    assert free.status == 200
    await video.put(cluster.nodes, DATA)
    assert (await video.commit(cluster.nodes, DATA)).status == 409


async def test_forged_and_foreign_receipts(cluster: Cluster) -> None:
    video = await cluster.video()
    receipts = await video.propose(cluster.nodes, DATA)
    receipt = receipt_from_text(receipts[0])
    forged = Receipt(**{**{name: getattr(receipt, name) for name in Receipt.__slots__}, "stored_bytes": 7})
    answer = await video.commit(cluster.nodes, DATA, receipts=[receipt_to_header(forged)])
    assert (answer.status, "signed" in answer.body["detail"]) == (400, True)
    assert (await video.commit(cluster.nodes, DATA, receipts=["no receipt"])).status == 400
    # Genuine receipts of another chunk prove nothing of this one.
    answer = await video.commit(cluster.nodes, DATA, 1, receipts=receipts)
    assert answer.status == 503
    assert await cluster.sql("SELECT * FROM chunks") == []


async def test_erasure_coded_chunks(cluster: Cluster) -> None:
    await cluster.add_nodes(2)
    video = await cluster.video()
    size = -(-len(DATA) // 3)
    fragments = [bytes([index]) * size for index in range(5)]
    described = []
    for index, (node, fragment) in enumerate(zip(cluster.nodes, fragments, strict=True)):
        digest = hashlib.sha256(fragment).hexdigest()
        if index < 4:
            await cluster.storage.put_chunk(node.url, f"{video.chunk_id(0)}-frag-{index}", fragment, checksum=digest)
        described.append({"fragment_index": index, "node_url": node.url, "checksum": digest, "size_bytes": size})
    extra: dict[str, Any] = {"redundancy_mode": "erasure_coding", "fragments_metadata": described}
    assert (await video.commit(cluster.nodes, DATA)).status == 503
    answer = await video.commit(cluster.nodes, DATA, **extra)
    assert (answer.status, answer.body["degraded"]) == (200, True)
    listed = (await cluster.api.ok("GET", f"/chunk/{video.chunk_id(0)}/fragments"))["fragments"]
    assert [fragment["status"] for fragment in listed] == ["active"] * 4 + ["missing"]
    chunk = (await cluster.api.ok("GET", f"/manifest/{video.video_id}"))["chunks"][0]
    assert (chunk["redundancy_mode"], chunk["replicas"], chunk["fragments"]) == ("erasure_coding", [], listed)
    assert listed[1] == {
        "fragment_id": f"{video.chunk_id(0)}-frag-1",
        "fragment_index": 1,
        "node_url": cluster.nodes[1].url,
        "size_bytes": size,
        "checksum": f"sha256:{hashlib.sha256(fragments[1]).hexdigest()}",
        "status": "active",
    }
    overhead = await cluster.api.ok("GET", "/storage/overhead")
    assert overhead["erasure_coded_chunks"] == 1
    assert overhead["erasure_overhead_bytes"] == overhead["total_physical_bytes"] == 4 * size
    assert overhead["total_logical_bytes"] == len(DATA)
    stats = await cluster.api.ok("GET", "/stats")
    assert (stats["total_replicas"], stats["total_fragments"]) == (0, 4)
    for wrong in (
        described[:4],
        [*described[:4], described[0]],
        [*described[:4], {**described[4], "size_bytes": size + 1}],
        [*described[:4], {**described[4], "node_url": cluster.nodes[0].url}],
    ):
        answer = await video.commit(cluster.nodes, DATA, 1, **{**extra, "fragments_metadata": wrong})
        assert answer.status == 400, wrong


async def race(cluster: Cluster, video: Video, number: int, dice: random.Random) -> tuple[Answer, Answer]:
    """Two uploaders put and commit one chunk at once through two instances, on placements of their own."""
    order = dice.sample(cluster.nodes, len(cluster.nodes))
    overlap = dice.choice([0, 0, 1, 3])
    mine, theirs = order[:3], order[3 - overlap : 6 - overlap]
    data, other = (DATA, DATA) if dice.random() < 0.3 or overlap else (DATA, OTHER)

    async def attempt(nodes: list[StorageNode], piece: bytes, api: int, *, fast: bool) -> Answer:
        extra = {"segment": api}
        receipts = await video.propose(nodes, piece, number, **extra) if fast else []
        if not fast:
            await video.put(nodes, piece, number)
        await asyncio.sleep(dice.random() * 0.01)
        for _ in range(50):
            answer = await video.commit(nodes, piece, number, api=cluster.apis[api], receipts=receipts, **extra)
            if answer.status != 503:
                return answer
        return answer

    return await asyncio.gather(
        attempt(mine, data, 0, fast=dice.random() < 0.7), attempt(theirs, other, 1, fast=dice.random() < 0.7)
    )


@pytest.mark.parametrize("commits", [60, pytest.param(1000, marks=pytest.mark.slow)])
async def test_two_instances_race_and_one_wins(empty_cluster: Cluster, commits: int) -> None:
    cluster = empty_cluster
    await cluster.add_metadata()
    await cluster.add_nodes(6)
    video = await cluster.video()
    dice = random.Random(7)
    outcomes: Counter[tuple[int, int]] = Counter()
    for start in range(0, commits, 10):
        numbers = range(start, min(commits, start + 10))
        for number, answers in zip(
            numbers, await asyncio.gather(*(race(cluster, video, number, dice) for number in numbers)), strict=True
        ):
            statuses = tuple(answer.status for answer in answers)
            assert sorted(statuses) == [200, 409], (number, [answer.body for answer in answers])
            winner = next(answer for answer in answers if answer.status == 200)
            loser = next(answer for answer in answers if answer.status == 409)
            assert sorted(loser.body["committed_nodes"]) == sorted(winner.body["committed_nodes"])
            outcomes[statuses[0], statuses[1]] += 1
    assert len(outcomes) == 2, "both instances win some"
    stored = dict(await cluster.sql("SELECT chunk_id, decree FROM chunks"))
    assert len(stored) == commits
    for number in range(0, commits, 7):
        state = await cluster.apis[1].ok("GET", f"/consensus/{video.chunk_id(number)}")
        assert state["phase"] == "committed"
        votes = [answer["accepted_value"] for answer in state["acceptors"] if answer["learned"]]
        assert set(votes) <= {state["accepted_value"]}


async def test_no_row_is_added_once_the_video_takes_no_chunks(cluster: Cluster) -> None:
    """However late it is noticed: the insert itself looks at the video."""
    video = await cluster.video()
    decree = video.decree(cluster.nodes, DATA)
    instance = Instance(video.chunk_id(0), 0, config_for(video.chunk_id(0), video.generation))

    async def record() -> bool:
        return await chunks.record(cluster.api.db, instance, decree.encode(), decree, frozenset())

    for change in ("status = 'active'", "status = 'deleting'", "status = 'uploading', restored_at = now()"):
        await cluster.sql(f"UPDATE videos SET {change}")
        assert await record() is False, change
    await cluster.sql("UPDATE videos SET restored_at = NULL")
    assert await record() is True
    assert await record() is False
    assert [status for _, status in await rows(cluster, video)] == ["missing"] * 3
