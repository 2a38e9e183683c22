"""Commits against real acceptors and a real database."""

import pytest

from tests.metadata.cluster import Cluster

pytestmark = pytest.mark.cluster

DATA = b"the bytes of a chunk" * 100


async def test_plain_put_and_commit(cluster: Cluster) -> None:
    video = await cluster.video()
    reply = await video.store(cluster.nodes, DATA)
    assert reply["success"] is True
    assert sorted(reply["committed_nodes"]) == sorted(node.url for node in cluster.nodes)
    assert reply["message"] == f"Chunk {video.chunk_id(0)} committed to 3 nodes"
    assert reply["degraded"] is False
    state = await cluster.api.ok("GET", f"/consensus/{video.chunk_id(0)}")
    assert state["phase"] == "committed"
