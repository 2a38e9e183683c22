"""The client's HTTP API against its contract: every field and type, while idle, while playing, and afterwards."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web

from tests.client import fakes
from tests.client.fakes import DEADLINE_S, VIDEO, FakeCluster, cluster, until
from vstack.client import history, smart_client
from vstack.client.app import make_app
from vstack.core.playback.machine import PATIENCE_S
from vstack.service.runner import serving
from vstack.settings import ClientSettings

Json = dict[str, object]

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
OPTIONAL_TEXT = (str, type(None))

STATUS: Json = {
    "video_id": OPTIONAL_TEXT,
    "playing": bool,
    "startup_latency": OPTIONAL_NUMBER,
    "playback_duration": NUMBER,
    "buffer": {
        "state": str,
        "buffer_level_sec": NUMBER,
        "target_buffer_sec": NUMBER,
        "buffer_health_percent": NUMBER,
        "current_position": int,
    },
    "buffer_stats": {"total_chunks_played": int, "rebuffering_events": int, "average_buffer_level": NUMBER},
    "scheduler_stats": {"total_downloads": int, "success_rate": NUMBER, "failover_count": int},
    "network_stats": {"*": {"latency_ms": NUMBER, "bandwidth_mbps": NUMBER, "success_rate": NUMBER}},
    "node_scores": {"*": NUMBER},
}
STATS: Json = {
    "session": {
        "video_id": OPTIONAL_TEXT,
        "startup_latency": OPTIONAL_NUMBER,
        "playback_duration": NUMBER,
        "total_chunks_played": int,
    },
    "buffer": {"current_level_sec": NUMBER, "target_sec": NUMBER, "health_percent": NUMBER, "rebuffering_events": int},
    "downloads": {"total": int, "successful": int, "failed": int, "success_rate": NUMBER, "failovers": int},
    "nodes": {
        "*": {
            "score": NUMBER,
            "downloads": int,
            "latency_ms": NUMBER,
            "bandwidth_mbps": NUMBER,
            "success_rate": NUMBER,
        }
    },
}
METRICS: Json = {
    "buffer_history": [{"timestamp": NUMBER, "level": NUMBER}],
    "throughput_history": [{"timestamp": NUMBER, "mbps": NUMBER}],
    "node_score_history": {"*": [{"timestamp": NUMBER, "score": NUMBER}]},
}
PERFORMANCE: Json = {
    "startup_latency_sec": OPTIONAL_NUMBER,
    "average_throughput_mbps": NUMBER,
    "rebuffering_events": int,
    "average_buffer_level_sec": NUMBER,
    "playback_duration_sec": NUMBER,
    "chunks_played": int,
    "download_success_rate": NUMBER,
}
CONTRACT = {
    "/api/status": STATUS,
    "/api/stats": STATS,
    "/api/metrics": METRICS,
    "/api/performance": PERFORMANCE,
    "/health": {"status": str},
}


def check(value: object, shape: object, where: str) -> None:
    """`value` has every key of `shape`, with its type; `*` stands for any key, a list for any number of items."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        for key, inner in shape.items():
            for name in value if key == "*" else [key]:
                assert name in value, f"{where}.{name} is missing"
                check(value[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for number, item in enumerate(value):
            check(item, shape[0], f"{where}[{number}]")
    else:
        assert isinstance(shape, type | tuple)
        assert isinstance(value, shape), f"{where} is {value!r}"
        assert not isinstance(value, bool) or shape is bool, where


@dataclass
class Api:
    """The client's server, and a cluster that it plays from."""

    cluster: FakeCluster
    http: aiohttp.ClientSession

    async def get(self, path: str) -> Json:
        async with self.http.get(path) as answer:
            assert answer.status == 200
            body: Json = await answer.json()
            return body

    async def post(self, path: str, body: object = None, *, expect: int = 200) -> Json:
        async with self.http.post(path, json=body) as answer:
            assert answer.status == expect, await answer.text()
            decoded: Json = await answer.json()
            return decoded

    async def when(self, **fields: object) -> Json:
        """The status, as soon as its top-level fields are these."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                status = await self.get("/api/status")
                if all(status[name] == value for name, value in fields.items()):
                    return status
                await asyncio.sleep(0.01)

    async def metric(self, name: str) -> float:
        async with self.http.get("/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(name + " "):
                    return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr("vstack.client.station.SAMPLE_INTERVAL_S", 0.02)
    async with cluster(chunk_count=10) as made:
        app = await make_app(ClientSettings(metadata_urls=(made.metadata.url,)))
        async with serving(app, "127.0.0.1", 0) as runner:
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
                yield Api(made, http)


@pytest.mark.parametrize("path", CONTRACT)
async def test_contract_while_idle(api: Api, path: str) -> None:
    check(await api.get(path), CONTRACT[path], path)


async def test_idle_means_nothing_was_played(api: Api) -> None:
    status = await api.get("/api/status")
    assert (status["video_id"], status["playing"], status["startup_latency"]) == (None, False, None)
    assert status["buffer"] == {
        "state": "idle",
        "buffer_level_sec": 0,
        "target_buffer_sec": 30,
        "buffer_health_percent": 0,
        "current_position": 0,
    }


async def test_contract_while_playing(api: Api) -> None:
    await api.post("/api/play", {"video_id": VIDEO})
    await until(lambda: bool(api.cluster.metadata.views))
    async with asyncio.timeout(DEADLINE_S):
        while len((await api.get("/api/metrics"))["buffer_history"]) < 3:  # type: ignore[arg-type]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for path, shape in CONTRACT.items():
        check(await api.get(path), shape, path)

    status = await api.get("/api/status")
    nodes = {node.url for node in api.cluster.nodes}
    assert (status["video_id"], status["playing"]) == (VIDEO, True)
    for mapping in (
        status["network_stats"],
        status["node_scores"],
        (await api.get("/api/stats"))["nodes"],
        (await api.get("/api/metrics"))["node_score_history"],
    ):
        assert isinstance(mapping, dict)
        assert set(mapping) == nodes
    buffer = status["buffer"]
    assert isinstance(buffer, dict)
    assert buffer["state"] in ("low", "healthy")
    assert buffer["buffer_level_sec"] >= 9
    assert await api.metric("vstack_client_playing") == 1
    assert await api.metric("vstack_client_buffer_seconds") >= 9
    await api.post("/api/stop")


async def test_figures_agree_with_each_other_after_a_whole_video(api: Api) -> None:
    api.cluster.nodes[0].behave = fakes.crash
    await api.post("/api/play", {"video_id": VIDEO, "speed": 0})
    status = await api.when(playing=False)
    stats = await api.get("/api/stats")
    performance = await api.get("/api/performance")
    assert status["error"] is None
    assert isinstance(status["buffer"], dict)
    assert status["buffer"]["state"] == "finished"
    assert status["playback_duration"] == performance["playback_duration_sec"] == 40
    assert performance["chunks_played"] == 10
    downloads, nodes = stats["downloads"], stats["nodes"]
    assert isinstance(downloads, dict)
    assert isinstance(nodes, dict)
    assert downloads["successful"] == 10 == sum(node["downloads"] for node in nodes.values())
    assert downloads["total"] == downloads["successful"] + downloads["failed"]
    assert downloads["success_rate"] == pytest.approx(10 / downloads["total"])
    assert downloads["failed"] == await api.metric('vstack_client_downloads_total{outcome="error"}')
    assert await api.metric('vstack_client_downloads_total{outcome="ok"}') == 10
    assert await api.metric("vstack_client_download_bytes_total") == 2_000_000
    assert await api.metric("vstack_client_failovers_total") == downloads["failovers"]
    assert await api.metric('vstack_client_playbacks_total{outcome="completed"}') == 1
    assert await api.metric("vstack_client_startup_seconds_count") == 1
    assert api.cluster.metadata.views == [VIDEO]


async def test_totals_go_on_over_several_playbacks(api: Api) -> None:
    for count in (1, 2):
        await api.post("/api/play", {"video_id": VIDEO, "speed": 0})
        await api.when(playing=False)
        assert await api.metric("vstack_client_download_bytes_total") == count * 2_000_000


async def test_stop_ends_the_playback_and_is_harmless_when_idle(api: Api) -> None:
    await api.post("/api/stop")
    await api.post("/api/play", {"video_id": VIDEO})
    status = await api.post("/api/stop")
    assert status["playing"] is False
    assert await api.metric('vstack_client_playbacks_total{outcome="stopped"}') == 1
    await api.post("/api/play", {"video_id": VIDEO})
    await api.post("/api/stop")
    await until(lambda: not any(node.active for node in api.cluster.nodes))


async def test_one_playback_at_a_time(api: Api) -> None:
    first, second = await asyncio.gather(
        *(api.http.post("/api/play", json={"video_id": VIDEO}) for _ in range(2)),
    )
    assert sorted([first.status, second.status]) == [200, 409]
    await api.post("/api/stop")


async def test_a_playback_that_fails_says_why(api: Api) -> None:
    async def deleted(node: fakes.FakeNode, request: web.Request, data: bytes) -> web.StreamResponse:
        api.cluster.metadata.manifests.clear()
        return await fakes.lack(node, request, data)

    for node in api.cluster.nodes:
        node.behave = deleted
    await api.post("/api/play", {"video_id": VIDEO, "speed": 0})
    status = await api.when(playing=False)
    assert "deleted" in str(status["error"])
    assert await api.metric('vstack_client_playbacks_total{outcome="failed"}') == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"video_id": "unknown"}, 404),
        ({"video_id": "../etc"}, 400),
        ({"video_id": 7}, 400),
        ({}, 400),
        ({"video_id": VIDEO, "speed": -1}, 400),
        ({"video_id": VIDEO, "speed": 1e9}, 400),
        ({"video_id": VIDEO, "speed": "fast"}, 400),
        ([], 400),
    ],
)
async def test_bad_requests_start_nothing(api: Api, body: object, expected: int) -> None:
    answer = await api.post("/api/play", body, expect=expected)
    assert isinstance(answer["detail"], str)
    assert (await api.get("/health"))["playing"] is False


async def test_metadata_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smart_client, "MANIFEST_PAUSE_S", 2 * PATIENCE_S)  # nobody waits that long
    api.cluster.metadata.failing = True
    assert "database" in str((await api.post("/api/play", {"video_id": VIDEO}, expect=503))["detail"])


@pytest.mark.parametrize(("method", "path", "expected"), [("GET", "/nowhere", 404), ("PUT", "/api/play", 405)])
async def test_unknown_routes_have_the_usual_body(api: Api, method: str, path: str, expected: int) -> None:
    async with api.http.request(method, path) as answer:
        assert answer.status == expected
        assert "detail" in await answer.json()


async def test_the_root_shows_a_page_of_its_own(api: Api) -> None:
    async with api.http.get("/") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        text = await answer.text()
    assert "api/status" in text
    assert "http" not in text.replace("http-equiv", "")  # it loads nothing from elsewhere


async def test_the_root_leads_to_grafana_where_it_is_configured() -> None:
    app = await make_app(ClientSettings(grafana_url="http://127.0.0.1:3000/d/playback"))
    async with serving(app, "127.0.0.1", 0) as runner:
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as http, http.get(f"http://{host}:{port}/", allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.headers["Location"] == "http://127.0.0.1:3000/d/playback"


async def test_the_openapi_document_lists_every_route(api: Api) -> None:
    paths = (await api.get("/openapi.json"))["paths"]
    assert isinstance(paths, dict)
    assert {"/", "/metrics", "/api/play", "/api/stop", *CONTRACT} <= set(paths)


def test_histories_are_bounded_and_forget_nodes_that_are_gone() -> None:
    recorder = history.Recorder()
    for second in range(history.MAX_SAMPLES + 50):
        nodes = {"a": 1.0, "b": 2.0} if second < 300 else {"a": 1.0}
        recorder.sample(float(second), level_s=1.0, mbps=2.0, scores=nodes)
    kept = recorder.history()
    assert len(kept.buffer_history) == len(kept.throughput_history) == history.MAX_SAMPLES
    assert kept.buffer_history[-1].timestamp == history.MAX_SAMPLES + 49
    assert set(kept.node_score_history) == {"a"}
