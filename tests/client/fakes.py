"""Real HTTP servers that behave as they are told: storage nodes with faults, and a metadata service."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from msgspec.structs import replace

from vstack import ids
from vstack.core import erasure
from vstack.service.endpoint import json_response
from vstack.wire.metadata import Acknowledged, Fragment, Manifest, ManifestChunk

Behaviour = Callable[["FakeNode", web.Request, bytes], Awaitable[web.StreamResponse]]
DEADLINE_S = 20.0
VIDEO = "11111111-2222-4333-8444-555555555555"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for a bounded time."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - polls servers that have no event for it
            await asyncio.sleep(0.01)


async def serve(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    """What a good node does."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    for start in range(0, len(data), 65536):
        await response.write(data[start : start + 65536])
    return response


async def hang_before_headers(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    await node.released.wait()
    return web.Response(status=503)


async def hang_mid_body(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    await node.released.wait()
    return response


async def flip_a_bit(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    wrong = bytearray(data)
    wrong[len(wrong) // 2] ^= 1
    return await serve(node, request, bytes(wrong))


async def send_too_much(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    return await serve(node, request, data + b"more")


async def lack(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    return json_response({"detail": "no such chunk"}, status=404)


async def crash(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    return json_response({"detail": "checksum mismatch"}, status=500)


async def reset(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_short(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def trickle(node: "FakeNode", request: web.Request, data: bytes) -> web.StreamResponse:
    """About 100 kB/s: alive, but of no use."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    for start in range(0, len(data), 10_000):
        await response.write(data[start : start + 10_000])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(node.released.wait(), 0.1)
    return response


@dataclass
class FakeNode:
    """One storage node on a port of its own. `behave` decides each GET; `down` closes the port."""

    chunks: Mapping[str, bytes]
    behave: Behaviour = serve
    url: str = ""
    requests: list[str] = field(default_factory=list)
    pings: int = 0
    active: int = 0
    most_active: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def up(self) -> None:
        app = web.Application()
        app.router.add_get("/chunk/{chunk_id}", self._get)
        app.router.add_route("HEAD", "/ping", self._ping)
        self._runner, self.url = await _listen(app)

    async def down(self) -> None:
        self.released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get(self, request: web.Request) -> web.StreamResponse:
        chunk_id = request.match_info["chunk_id"]
        self.requests.append(chunk_id)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            data = self.chunks.get(chunk_id)
            return await (lack(self, request, b"") if data is None else self.behave(self, request, data))
        finally:
            self.active -= 1

    async def _ping(self, request: web.Request) -> web.Response:
        self.pings += 1
        return web.Response(headers={"X-Node-ID": "n", "X-Disk-Usage-Percent": "1.0", "X-Chunk-Count": "1"})


@dataclass
class FakeMetadata:
    """A metadata service that knows the manifests it is given."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)
    manifest_requests: int = 0
    failing: bool = False
    url: str = ""
    _runner: web.AppRunner | None = None

    async def up(self) -> None:
        app = web.Application()
        app.router.add_get("/manifest/{video_id}", self._manifest)
        app.router.add_post("/video/{video_id}/view", self._view)
        self._runner, self.url = await _listen(app)

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _manifest(self, request: web.Request) -> web.Response:
        self.manifest_requests += 1
        if self.failing:
            return json_response({"detail": "no database"}, status=503)
        manifest = self.manifests.get(request.match_info["video_id"])
        if manifest is None:
            return json_response({"detail": "no such video"}, status=404)
        return json_response(manifest)

    async def _view(self, request: web.Request) -> web.Response:
        if self.failing:
            return json_response({"detail": "no database"}, status=503)
        self.views.append(request.match_info["video_id"])
        return json_response(Acknowledged(status="ok", message="counted"))


@dataclass
class FakeCluster:
    """Three or more nodes that all hold one video, and a metadata service that says so."""

    nodes: list[FakeNode]
    metadata: FakeMetadata
    chunks: dict[str, bytes]

    @property
    def content(self) -> bytes:
        return b"".join(self.chunks.values())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def manifest(self, *, chunk_s: float, nodes: list[FakeNode] | None = None) -> Manifest:
        holders = self.nodes if nodes is None else nodes
        return Manifest(
            video_id=VIDEO,
            title="A video",
            duration_sec=chunk_s * len(self.chunks),
            total_chunks=len(self.chunks),
            chunk_duration_sec=10,
            chunk_size_bytes=2097152,
            created_at="2024-11-06T10:30:00.000Z",
            status="active",
            chunks=tuple(
                ManifestChunk(
                    chunk_id=chunk_id,
                    sequence_num=number,
                    size_bytes=len(data),
                    checksum="sha256:" + hashlib.sha256(data).hexdigest(),
                    redundancy_mode="replication",
                    replicas=tuple(node.url for node in holders),
                    duration_sec=chunk_s,
                )
                for number, (chunk_id, data) in enumerate(self.chunks.items())
            ),
        )

    def coded(self, manifest: Manifest) -> Manifest:
        """The same video erasure-coded: one fragment of every chunk on each of five nodes, and no replica."""
        made: list[ManifestChunk] = []
        stored: list[dict[str, bytes]] = [{} for _ in self.nodes]
        for chunk in manifest.chunks:
            fragments: list[Fragment] = []
            for index, data in enumerate(erasure.encode(self.chunks[chunk.chunk_id])):
                fragment_id = ids.fragment_id(chunk.chunk_id, index)
                stored[index][fragment_id] = data
                fragments.append(
                    Fragment(
                        fragment_id=fragment_id,
                        fragment_index=index,
                        node_url=self.nodes[index].url,
                        size_bytes=len(data),
                        checksum="sha256:" + hashlib.sha256(data).hexdigest(),
                        status="active",
                    )
                )
            made.append(replace(chunk, redundancy_mode="erasure_coding", replicas=(), fragments=tuple(fragments)))
        for node, chunks in zip(self.nodes, stored, strict=True):
            node.chunks = chunks
        return replace(manifest, chunks=tuple(made))


@contextlib.asynccontextmanager
async def cluster(
    *, chunk_count: int = 6, chunk_bytes: int = 200_000, chunk_s: float = 4.0, node_count: int = 3
) -> AsyncIterator[FakeCluster]:
    """A cluster on free ports, with one video of distinct chunks."""
    chunks = {
        f"{VIDEO}-chunk-{number:03d}": hashlib.shake_128(str(number).encode()).digest(chunk_bytes)
        for number in range(chunk_count)
    }
    made = FakeCluster([FakeNode(chunks) for _ in range(node_count)], FakeMetadata(), chunks)
    try:
        for node in made.nodes:
            await node.up()
        await made.metadata.up()
        made.metadata.manifests[VIDEO] = made.manifest(chunk_s=chunk_s)
        yield made
    finally:
        for node in made.nodes:
            await node.down()
        await made.metadata.down()


async def _listen(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return runner, f"http://{host}:{port}"
