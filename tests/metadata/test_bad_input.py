"""Whatever a client sends wrong is a clear 4xx and changes nothing."""

import io
from typing import Any

import pytest

from tests.metadata.cluster import Cluster

pytestmark = pytest.mark.cluster

BAD_IDS = ["a b", "a%00b", "%2e%2e%2fetc", "x" * 65, "ü", "a'b", "a;--", "a%0a"]
BAD_VIDEOS: list[Any] = [
    {},
    [],
    None,
    7,
    {"title": ""},
    {"title": None},
    {"title": 7},
    {"title": "x" * 201},
    {"title": "nul\0"},
    {"title": "line\nbreak"},
    {"title": "t", "duration_sec": -1},
    {"title": "t", "duration_sec": "1"},
    {"title": "t", "duration_sec": 1e300},
    {"title": "t", "video_id": "a b"},
    {"title": "t", "video_id": "x" * 51},
    {"title": "t", "video_id": ""},
    {"title": "t", "video_id": "v\n"},
]
BAD_BODIES = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"title": "\\ud800"}',
    b'{"title": "\\udc00"}',
    b'{"title": "a\xff"}',
    b"[" * 50000,
]
BAD_BEATS: list[Any] = [
    {},
    {"disk_usage_percent": 101, "chunk_count": 1},
    {"disk_usage_percent": -1, "chunk_count": 1},
    {"disk_usage_percent": "1", "chunk_count": 1},
    {"disk_usage_percent": 1, "chunk_count": -1},
    {"disk_usage_percent": 1, "chunk_count": 2**70},
    {"disk_usage_percent": 1, "chunk_count": 1, "disk_status": "on fire"},
]
BAD_NODES: list[dict[str, Any]] = [
    {},
    {"node_id": "n"},
    {"node_url": "http://127.0.0.1:1"},
    {"node_id": "a b", "node_url": "http://127.0.0.1:1"},
    {"node_id": "n", "node_url": "ftp://127.0.0.1:1"},
    {"node_id": "n", "node_url": "http://127.0.0.1:1/path"},
    {"node_id": "n", "node_url": "http://x" + "x" * 300},
    {"node_id": "n", "node_url": "http://127.0.0.1:1", "host": "h" * 300},
    {"node_id": "n", "node_url": "http://127.0.0.1:1", "zone": "z\0"},
    {"node_id": "n", "node_url": "http://127.0.0.1:1", "capacity_bytes": -1},
    {"node_id": "n", "node_url": "http://127.0.0.1:1", "capacity_bytes": 2**64},
    {"node_id": "n", "node_url": "http://127.0.0.1:1", "incarnation": "new"},
]


