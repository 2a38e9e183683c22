"""The public contract of the metadata service, endpoint by endpoint: fields, types, statuses."""

import re
from typing import Any

import pytest

from tests.metadata.cluster import Cluster
from vstack import __version__

pytestmark = pytest.mark.cluster

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
Number = (int, float)


def has(body: Any, **fields: Any) -> None:
    """The documented fields are there, with the documented types."""
    for name, kind in fields.items():
        assert name in body, name
        assert isinstance(body[name], kind), (name, body[name])
        assert not (isinstance(body[name], bool) and kind is not bool), (name, body[name])


async def test_health_root_stats(cluster: Cluster) -> None:
    body = await cluster.api.ok("GET", "/health")
    assert body == {
        "status": "healthy",
        "service": "metadata-service",
        "healthy_nodes": 3,
        "total_nodes": 3,
        "database_status": "healthy",
    }
    assert await cluster.api.ok("GET", "/") == {"message": "V-Stack Metadata Service", "version": __version__}
    video = await cluster.video()
    await video.complete(cluster.nodes, chunks=2)
    body = await cluster.api.ok("GET", "/stats")
    assert body["service_version"] == __version__
    counts = {name: body[name] for name in ("total_videos", "total_chunks", "total_replicas", "healthy_nodes")}
    assert counts == {"total_videos": 1, "total_chunks": 2, "total_replicas": 6, "healthy_nodes": 3}


async def test_create_and_list_videos(empty_cluster: Cluster) -> None:
    api = empty_cluster.api
    created = [await api.ok("POST", "/video", {"title": f"Film {n}", "duration_sec": 600 + n}) for n in range(3)]
    for body in created:
        has(body, video_id=str, upload_url=str)
        assert body["upload_url"] == f"/upload/{body['video_id']}"
    listed = await api.ok("GET", "/videos")
    assert [video["title"] for video in listed] == ["Film 2", "Film 1", "Film 0"]
    for video in listed:
        has(video, video_id=str, title=str, duration_sec=Number, total_chunks=int, status=str, created_at=str)
        assert TIMESTAMP.fullmatch(video["created_at"])
        assert video["status"] == "uploading"
    assert listed[2]["duration_sec"] == 600
    page = await api.ok("GET", "/videos?limit=1&offset=1")
    assert [video["title"] for video in page] == ["Film 1"]
    assert await api.ok("GET", "/videos?offset=9") == []
    assert await api.ok("GET", f"/video/{created[0]['video_id']}") == listed[2]


async def test_a_video_of_the_callers_id(empty_cluster: Cluster) -> None:
    api = empty_cluster.api
    request = {"title": "Mine", "video_id": "my-video"}
    first = await api.ok("POST", "/video", request)
    assert await api.ok("POST", "/video", request) == first
    assert (await api.call("POST", "/video", {"title": "Other", "video_id": "my-video"})).status == 409
    await api.ok("PATCH", "/video/my-video/status", {"status": "failed"})
    assert (await api.call("POST", "/video", request)).status == 409
    assert len(await api.ok("GET", "/videos")) == 1


