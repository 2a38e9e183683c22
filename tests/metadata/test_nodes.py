"""Registration, fencing, heartbeats, status and generations."""

import asyncio
from typing import Any

import pytest

from tests.metadata.cluster import Cluster, eventually
from vstack.metadata.upkeep.prober import Prober
from vstack.rpc.storage import StorageClient

pytestmark = pytest.mark.cluster

URL = "http://127.0.0.1:{port}"


async def register(cluster: Cluster, node_id: str, port: int = 1, **extra: Any) -> int:
    body = {"node_id": node_id, "node_url": URL.format(port=port), **extra}
    return (await cluster.api.call("POST", "/nodes/register", body)).status


async def listed(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {node["node_id"]: node for node in (await cluster.api.ok("GET", "/nodes/all"))["nodes"]}


async def test_register_by_query_or_body_and_the_body_wins(empty_cluster: Cluster) -> None:
    api = empty_cluster.api
    by_query = await api.ok("POST", "/nodes/register?node_url=http://127.0.0.1:1&node_id=a&capacity_bytes=7")
    assert by_query == {"status": "registered", "node_id": "a", "node_url": "http://127.0.0.1:1"}
    path = "/nodes/register?node_url=http://127.0.0.1:2&node_id=x&version=2.0&zone=z"
    both = await api.ok("POST", path, {"node_id": "b", "version": "3.0"})
    assert both == {"status": "registered", "node_id": "b", "node_url": "http://127.0.0.1:2"}
    nodes = await listed(empty_cluster)
    assert set(nodes) == {"a", "b"}
    assert nodes["b"]["version"] == "3.0"
    assert (nodes["b"]["zone"], nodes["b"]["host"], nodes["a"]["capacity_bytes"]) == ("z", "127.0.0.1", 7)
    healthy = await api.ok("GET", "/nodes/healthy")
    assert [node["node_id"] for node in healthy] == ["a", "b"]
    fields = ("node_url", "node_id", "last_heartbeat", "disk_usage_percent", "chunk_count", "status", "version")
    assert all(field in healthy[0] for field in fields)
    assert await api.ok("GET", "/nodes/health-summary") == {"healthy": 2, "degraded": 0, "down": 0}


async def test_registering_again_keeps_history(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    assert await register(cluster, "a", host="h1", zone="z1", capacity_bytes=5) == 200
    beat = {"disk_usage_percent": 45.2, "chunk_count": 1250}
    assert await cluster.api.ok("POST", "/nodes/a/heartbeat", beat) == {
        "status": "ok",
        "message": "Heartbeat updated for node a",
    }
    before = (await cluster.sql("SELECT node_key, registered_at FROM nodes"))[0]
    assert await register(cluster, "a", port=2) == 200
    assert (await cluster.sql("SELECT node_key, registered_at FROM nodes"))[0] == before
    node = (await listed(cluster))["a"]
    assert (node["node_url"], node["zone"], node["capacity_bytes"]) == (URL.format(port=2), "z1", 5)
    assert (node["disk_usage_percent"], node["chunk_count"]) == (45.2, 1250)


async def test_fencing(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    assert await register(cluster, "a", disk_uuid="disk-1", incarnation=3) == 200
    assert await register(cluster, "a", disk_uuid="disk-2", incarnation=4) == 409
    assert await register(cluster, "a", disk_uuid="disk-1", incarnation=2) == 409
    beat = {"disk_usage_percent": 1, "chunk_count": 1}
    assert (await cluster.api.call("POST", "/nodes/a/heartbeat", {**beat, "incarnation": 2})).status == 409
    assert await register(cluster, "a", disk_uuid="disk-1", incarnation=4) == 200
    assert (await cluster.api.call("POST", "/nodes/a/heartbeat", {**beat, "incarnation": 3})).status == 409
    assert (await cluster.api.call("POST", "/nodes/a/heartbeat", {**beat, "incarnation": 4})).status == 200
    assert (await cluster.api.call("POST", "/nodes/a/heartbeat", beat)).status == 200
    assert await register(cluster, "a") == 200


async def test_a_wiped_disk_takes_over_its_url(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    assert await register(cluster, "old", port=1) == 200
    assert await register(cluster, "new", port=1) == 200
    assert set(await listed(cluster)) == {"new"}
    assert await cluster.api.ok("GET", "/nodes/health-summary") == {"healthy": 1, "degraded": 0, "down": 0}
    beat = {"disk_usage_percent": 1, "chunk_count": 1}
    assert (await cluster.api.call("POST", "/nodes/old/heartbeat", beat)).status == 404
    assert await register(cluster, "old", port=2) == 200
    assert set(await listed(cluster)) == {"new", "old"}


async def test_many_registrations_of_one_url_at_once(empty_cluster: Cluster) -> None:
    statuses = await asyncio.gather(
        *(register(empty_cluster, f"n{number}", port=number % 2 + 1) for number in range(20))
    )
    assert set(statuses) == {200}
    assert len(await listed(empty_cluster)) == 2


async def test_status_follows_heartbeat_and_disk(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    await register(cluster, "a")
    beat = {"disk_usage_percent": 1, "chunk_count": 1}

    async def status() -> str:
        return str((await listed(cluster))["a"]["status"])

    for disk, expected in (("warning", "degraded"), ("critical", "degraded"), ("read_only", "degraded")):
        await cluster.api.ok("POST", "/nodes/a/heartbeat", {**beat, "disk_status": disk})
        assert await status() == expected
        assert await cluster.api.ok("GET", "/nodes/healthy") == []
    await cluster.api.ok("POST", "/nodes/a/heartbeat", beat)
    assert await status() == "healthy"
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '15 s'")
    assert await status() == "degraded"
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '31 s'")
    assert await status() == "down"
    assert await cluster.api.ok("GET", "/nodes/health-summary") == {"healthy": 0, "degraded": 0, "down": 1}
    await cluster.api.ok("POST", "/nodes/a/heartbeat", beat)
    assert await status() == "healthy"


async def test_a_late_node_that_answers_a_probe_is_not_down(cluster: Cluster) -> None:
    alive, dead, impostor = cluster.nodes
    await dead.stop()
    await impostor.stop()
    await cluster.sql("UPDATE nodes SET url = %s WHERE node_id = 'node-2'", f"http://localhost:{alive.port}")
    prober = Prober(cluster.api.db, StorageClient(cluster.session))

    async def probed() -> bool:
        """Nobody, and somebody else, answered. A stopped node's last beat, or a probe of the service's own, may still
        have been under way the first time.
        """
        await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour', last_probe = NULL")
        await prober.run_once()
        statuses = {node_id: node["status"] for node_id, node in (await listed(cluster)).items()}
        return statuses["node-0"] in ("degraded", "healthy") and statuses["node-1"] == statuses["node-2"] == "down"

    await eventually(probed)


async def test_nodes_really_beat(cluster: Cluster) -> None:
    before = {node_id: node["last_heartbeat"] for node_id, node in (await listed(cluster)).items()}

    async def all_later() -> bool:
        return all(node["last_heartbeat"] > before[node_id] for node_id, node in (await listed(cluster)).items())

    await eventually(all_later)


async def generation(cluster: Cluster, api: int = 0) -> int:
    created = await cluster.apis[api].ok("POST", "/video", {"title": "t"})
    return int(created["generation"]["number"])


async def test_a_generation_is_made_when_the_nodes_changed(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    assert await generation(cluster) == 0
    await register(cluster, "a", 1, capacity_bytes=2**40)
    assert await generation(cluster) == await generation(cluster) == 1
    await register(cluster, "b", 2)
    created = await cluster.api.ok("POST", "/video", {"title": "t"})
    assert created["generation"] == {
        "number": 2,
        "nodes": [
            {"node_id": "a", "host": "127.0.0.1", "weight": 1024.0, "zone": ""},
            {"node_id": "b", "host": "127.0.0.1", "weight": 1024.0, "zone": ""},
        ],
    }
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '20 s' WHERE node_id = 'b'")
    assert await generation(cluster) == 2, "late is not down"
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id = 'b'")
    assert await generation(cluster) == 3
    await register(cluster, "b", 2)
    assert await generation(cluster) == 4, "numbers only rise"


async def test_two_instances_make_one_generation(empty_cluster: Cluster) -> None:
    cluster = empty_cluster
    await cluster.add_metadata()
    for number in range(1, 6):
        await register(cluster, f"n{number}", number)
        numbers = await asyncio.gather(*(generation(cluster, api % 2) for api in range(8)))
        assert set(numbers) == {number}
