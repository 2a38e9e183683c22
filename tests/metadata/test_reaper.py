"""Deletion, failure and abandonment: the data go, in the right order, whatever happens meanwhile."""

import pytest

from tests.metadata.cluster import Cluster, Video, eventually
from vstack.metadata.upkeep import reaper

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "INTERVAL_S", 0.1)


async def stored(cluster: Cluster, video: Video) -> set[tuple[str, str]]:
    return {
        (node.node_id, name)
        for node in cluster.nodes
        for name in await node.objects()
        if name.startswith(video.video_id)
    }


async def wait_until_reaped(cluster: Cluster, video: Video) -> None:
    async def reaped() -> bool:
        rows = await cluster.sql("SELECT 1 FROM videos WHERE video_id = %s AND reaped_at IS NULL", video.video_id)
        return not rows

    await eventually(reaped)


async def states(cluster: Cluster, chunk_id: str) -> list[bool]:
    """Whether each node that knows the chunk has retired it."""
    found = [await node.engine.acceptor(chunk_id, 0) for node in cluster.nodes]
    return [state.retired for state in found if state is not None]


async def test_a_deleted_video_is_invisible_at_once_and_gone_soon(cluster: Cluster) -> None:
    video, kept = await cluster.video(), await cluster.video()
    await video.complete(cluster.nodes)
    data = await kept.complete(cluster.nodes)
    assert (await cluster.api.call("DELETE", f"/video/{video.video_id}")).status == 204
    for method, path in (
        ("GET", f"/video/{video.video_id}"),
        ("GET", f"/manifest/{video.video_id}"),
        ("GET", f"/video/{video.video_id}/popularity"),
        ("POST", f"/video/{video.video_id}/view"),
        ("GET", f"/chunk/{video.chunk_id(0)}/fragments"),
        ("GET", f"/consensus/{video.chunk_id(0)}"),
        ("DELETE", f"/video/{video.video_id}"),
    ):
        assert (await cluster.api.call(method, path)).status == 404, path
    assert [row["video_id"] for row in await cluster.api.ok("GET", "/videos")] == [kept.video_id]
    assert (await video.commit(cluster.nodes, b"late", 3)).status in (404, 409)
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()
    assert await states(cluster, video.chunk_id(0)) == [True] * 3
    assert await cluster.sql("SELECT 1 FROM chunks WHERE video_id = %s", video.video_id) == []
    assert len(await stored(cluster, kept)) == 3 * len(data)


async def test_unfinished_chunks_go_too(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.propose(cluster.nodes[:2], b"never committed", 0)
    await video.put(cluster.nodes[2:], b"a plain put", 1)
    await cluster.api.call("DELETE", f"/video/{video.video_id}")
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()
    assert await states(cluster, video.chunk_id(0)) == [True] * 3
    assert await states(cluster, video.chunk_id(1)) == [True] * 3
    assert await cluster.metric("consensus_decisions_total") == 2, "both were decided, so that no late commit can win"
    assert await cluster.metric("reaper_objects_total") == 3


async def test_a_failed_upload_keeps_its_row_but_no_data(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.store(cluster.nodes, b"one")
    await video.put(cluster.nodes, b"late", 1)
    await cluster.api.ok("PATCH", f"/video/{video.video_id}/status", {"status": "failed"})
    assert (await video.commit(cluster.nodes, b"late", 1)).status == 409
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()
    row = await cluster.api.ok("GET", f"/video/{video.video_id}")
    assert (row["status"], row["total_chunks"], row["size_bytes"]) == ("failed", 0, 0)
    assert (await cluster.api.call("DELETE", f"/video/{video.video_id}")).status == 204
    await wait_until_reaped(cluster, video)
    assert await cluster.sql("SELECT 1 FROM videos") == []


async def test_an_abandoned_upload(cluster: Cluster) -> None:
    quick = await cluster.add_metadata(upload_abandoned_after_s=3600.0)
    old, fresh = await cluster.video("old"), await cluster.video("fresh")
    restored = await cluster.video("restored")
    for video in (old, fresh, restored):
        await video.store(cluster.nodes, b"one")
    await cluster.sql("UPDATE videos SET created_at = now() - interval '2 hours'")
    await cluster.sql("UPDATE videos SET restored_at = now() WHERE title = 'restored'")
    await cluster.sql(
        "UPDATE chunks SET committed_at = now() - interval '2 hours' WHERE video_id = ANY(%s)",
        [old.video_id, restored.video_id],
    )
    await wait_until_reaped(cluster, old)
    assert (await quick.ok("GET", f"/video/{old.video_id}"))["status"] == "failed"
    for video in (fresh, restored):
        assert (await quick.ok("GET", f"/video/{video.video_id}"))["status"] == "uploading"
        assert len(await stored(cluster, video)) == 3


async def test_a_node_that_was_down_is_cleared_when_it_is_back(cluster: Cluster) -> None:
    await cluster.add_nodes(2)
    video = await cluster.video()
    await video.complete(cluster.nodes[:3])
    sleeper = cluster.nodes[1]
    await sleeper.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id = 'node-1'")
    await cluster.api.call("DELETE", f"/video/{video.video_id}")

    async def others_cleared() -> bool:
        return {node_id for node_id, _ in await stored(cluster, video)} == {"node-1"}

    await eventually(others_cleared)
    assert await cluster.sql("SELECT status FROM videos") == [("deleting",)]
    await sleeper.start()
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()


async def test_nothing_is_deleted_before_a_majority_has_retired(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.complete(cluster.nodes)
    before = await stored(cluster, video)
    for node in cluster.nodes[1:]:
        await node.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id <> 'node-0'")
    await cluster.api.call("DELETE", f"/video/{video.video_id}")

    async def tried() -> bool:
        return await states(cluster, video.chunk_id(2)) == [True, False, False]

    await eventually(tried)
    assert await stored(cluster, video) == before
    for node in cluster.nodes[1:]:
        await node.start()
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()


async def test_progress_outlives_an_instance(cluster: Cluster) -> None:
    """What one instance began, another finishes."""
    await cluster.add_nodes(2)
    video = await cluster.video()
    await video.complete(cluster.nodes[:3])
    for node in cluster.nodes[:2]:
        await node.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id < 'node-2'")
    await cluster.api.call("DELETE", f"/video/{video.video_id}")

    async def some_done() -> bool:
        return len(await cluster.sql("SELECT 1 FROM reaped_nodes")) == 3

    await eventually(some_done)
    await cluster.add_metadata()
    await cluster.apis.pop(0).stop()
    for node in cluster.nodes[:2]:
        await node.start()
    await wait_until_reaped(cluster, video)
    assert await stored(cluster, video) == set()