async def test_manifest(cluster: Cluster) -> None:
    video = await cluster.video("A film", duration_sec=42)
    for number in (2, 0, 1):
        extra = {"init_size_bytes": 20} if number == 0 else {}
        await video.store(cluster.nodes, b"x" * (100 + number), number, segment=number // 2, last=number == 2, **extra)
    body = await cluster.api.ok("GET", f"/manifest/{video.video_id}")
    assert (body["status"], body["total_chunks"], body["duration_sec"]) == ("uploading", 3, 42)
    await cluster.api.ok("PATCH", f"/video/{video.video_id}/status", {"status": "active"})
    body = await cluster.api.ok("GET", f"/manifest/{video.video_id}")
    assert TIMESTAMP.fullmatch(body["created_at"])
    expected = {
        "video_id": video.video_id,
        "title": "A film",
        "duration_sec": 3,
        "total_chunks": 3,
        "chunk_duration_sec": 10,
        "chunk_size_bytes": 2097152,
        "status": "active",
        "init_size_bytes": 20,
        "segments": [
            {"first": 0, "count": 2, "duration_sec": 2, "bytes": 201},
            {"first": 2, "count": 1, "duration_sec": 1, "bytes": 102},
        ],
    }
    assert {name: body[name] for name in expected} == expected
    for number, chunk in enumerate(body["chunks"]):
        assert chunk["chunk_id"] == video.chunk_id(number)
        assert (chunk["sequence_num"], chunk["size_bytes"]) == (number, 100 + number)
        assert CHECKSUM.fullmatch(chunk["checksum"])
        assert (chunk["redundancy_mode"], chunk["duration_sec"], chunk["segment"]) == ("replication", 1, number // 2)
        assert sorted(chunk["replicas"]) == sorted(node.url for node in cluster.nodes)


async def test_a_manifest_names_nodes_that_can_be_read(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.complete(cluster.nodes, chunks=1)
    urls = [node.url for node in cluster.nodes]

    async def replicas() -> list[str]:
        return list((await cluster.api.ok("GET", f"/manifest/{video.video_id}"))["chunks"][0]["replicas"])

    for node in cluster.nodes:
        await node.stop()
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '20 s' WHERE node_id = 'node-0'")
    assert (await replicas())[-1] == urls[0], "late, but not down"
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour' WHERE node_id = 'node-1'")
    assert await replicas() == [urls[2], urls[0]]
    await cluster.sql("UPDATE nodes SET last_heartbeat = now() - interval '1 hour'")
    assert sorted(await replicas()) == sorted(urls), "nothing better is left"


async def test_chunks_are_ordered_by_number(cluster: Cluster) -> None:
    video = await cluster.video()
    for number in (1000, 999, 0):
        await video.store(cluster.nodes, b"x", number)
    manifest = await cluster.api.ok("GET", f"/manifest/{video.video_id}")
    assert [chunk["sequence_num"] for chunk in manifest["chunks"]] == [0, 999, 1000]


async def test_views(empty_cluster: Cluster) -> None:
    api = empty_cluster.api
    video = await empty_cluster.video()
    path = f"/video/{video.video_id}"
    assert await api.ok("GET", f"{path}/popularity") == {"video_id": video.video_id, "view_count": 0}
    assert await api.ok("POST", f"{path}/view") == {
        "status": "ok",
        "message": f"View count incremented for {video.video_id}",
    }
    await api.ok("POST", f"{path}/view")
    assert (await api.ok("GET", f"{path}/popularity"))["view_count"] == 2
    assert (await api.ok("GET", path))["view_count"] == 2


async def test_completing_a_video(cluster: Cluster) -> None:
    api = cluster.api
    video = await cluster.video()
    path = f"/video/{video.video_id}/status"

    async def activate(**change: Any) -> int:
        return (await api.call("PATCH", path, {"status": "active", **change})).status

    assert await activate() == 409, "no chunk"
    await video.store(cluster.nodes, b"zero", 0)
    await video.store(cluster.nodes, b"two", 2, last=True)
    assert await activate() == 409, "a gap"
    await video.store(cluster.nodes, b"one", 1)
    assert await activate(total_chunks=4) == 409
    done = await api.ok("PATCH", path, {"status": "active", "total_chunks": 3, "duration_sec": 2.5})
    assert (done["status"], done["total_chunks"], done["duration_sec"], done["size_bytes"]) == ("active", 3, 2.5, 10)
    assert await activate(duration_sec=2.5) == 200
    assert (await api.call("PATCH", path, {"status": "failed"})).status == 409
    await video.put(cluster.nodes, b"three", 3)
    assert (await video.commit(cluster.nodes, b"three", 3)).status == 409
    assert (await video.commit(cluster.nodes, b"zero", 0)).status == 200, "known chunks are still confirmed"


async def test_an_unmarked_end_is_not_complete(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.store(cluster.nodes, b"zero", 0)
    path = f"/video/{video.video_id}/status"
    assert (await cluster.api.call("PATCH", path, {"status": "active"})).status == 409
    failed = await cluster.api.ok("PATCH", path, {"status": "failed"})
    assert failed["status"] == "failed"
    assert (await cluster.api.call("PATCH", path, {"status": "active"})).status == 409
    await video.put(cluster.nodes, b"late", 1)
    assert (await video.commit(cluster.nodes, b"late", 1)).status == 409


async def test_fragments_of_a_replicated_chunk(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.store(cluster.nodes, b"x")
    body = await cluster.api.ok("GET", f"/chunk/{video.chunk_id(0)}/fragments")
    assert body == {"chunk_id": video.chunk_id(0), "fragments": []}


async def test_consensus(cluster: Cluster) -> None:
    video = await cluster.video()
    path = f"/consensus/{video.chunk_id(0)}"
    body = await cluster.api.ok("GET", path)
    assert (body["phase"], body["accepted_value"], len(body["acceptors"])) == ("none", None, 3)
    await video.propose(cluster.nodes[:2], b"x")
    body = await cluster.api.ok("GET", path)
    assert (body["phase"], body["promised_ballot"], body["accepted_ballot"]) == ("accept", 0, 0)
    assert (await video.commit(cluster.nodes[:2], b"x")).status == 200
    body = await cluster.api.ok("GET", path)
    has(body, chunk_id=str, promised_ballot=int, accepted_ballot=int, accepted_value=str, phase=str)
    assert body["phase"] == "committed"
    assert body["accepted_value"] == "[" + ",".join(f'"{node.url}"' for node in cluster.nodes[:2]) + "]"
    assert 0 <= body["promised_ballot"] < 2**53
    await cluster.nodes[0].stop()
    answers = (await cluster.api.ok("GET", path))["acceptors"]
    assert {answer["node_id"]: answer["reachable"] for answer in answers} == {
        "node-0": False,
        "node-1": True,
        "node-2": True,
    }


async def test_redundancy(empty_cluster: Cluster) -> None:
    api = empty_cluster.api
    video = await empty_cluster.video()
    path = f"/redundancy/recommend/{video.video_id}"
    assert await api.ok("GET", path) == {
        "video_id": video.video_id,
        "view_count": 0,
        "recommended_mode": "erasure_coding",
        "config": {
            "mode": "erasure_coding",
            "data_shards": 3,
            "parity_shards": 2,
            "total_shards": 5,
            "min_shards_for_recovery": 3,
            "replicas": None,
        },
    }
    override = f"/redundancy/override/{video.video_id}"
    assert await api.ok("POST", f"{override}?mode=replication") == {
        "status": "ok",
        "video_id": video.video_id,
        "override_mode": "replication",
        "message": "Manual override set to replication",
    }
    body = await api.ok("GET", path)
    assert (body["recommended_mode"], body["config"]["replicas"]) == ("replication", 3)
    assert await api.ok("DELETE", override) == {
        "status": "ok",
        "video_id": video.video_id,
        "message": "Manual override cleared",
    }
    assert (await api.ok("GET", path))["recommended_mode"] == "erasure_coding"
    await empty_cluster.sql("UPDATE video_views SET view_count = 1000")
    assert (await api.ok("GET", path))["recommended_mode"] == "replication"


async def test_redundancy_figures(empty_cluster: Cluster) -> None:
    assert await empty_cluster.api.ok("GET", "/redundancy/efficiency") == {
        "efficiency": {
            "replication_overhead_factor": 3.0,
            "erasure_coding_overhead_factor": 1.67,
            "storage_savings_percent": 44.4,
        },
        "mode_comparison": {
            "replication": {"storage_per_chunk_mb": 6.0, "nodes_required": 3, "failures_tolerated": 2},
            "erasure_coding": {"storage_per_chunk_mb": 3.33, "nodes_required": 5, "failures_tolerated": 2},
        },
    }
    assert await empty_cluster.api.ok("GET", "/redundancy/config") == {
        "popularity_threshold": 1000,
        "replication_factor": 3,
        "erasure_data_shards": 3,
        "erasure_parity_shards": 2,
        "erasure_total_shards": 5,
    }


async def test_overhead_is_what_is_stored(cluster: Cluster) -> None:
    assert (await cluster.api.ok("GET", "/storage/overhead"))["total_logical_bytes"] == 0
    video = await cluster.video()
    await video.store(cluster.nodes, b"x" * 100)
    await video.put(cluster.nodes[:2], b"y" * 50, 1)
    assert (await video.commit(cluster.nodes, b"y" * 50, 1)).body["degraded"] is True
    assert await cluster.api.ok("GET", "/storage/overhead") == {
        "replication_chunks": 2,
        "erasure_coded_chunks": 0,
        "total_logical_bytes": 150,
        "total_physical_bytes": 400,
        "storage_savings_percent": 11.1,
        "replication_overhead_bytes": 400,
        "erasure_overhead_bytes": 0,
    }


UNKNOWN = [
    ("GET", "/video/none"),
    ("DELETE", "/video/none"),
    ("PATCH", "/video/none/status"),
    ("GET", "/video/none/popularity"),
    ("POST", "/video/none/view"),
    ("GET", "/manifest/none"),
    ("POST", "/chunk/none/commit"),
    ("GET", "/chunk/none/fragments"),
    ("GET", "/consensus/none"),
    ("GET", "/consensus/none-chunk-000"),
    ("POST", "/nodes/none/heartbeat"),
    ("GET", "/redundancy/recommend/none"),
    ("POST", "/redundancy/override/none?mode=replication"),
    ("DELETE", "/redundancy/override/none"),
    ("GET", "/nothing/here"),
]


async def test_unknown_ids_are_404(empty_cluster: Cluster) -> None:
    bodies: dict[str, Any] = {
        "PATCH /video/none/status": {"status": "failed"},
        "POST /chunk/none/commit": {
            "node_urls": ["http://127.0.0.1:1"],
            "checksum": "0" * 64,
            "size_bytes": 1,
            "video_id": "none",
            "sequence_num": 0,
        },
        "POST /nodes/none/heartbeat": {"disk_usage_percent": 1, "chunk_count": 1},
    }
    for method, path in UNKNOWN:
        answer = await empty_cluster.api.call(method, path, bodies.get(f"{method} {path}"))
        assert answer.status == 404, (method, path, answer.body)
        assert isinstance(answer.body["detail"], str), path


async def test_openapi_and_metrics(cluster: Cluster) -> None:
    document = await cluster.api.ok("GET", "/openapi.json")
    assert "/chunk/{chunk_id}/commit" in document["paths"]
    text = (await cluster.api.call("GET", "/metrics")).body
    for name in ("commit_duration_seconds", "nodes", "videos", "chunks", "degraded_chunks", "database_up"):
        assert f"vstack_metadata_{name}" in text, name
