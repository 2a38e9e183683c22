"""Ping, health, metrics and the OpenAPI document."""

import pytest

from tests.storage.service.conftest import RunningNode
from vstack.storage.app import ENDPOINTS
from vstack.storage.contract import DiskState


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_ping(node: RunningNode, method: str) -> None:
    await node.put("c-1", b"data")
    async with node.request(method, "/ping") as answer:
        assert answer.status == 200
        assert answer.headers["X-Node-ID"] == node.node_id
        assert 0 <= float(answer.headers["X-Disk-Usage-Percent"]) <= 100
        assert answer.headers["X-Chunk-Count"] == "1"
        assert 0 <= float(answer.headers["X-Response-Time"]) < 1000
        assert answer.headers["Cache-Control"] == "no-cache"
        assert await answer.read() == b""


async def test_health(node: RunningNode) -> None:
    await node.put("c-1", b"data")
    body = await node.json("GET", "/health")
    assert body["status"] == "healthy"
    assert body["node_id"] == node.node_id
    assert body["chunk_count"] == 1
    assert isinstance(body["disk_usage"], float)
    assert 0 <= body["disk_usage"] < 85
    assert body["uptime"] >= 0
    assert body["read_only"] is False
    assert body["capacity_bytes"] > 0


@pytest.mark.parametrize(
    ("state", "status", "word", "read_only"),
    [
        (DiskState.WARNING, 200, "warning", False),
        (DiskState.CRITICAL, 503, "critical", False),
        (DiskState.READ_ONLY, 503, "critical", True),
    ],
)
async def test_health_follows_the_disk(
    memory_node: RunningNode, state: DiskState, status: int, word: str, read_only: bool
) -> None:
    memory_node.memory.state = state
    body = await memory_node.json("GET", "/health", status=status)
    assert (body["status"], body["read_only"]) == (word, read_only)
    assert body["node_id"] == memory_node.node_id
    assert await memory_node.metric("vstack_storage_disk_state", state=state.value) == 1
    assert await memory_node.metric("vstack_storage_disk_state") == 1


async def test_metrics(node: RunningNode) -> None:
    await node.put("c-1", b"12345")
    await node.get("c-1")
    await node.get("c-1")
    body = {"epoch": 0, "config": {"generation": 1, "acceptors": [node.node_id]}, "ballot": 0, "value": "vv"}
    await node.json("POST", "/acceptor/x/accept", json=body)
    await node.json("POST", "/acceptor/x/accept", json={**body, "value": "ww"})
    assert await node.metric("vstack_storage_chunks") == 1
    assert await node.metric("vstack_storage_put_bytes_total") == 5
    assert await node.metric("vstack_storage_get_bytes_total") == 10
    assert await node.metric("vstack_storage_put_duration_seconds_count") == 1
    assert await node.metric("vstack_storage_get_duration_seconds_count") == 2
    assert await node.metric("vstack_storage_flushes_total") == node.engine.counters().flushes >= 2
    assert await node.metric("vstack_storage_flushed_writes_total") >= 2
    assert await node.metric("vstack_storage_acceptor_messages_total", kind="accept", outcome="accepted") == 1
    assert await node.metric("vstack_storage_acceptor_messages_total", kind="accept", outcome="rejected") == 1
    assert await node.metric("vstack_storage_disk_capacity_bytes") == node.engine.usage().capacity_bytes
    assert await node.metric("vstack_storage_disk_used_bytes") == node.engine.usage().used_bytes
    assert await node.metric("vstack_storage_quarantined_bytes") == 0
    async with node.request("GET", "/metrics") as answer:
        text = await answer.text()
    assert "c-1" not in text


async def test_the_openapi_document_names_every_route(memory_node: RunningNode) -> None:
    document = await memory_node.json("GET", "/openapi.json")
    served = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS} <= served
    assert ("GET", "/metrics") in served
    health = document["paths"]["/health"]["get"]["responses"]
    assert set(health) >= {"200", "503"}


async def test_browsers_may_read(memory_node: RunningNode) -> None:
    await memory_node.put("c-1", b"data")
    async with memory_node.request("GET", "/chunk/c-1") as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