async def content(cluster: Cluster) -> list[list[tuple[Any, ...]]]:
    tables = ("videos", "video_views", "chunks", "replicas", "generations")
    found = [await cluster.sql(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    return [*found, await cluster.sql("SELECT node_id, url, host, zone, capacity_bytes FROM nodes ORDER BY 1")]


async def test_bad_ids(cluster: Cluster) -> None:
    for bad in BAD_IDS:
        for method, path in (
            ("GET", f"/video/{bad}"),
            ("DELETE", f"/video/{bad}"),
            ("GET", f"/manifest/{bad}"),
            ("GET", f"/video/{bad}/popularity"),
            ("POST", f"/video/{bad}/view"),
            ("GET", f"/chunk/{bad}/fragments"),
            ("POST", f"/chunk/{bad}/commit"),
            ("GET", f"/consensus/{bad}"),
            ("POST", f"/nodes/{bad}/heartbeat"),
            ("GET", f"/redundancy/recommend/{bad}"),
            ("POST", f"/redundancy/override/{bad}?mode=replication"),
            ("DELETE", f"/redundancy/override/{bad}"),
        ):
            answer = await cluster.api.call(method, path)
            assert answer.status in (400, 404), (method, path, answer.body)
            assert isinstance(answer.body["detail"], str)


async def test_bad_bodies_change_nothing(cluster: Cluster) -> None:
    video = await cluster.video()
    before = await content(cluster)
    for body in BAD_VIDEOS:
        assert (await cluster.api.call("POST", "/video", json=body)).status == 400, body
    for change in ({}, {"status": "uploading"}, {"status": "active", "total_chunks": -1}, {"status": 1}):
        assert (await cluster.api.call("PATCH", f"/video/{video.video_id}/status", json=change)).status == 400, change
    for registration in BAD_NODES:
        assert (await cluster.api.call("POST", "/nodes/register", registration)).status == 400, registration
        params = {name: str(value) for name, value in registration.items()}
        assert (await cluster.api.call("POST", "/nodes/register", params=params)).status == 400, params
    for beat in BAD_BEATS:
        assert (await cluster.api.call("POST", "/nodes/node-0/heartbeat", json=beat)).status == 400, beat
    for data in BAD_BODIES:
        for method, path in (
            ("POST", "/video"),
            ("PATCH", f"/video/{video.video_id}/status"),
            ("POST", f"/chunk/{video.chunk_id(0)}/commit"),
            ("POST", "/nodes/node-0/heartbeat"),
        ):
            answer = await cluster.api.call(method, path, data=data)
            assert answer.status == 400, (path, data[:20], answer.body)
    answer = await cluster.api.call("POST", "/video", data=io.BytesIO(b'{"title": "' + b"x" * 1_100_000))
    assert answer.status == 413
    assert await content(cluster) == before


async def test_bad_queries(cluster: Cluster) -> None:
    for query in ("limit=0", "limit=-1", "limit=x", "limit=1001", "offset=-1", "offset=99999999999", "limit="):
        assert (await cluster.api.call("GET", f"/videos?{query}")).status == 400, query
    video = await cluster.video()
    for query in ("", "mode=", "mode=raid", "mode=%00"):
        path = f"/redundancy/override/{video.video_id}?{query}"
        assert (await cluster.api.call("POST", path)).status == 400, query


async def test_bad_commits_change_nothing(cluster: Cluster) -> None:
    video = await cluster.video()
    await video.put(cluster.nodes, b"x")
    before = await content(cluster)
    urls = [node.url for node in cluster.nodes]
    wrong: list[dict[str, Any]] = [
        {"node_urls": []},
        {"node_urls": urls * 6},
        {"node_urls": [urls[0], urls[0], urls[1]]},
        {"node_urls": [*urls[:2], "http://127.0.0.1:1"]},
        {"node_urls": [*urls[:2], "not a url"]},
        {"node_urls": urls[:1]},
        {"node_urls": urls[0]},
        {"checksum": "x"},
        {"checksum": "md5:" + "0" * 64},
        {"checksum": "0" * 63},
        {"size_bytes": 0},
        {"size_bytes": 2097153},
        {"size_bytes": 1.5},
        {"sequence_num": -1},
        {"sequence_num": 1},
        {"sequence_num": 2**31},
        {"video_id": "a b"},
        {"video_id": "another"},
        {"redundancy_mode": "raid"},
        {"redundancy_mode": "erasure_coding"},
        {"redundancy_mode": "erasure_coding", "fragments_metadata": []},
        {"fragments_metadata": [{"fragment_index": 0, "node_url": urls[0], "checksum": "0" * 64, "size_bytes": 1}]},
        {"fragments_metadata": 7},
        {"receipts": ["%%%"]},
        {"receipts": ["x" * 5000]},
        {"receipts": [""]},
        {"last": "yes"},
        {"duration_ms": -1},
    ]
    for change in wrong:
        body = {**video.body(cluster.nodes, b"x"), **change}
        answer = await cluster.api.call("POST", f"/chunk/{video.chunk_id(0)}/commit", body)
        assert answer.status == 400, (change, answer.body)
        assert isinstance(answer.body["detail"], str)
    for missing in ("node_urls", "checksum", "size_bytes", "video_id", "sequence_num"):
        body = video.body(cluster.nodes, b"x")
        del body[missing]
        assert (await cluster.api.call("POST", f"/chunk/{video.chunk_id(0)}/commit", body)).status == 400, missing
    for chunk_id in ("other-chunk-000", f"{video.video_id}-chunk-0000", f"{video.video_id}-chunk-001"):
        answer = await cluster.api.call("POST", f"/chunk/{chunk_id}/commit", video.body(cluster.nodes, b"x"))
        assert answer.status == 400, chunk_id
    assert await content(cluster) == before
    assert (await video.commit(cluster.nodes, b"x")).status == 200


async def test_the_longest_texts_fit_a_decree(cluster: Cluster) -> None:
    """Titles of 200 characters of four bytes, with the longest ids, still commit."""
    video = await cluster.video("😀" * 200, video_id="v" * 50)
    assert (await video.store(cluster.nodes, b"x"))["success"] is True
